#include "brockett/eigen.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "reference.hpp"

namespace brockett::test {
namespace {

template <class E>
class EigenTest : public EngineTest<E> {
 protected:
  using Scalar = typename E::T;
  using EngineTest<E>::eps;

  SymmetricEigen<Scalar> run(const HostMatrix<Scalar>& A, Triangle triangle, bool vectors, Order order,
                             index_t padding = 0) {
    const auto device = this->to_device(A, order, padding);
    auto r = eigen_symmetric<Scalar>(this->context, device.view(), triangle, vectors);
    EXPECT_EQ(std::memcmp(this->to_host(device).data.data(), A.data.data(), A.data.size() * sizeof(Scalar)), 0)
        << "the input was changed";
    return r;
  }
};
TYPED_TEST_SUITE(EigenTest, Engines, EngineNames);

/// S with one triangle overwritten by what must not be read.
template <class T>
HostMatrix<T> one_triangle(HostMatrix<T> S, Triangle triangle) {
  for (index_t j = 0; j < S.cols; ++j) {
    for (index_t i = 0; i < S.rows; ++i) {
      if (triangle == Triangle::lower ? i < j : i > j) S(i, j) = std::numeric_limits<T>::quiet_NaN();
    }
  }
  return S;
}

TYPED_TEST(EigenTest, of_small_matrices_by_hand) {
  using T = typename TypeParam::T;
  // [[2, 1], [1, 2]]: 1 and 3, vectors (1, -1) and (1, 1) over sqrt 2
  const HostMatrix<T> A{{2, 1}, {1, 2}};
  for (const Triangle triangle : {Triangle::lower, Triangle::upper}) {
    for (const Order order : {Order::row_major, Order::column_major}) {
      const auto r = this->run(one_triangle(A, triangle), triangle, true, order);
      ASSERT_EQ(r.values.size(), 2U);
      EXPECT_NEAR(r.values[0], 1, 8 * this->eps);
      EXPECT_NEAR(r.values[1], 3, 8 * this->eps);
      const HostMatrix<T> V = this->to_host(r.vectors);
      EXPECT_NEAR(V(0, 0) * V(1, 0), -0.5, 8 * this->eps);
      EXPECT_NEAR(V(0, 1) * V(1, 1), 0.5, 8 * this->eps);
    }
  }
  const auto one = this->run(HostMatrix<T>{{-5}}, Triangle::lower, true, Order::row_major);
  EXPECT_EQ(one.values, std::vector<double>{-5});
  EXPECT_EQ(std::abs(this->to_host(one.vectors)(0, 0)), 1);
}

TYPED_TEST(EigenTest, reads_one_triangle_in_any_order) {
  using T = typename TypeParam::T;
  const index_t n = 37;
  const HostMatrix<T> X = HostMatrix<T>::random(n, n, 5);
  HostMatrix<T> S(n, n);
  for (index_t j = 0; j < n; ++j) {
    for (index_t i = 0; i < n; ++i) S(i, j) = (X(i, j) + X(j, i)) / 2;
  }
  const Spectrum exact = jacobi_eigen(real(S));
  const double norm = static_cast<double>(std::max(std::abs(exact.values.front()), std::abs(exact.values.back())));
  for (const Triangle triangle : {Triangle::lower, Triangle::upper}) {
    for (const Order order : {Order::row_major, Order::column_major}) {
      for (const bool vectors : {true, false}) {
        SCOPED_TRACE(std::to_string(static_cast<int>(triangle)) + std::to_string(static_cast<int>(order)));
        const auto r = this->run(one_triangle(S, triangle), triangle, vectors, order, 3);
        ASSERT_EQ(r.values.size(), static_cast<std::size_t>(n));
        for (index_t i = 0; i < n; ++i) {
          const auto k = static_cast<std::size_t>(i);
          EXPECT_NEAR(r.values[k], static_cast<double>(exact.values[k]), 40 * this->eps * norm);
        }
        if (!vectors) {
          EXPECT_EQ(r.vectors.rows() * r.vectors.cols(), 0);
          continue;
        }
        const HostMatrix<T> V = this->to_host(r.vectors);
        EXPECT_LE(orthogonality_error(V), 20 * this->eps * std::sqrt(static_cast<double>(n)));
        const std::vector<Real> values(r.values.begin(), r.values.end());
        const RealMatrix error = plus(times(S, V), -1, times(V, RealMatrix::diagonal(values)));
        EXPECT_LE(static_cast<double>(frobenius(error)), 40 * this->eps * norm * std::sqrt(static_cast<double>(n)));
      }
    }
  }
}

TYPED_TEST(EigenTest, refuses_what_has_no_answer) {
  using T = typename TypeParam::T;
  HostMatrix<T> A{{1, 2, 3}, {2, 4, 5}, {3, 5, 6}};
  A(2, 1) = std::numeric_limits<T>::infinity();
  for (const Order order : {Order::row_major, Order::column_major}) {
    const auto device = this->to_device(A, order);
    try {
      eigen_symmetric<T>(this->context, device.view(), Triangle::lower, false);
      FAIL() << "an Inf was taken";
    } catch (const NonFinite& e) {
      EXPECT_NE(std::string(e.what()).find("(2, 1)"), std::string::npos) << e.what();
    }
    EXPECT_NO_THROW(eigen_symmetric<T>(this->context, device.view(), Triangle::upper, false));
  }
  A = HostMatrix<T>{{1, 2, 3}, {2, 4, 5}, {3, 5, 6}};
  A(0, 2) = std::numeric_limits<T>::quiet_NaN();
  const auto device = this->to_device(A, Order::row_major);
  try {
    eigen_symmetric<T>(this->context, device.view(), Triangle::upper, true);
    FAIL() << "a NaN was taken";
  } catch (const NonFinite& e) {
    EXPECT_NE(std::string(e.what()).find("(0, 2)"), std::string::npos) << e.what();
  }
  const auto wide = this->to_device(HostMatrix<T>(2, 3));
  EXPECT_THROW(eigen_symmetric<T>(this->context, wide.view()), InvalidArgument);
  EXPECT_THROW(eigen_symmetric<T>(this->context, MatrixView<const T>(nullptr, 0, 0)), InvalidArgument);
}

}  // namespace
}  // namespace brockett::test
