#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "brockett/convolution.hpp"
#include "reference.hpp"

namespace brockett::test {
namespace {

/// The convolution as a matrix, by its definition: (out, n1 / s1, n2 / s2) x (in, n1, n2).
template <class T>
RealMatrix dense(const HostMatrix<T>& K, const OperatorParams& p) {
  const index_t taps = p.kernel[0] * p.kernel[1], in = K.cols / taps, of_group = K.rows / p.groups;
  const index_t rows = p.grid[0] / p.stride[0], cols = p.grid[1] / p.stride[1];
  RealMatrix A(K.rows * rows * cols, in * p.groups * p.grid[0] * p.grid[1]);
  for (index_t o = 0; o < K.rows; ++o) {
    for (index_t c = 0; c < in; ++c) {
      for (index_t t = 0; t < taps; ++t) {
        for (index_t i = 0; i < rows; ++i) {
          for (index_t j = 0; j < cols; ++j) {
            const index_t h = (i * p.stride[0] + t / p.kernel[1]) % p.grid[0];
            const index_t w = (j * p.stride[1] + t % p.kernel[1]) % p.grid[1];
            A((o * rows + i) * cols + j, ((o / of_group * in + c) * p.grid[0] + h) * p.grid[1] + w) +=
                static_cast<Real>(K(o, c * taps + t));
          }
        }
      }
    }
  }
  return A;
}

template <class T>
HostMatrix<T> random_kernel(index_t rows, index_t cols, std::uint64_t seed) {
  std::mt19937_64 engine(seed);
  std::normal_distribution<double> normal;
  HostMatrix<T> K(rows, cols);
  for (T& v : K.data) v = static_cast<T>(normal(engine));
  return K;
}

template <class E>
class ConvolutionTest : public EngineTest<E> {};
TYPED_TEST_SUITE(ConvolutionTest, Engines, EngineNames);

TYPED_TEST(ConvolutionTest, by_hand) {
  using T = typename TypeParam::T;
  const auto values = [&](const HostMatrix<T>& K, index_t kernel, index_t n, index_t stride = 1) {
    const auto device = this->to_device(K, Order::row_major);
    OperatorParams p;
    p.kernel = {1, kernel};
    p.grid = {1, n};
    p.stride = {1, stride};
    return operator_singular_values<T>(this->context, device.view(), p).values;
  };
  // the difference of neighbours: |1 - exp(i f)| for f = 0, pi / 2, pi, 3 pi / 2
  const auto four = values({{1, -1}}, 2, 4);
  ASSERT_EQ(four.size(), 4U);
  EXPECT_NEAR(four[0], 2, 1e-14);
  EXPECT_NEAR(four[1], std::sqrt(2.0), 1e-14);
  EXPECT_NEAR(four[2], std::sqrt(2.0), 1e-14);
  EXPECT_EQ(four[3], 0);
  // on a grid of one both taps fall on one place
  EXPECT_EQ(values({{1, -1}}, 2, 1), std::vector<double>{0});
  EXPECT_EQ(values({{1, 2}}, 2, 1), std::vector<double>{3});
  // stride 2: pairs (x0, x1), (x2, x3) by themselves
  const auto strided = values({{3, 4}}, 2, 4, 2);
  ASSERT_EQ(strided.size(), 2U);
  EXPECT_NEAR(strided[0], 5, 1e-14);
  EXPECT_NEAR(strided[1], 5, 1e-14);
}

struct Case {
  const char* name;
  index_t out, in;
  OperatorParams params;
};

TYPED_TEST(ConvolutionTest, equals_the_values_of_the_dense_matrix) {
  using T = typename TypeParam::T;
  const std::vector<Case> cases{
      {"3 x 3", 3, 4, {{3, 3}, {4, 5}}},
      {"more out than in", 5, 2, {{3, 2}, {5, 4}}},
      {"kernel as large as the grid", 2, 3, {{4, 3}, {4, 3}}},
      {"kernel larger than the grid", 3, 2, {{5, 4}, {3, 3}}},
      {"sequence", 3, 3, {{1, 5}, {1, 7}}},
      {"1 x 1", 4, 3, {{1, 1}, {2, 3}}},
      {"stride", 3, 2, {{3, 3}, {4, 6}, {2, 3}}},
      {"stride above kernel", 4, 2, {{2, 1}, {6, 4}, {3, 2}}},
      {"stride, kernel larger than the grid", 2, 1, {{5, 7}, {4, 4}, {2, 2}}},
      {"groups", 6, 2, {{3, 3}, {4, 4}, {1, 1}, 3}},
      {"depthwise", 4, 1, {{3, 3}, {5, 5}, {1, 1}, 4}},
      {"order above 8", 12, 10, {{2, 2}, {3, 3}}},
  };
  for (const Case& one : cases) {
    SCOPED_TRACE(one.name);
    const auto K = random_kernel<T>(one.out, one.in * one.params.kernel[0] * one.params.kernel[1], 5);
    std::vector<Real> want = jacobi_svd(dense(K, one.params)).s;
    std::sort(want.rbegin(), want.rend());
    const double size = static_cast<double>(want[0]);
    for (const Order order : {Order::row_major, Order::column_major}) {
      const auto device = this->to_device(K, order, 2);
      const auto found = operator_singular_values<T>(this->context, device.view(), one.params);
      ASSERT_EQ(found.values.size(), want.size());
      for (std::size_t i = 0; i < want.size(); ++i)
        EXPECT_NEAR(found.values[i], static_cast<double>(want[i]), 4e-8 * size);
      for (std::size_t i = 0; i < want.size(); ++i) {
        if (want[i] > want[0] / 1000) {
          EXPECT_NEAR(found.values[i], static_cast<double>(want[i]), 1e-11 * size) << i;
        }
      }
      for (const index_t top : {1, 3, 20}) {
        OperatorParams p = one.params;
        p.top = top;
        const auto largest = operator_singular_values<T>(this->context, device.view(), p);
        ASSERT_EQ(largest.values.size(), std::min(want.size(), static_cast<std::size_t>(top)));
        for (std::size_t i = 0; i < largest.values.size(); ++i) {
          EXPECT_NEAR(largest.values[i], static_cast<double>(want[i]), 1e-11 * size);
        }
        EXPECT_LE(largest.n_solved, found.n_transfer);
      }
    }
  }
}

TYPED_TEST(ConvolutionTest, of_a_smooth_kernel_few_transfer_matrices_are_solved) {
  using T = typename TypeParam::T;
  // an average over 3 x 3 in every pair of channels: the lowest frequencies hold the largest values
  HostMatrix<T> K = random_kernel<T>(16, 16 * 9, 3);
  for (index_t o = 0; o < 16; ++o) {
    for (index_t c = 0; c < 16; ++c) {
      for (index_t t = 1; t < 9; ++t) K(o, c * 9 + t) = K(o, c * 9);
    }
  }
  OperatorParams p{{3, 3}, {12, 12}};
  const auto device = this->to_device(K, Order::row_major);
  const auto all = operator_singular_values<T>(this->context, device.view(), p);
  p.top = 4;
  const auto largest = operator_singular_values<T>(this->context, device.view(), p);
  for (std::size_t i = 0; i < 4; ++i) EXPECT_NEAR(largest.values[i], all.values[i], 1e-12 * all.values[0]);
  EXPECT_EQ(all.n_solved, all.n_transfer);
  EXPECT_LT(4 * largest.n_solved, all.n_transfer);
}

TYPED_TEST(ConvolutionTest, of_any_magnitude) {
  using T = typename TypeParam::T;
  const auto K = random_kernel<T>(3, 2 * 4, 9);
  OperatorParams p{{2, 2}, {3, 4}};
  const auto base = operator_singular_values<T>(this->context, this->to_device(K, Order::row_major).view(), p).values;
  for (const int exponent : {-90, 100}) {
    HostMatrix<T> scaled = K;
    for (T& v : scaled.data) v = std::ldexp(v, exponent);
    const auto device = this->to_device(scaled, Order::row_major);
    const auto values = operator_singular_values<T>(this->context, device.view(), p).values;
    for (std::size_t i = 0; i < base.size(); ++i) EXPECT_EQ(values[i], std::ldexp(base[i], exponent));
  }
  const auto zero = this->to_device(HostMatrix<T>(3, 8), Order::row_major);
  EXPECT_EQ(operator_singular_values<T>(this->context, zero.view(), p).values, std::vector<double>(24, 0.0));
}

TYPED_TEST(ConvolutionTest, channel_gram_by_hand) {
  using T = typename TypeParam::T;
  const HostMatrix<T> W{{1, 2, 0}, {-1, 1, 3}};
  for (const Order order : {Order::row_major, Order::column_major}) {
    const auto device = this->to_device(W, order, 1);
    EXPECT_EQ(
        difference(this->to_host(channel_gram<T>(this->context, device.view())), HostMatrix<double>{{5, 1}, {1, 11}}),
        0);
  }
}

TYPED_TEST(ConvolutionTest, bad_input_is_named) {
  using T = typename TypeParam::T;
  HostMatrix<T> K = random_kernel<T>(4, 8, 1);
  const auto refused = [&](const HostMatrix<T>& kernel, const OperatorParams& p) {
    const auto device = this->to_device(kernel, Order::row_major);
    try {
      operator_singular_values<T>(this->context, device.view(), p);
      return std::string("nothing");
    } catch (const InvalidArgument& error) {
      return error.argument();
    }
  };
  EXPECT_EQ(refused(K, {{3, 1}, {4, 4}}), "K");
  EXPECT_EQ(refused(K, {{2, 2}, {0, 4}}), "input_shape");
  EXPECT_EQ(refused(K, {{2, 2}, {4, 4}, {3, 1}}), "stride");
  EXPECT_EQ(refused(K, {{2, 2}, {4, 4}, {1, 1}, 3}), "groups");
  OperatorParams negative{{2, 2}, {4, 4}};
  negative.top = -1;
  EXPECT_EQ(refused(K, negative), "top");
  K(2, 5) = std::numeric_limits<T>::infinity();
  const auto device = this->to_device(K, Order::row_major);
  try {
    operator_singular_values<T>(this->context, device.view(), {{2, 2}, {4, 4}});
    FAIL() << "Inf was taken";
  } catch (const NonFinite& error) {
    EXPECT_EQ(error.row(), 2);
    EXPECT_EQ(error.column(), 5);
  }
}

}  // namespace
}  // namespace brockett::test
