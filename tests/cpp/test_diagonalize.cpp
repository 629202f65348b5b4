#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "brockett/descramble.hpp"
#include "reference.hpp"

namespace brockett::test {
namespace {

using Criterion = DiagonalizeParams::Criterion;
using Group = DiagonalizeParams::Group;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

DiagonalizeParams with(Criterion criterion, Group group = Group::orthogonal) {
  DiagonalizeParams p;
  p.criterion = criterion;
  p.group = group;
  return p;
}

/// sum_i (P W)_ii or sum_i (P W)_ii^2 over min(n, m) entries.
template <class T, class U>
Real criterion_value(Criterion criterion, const HostMatrix<T>& P, const HostMatrix<U>& W) {
  const RealMatrix D = times(P, W);
  Real sum = 0;
  for (index_t i = 0; i < std::min(D.rows, D.cols); ++i)
    sum += criterion == Criterion::sum ? D(i, i) : D(i, i) * D(i, i);
  return sum;
}

/// The n x n matrix whose trace with P is the criterion: W cut to, or filled up with zeros to, n columns.
template <class T>
RealMatrix square_part(const HostMatrix<T>& W) {
  RealMatrix out(W.rows, W.rows);
  for (index_t i = 0; i < W.rows; ++i) {
    for (index_t j = 0; j < std::min(W.rows, W.cols); ++j) out(i, j) = static_cast<Real>(W(i, j));
  }
  return out;
}

template <class S>
struct HostResult : Diagonalization<S> {
  HostMatrix<S> P, weights;
};

template <class E>
class DiagonalizeTest : public EngineTest<E> {
 protected:
  using Scalar = typename E::T;
  using EngineTest<E>::eps;

  HostResult<Scalar> run(const HostMatrix<Scalar>& W, const DiagonalizeParams& params = {},
                         Order order = Order::row_major) {
    const auto device = this->to_device(W, order, 2);
    const auto r = diagonalize<Scalar>(this->context, device.view(), params);
    HostResult<Scalar> out{r, this->to_host(r.P), this->to_host(r.weights)};
    EXPECT_EQ(difference(this->to_host(device), W), 0);
    EXPECT_EQ(r.P.order(), Order::row_major);
    const double n = static_cast<double>(W.rows), size = largest_entry(W) * n;
    EXPECT_LE(orthogonality_error(out.P), 10 * eps * std::sqrt(n));
    EXPECT_LE(difference(out.weights, times(out.P, W)), 4 * eps * size);
    const double value =
        static_cast<double>(criterion_value(params.criterion, out.P, W));  // of the P that was returned
    EXPECT_NEAR(r.value, value, 1e-14 * n * (params.criterion == Criterion::sum ? size : size * size));
    EXPECT_LE(r.value, r.bound * (1 + 20 * eps) + 1e-300);
    if (params.group == Group::special_orthogonal) {
      EXPECT_GT(determinant(out.P), 0);
    }
    return out;
  }
};
TYPED_TEST_SUITE(DiagonalizeTest, Engines, EngineNames);

TYPED_TEST(DiagonalizeTest, by_hand) {
  using T = typename TypeParam::T;
  // a rotation by 90 degrees times 3: P turns it back
  const auto r = this->run(HostMatrix<T>{{0, -3}, {3, 0}});
  EXPECT_LE(difference(r.P, HostMatrix<T>{{0, 1}, {-1, 0}}), 4 * this->eps);
  EXPECT_LE(difference(r.weights, HostMatrix<T>{{3, 0}, {0, 3}}), 8 * this->eps);
  EXPECT_NEAR(r.value, 6, 20 * this->eps);
  EXPECT_NEAR(r.bound, 6, 1e-14);
  // diag(2, -1): P = diag(1, -1) with the sum 3; a rotation keeps one sign, 2 - 1, at P = I
  const HostMatrix<T> D{{2, 0}, {0, -1}};
  EXPECT_NEAR(this->run(D).value, 3, 10 * this->eps);
  const auto s = this->run(D, with(Criterion::sum, Group::special_orthogonal));
  EXPECT_NEAR(s.value, 1, 10 * this->eps);
  EXPECT_LE(difference(s.P, HostMatrix<T>{{1, 0}, {0, 1}}), 4 * this->eps);
  // squares do not care: 5, all of ||W||_F^2; the diagonal is made >= 0 in O(n)
  const auto q = this->run(D, with(Criterion::square));
  EXPECT_NEAR(q.value, 5, 40 * this->eps);
  EXPECT_NEAR(q.bound, 5, 1e-14);
  EXPECT_TRUE(q.converged);
  EXPECT_GT(q.weights(0, 0), 0);
  EXPECT_GT(q.weights(1, 1), 0);
  EXPECT_NEAR(this->run(D, with(Criterion::square, Group::special_orthogonal)).value, 5, 40 * this->eps);
  // numbers
  EXPECT_EQ(this->run(HostMatrix<T>{{-4}}).P(0, 0), -1);
  EXPECT_EQ(this->run(HostMatrix<T>{{-4}}).value, 4);
  EXPECT_EQ(this->run(HostMatrix<T>{{-4}}, with(Criterion::sum, Group::special_orthogonal)).value, -4);
  EXPECT_EQ(this->run(HostMatrix<T>{{-4}}, with(Criterion::square)).value, 16);
}

TYPED_TEST(DiagonalizeTest, sum_is_the_nuclear_norm_and_no_other_matrix_has_more) {
  using T = typename TypeParam::T;
  for (const auto& [n, m] : {std::pair<index_t, index_t>{6, 6}, {4, 9}, {9, 4}, {5, 1}, {1, 5}, {17, 16}}) {
    for (const unsigned seed : {1u, 2u}) {
      SCOPED_TRACE(std::to_string(n) + " x " + std::to_string(m));
      const HostMatrix<T> W = HostMatrix<T>::random(n, m, seed);
      const RealMatrix B = square_part(W);
      const auto s = jacobi_svd(B).s;
      const double nuclear = static_cast<double>(std::accumulate(s.begin(), s.end(), Real{0}));
      for (const Order order : {Order::row_major, Order::column_major}) {
        const auto r = this->run(W, {}, order);
        EXPECT_NEAR(r.bound, nuclear, 1e-13 * nuclear);
        EXPECT_NEAR(r.value, nuclear, 20 * this->eps * nuclear);
        EXPECT_TRUE(r.converged);
        const RealMatrix PW = times(r.P, B);  // symmetric and positive semidefinite
        EXPECT_LE(difference(PW, PW.transposed()), 20 * this->eps * nuclear);
        EXPECT_GE(jacobi_eigen(PW).values[0], -20 * this->eps * nuclear);
        // in SO(n) the smallest singular value is lost where the determinant is negative
        const auto special = this->run(W, with(Criterion::sum, Group::special_orthogonal), order);
        const double lost = determinant(B) < 0 ? 2 * static_cast<double>(s.back()) : 0;
        EXPECT_NEAR(special.value, nuclear - lost, 20 * this->eps * nuclear);
        if (n > 9) continue;
        for (unsigned trial = 0; trial < 50; ++trial) {
          const RealMatrix Q =
              trial % 2 ? random_orthonormal(n, n, trial) : times(random_near_identity(n, 0.05L, trial), r.P);
          const double most = determinant(Q) > 0 ? special.value : r.value;
          ASSERT_LE(criterion_value(Criterion::sum, Q, W), most + 20 * this->eps * nuclear);
        }
      }
    }
  }
}

TYPED_TEST(DiagonalizeTest, negative_determinants_lose_twice_the_smallest_singular_value) {
  using T = typename TypeParam::T;
  const RealMatrix U = random_orthonormal(4, 4, 3), V = random_orthonormal(4, 4, 4);
  for (const Real sign : {Real{1}, Real{-1}}) {
    RealMatrix D = RealMatrix::diagonal({4, 3, 2, 0.5L});
    if (determinant(U) * determinant(V) * sign < 0) D(0, 0) = -4;
    const HostMatrix<T> W = times(times(U, D), V.transposed()).template as<T>();
    ASSERT_EQ(determinant(W) > 0, sign > 0);
    EXPECT_NEAR(this->run(W, with(Criterion::sum, Group::special_orthogonal)).value, sign > 0 ? 9.5 : 8.5,
                40 * this->eps);
  }
}

TYPED_TEST(DiagonalizeTest, squares_rise_monotonically_and_beat_random_matrices) {
  using T = typename TypeParam::T;
  for (const auto& [n, m] : {std::pair<index_t, index_t>{6, 6}, {4, 9}, {9, 4}, {2, 2}}) {
    for (const Group group : {Group::orthogonal, Group::special_orthogonal}) {
      for (const unsigned seed : {5u, 6u, 7u}) {
        SCOPED_TRACE(std::to_string(n) + " x " + std::to_string(m) + ", seed " + std::to_string(seed));
        const HostMatrix<T> W = HostMatrix<T>::random(n, m, seed);
        DiagonalizeParams p = with(Criterion::square, group);
        const auto r = this->run(W, p);
        const double size = static_cast<double>(frobenius(W) * frobenius(W));
        EXPECT_TRUE(r.converged);
        EXPECT_GT(r.iterations, 0);
        EXPECT_NEAR(r.bound, static_cast<double>(frobenius(square_part(W)) * frobenius(square_part(W))), 1e-13 * size);
        // from the start that `sum` gives, every further iteration gains
        double before =
            static_cast<double>(criterion_value(Criterion::square, this->run(W, with(Criterion::sum, group)).P, W));
        for (const int iterations : {0, 1, 2, 4, 8, 16}) {
          p.max_iterations = iterations;
          const auto part = this->run(W, p);
          EXPECT_GE(part.value, before - 20 * this->eps * size);
          EXPECT_LE(part.iterations, iterations);
          before = part.value;
        }
        EXPECT_GE(r.value, before - 20 * this->eps * size);
        p.max_iterations = 0;
        EXPECT_FALSE(this->run(W, p).converged);
        // a stationary point, and a maximum: nothing near it is better, nor is anything random
        for (unsigned trial = 0; trial < 100; ++trial) {
          const RealMatrix Q =
              trial % 2 ? random_orthonormal(n, n, trial) : times(random_near_identity(n, 0.01L, trial), r.P);
          if (group == Group::special_orthogonal && determinant(Q) < 0) continue;
          ASSERT_LE(criterion_value(Criterion::square, Q, W), r.value + 1e-6 * size + 20 * this->eps * size) << trial;
        }
        if (group == Group::orthogonal) {
          for (index_t i = 0; i < std::min(n, m); ++i) EXPECT_GE(r.weights(i, i), -4 * this->eps);
        }
      }
    }
  }
}

TYPED_TEST(DiagonalizeTest, orthogonal_columns_reach_the_bound) {
  using T = typename TypeParam::T;
  const HostMatrix<T> W = times(random_orthonormal(7, 5, 8), RealMatrix::diagonal({5, 4, 3, 2, 1})).template as<T>();
  const auto r = this->run(W, with(Criterion::square));
  EXPECT_NEAR(r.value, 55, 55 * 20 * this->eps);
  EXPECT_NEAR(r.bound, 55, 55 * 2 * this->eps);
}

TYPED_TEST(DiagonalizeTest, a_derangement_is_no_trap) {
  // W moves every unit: the diagonal of I W is zero, a stationary point of the squares with the worst value there is
  using T = typename TypeParam::T;
  for (const Criterion criterion : {Criterion::sum, Criterion::square}) {
    for (const Group group : {Group::orthogonal, Group::special_orthogonal}) {
      const HostMatrix<T> W3{{0, 1, 0}, {0, 0, 1}, {1, 0, 0}}, W2{{0, 1}, {1, 0}};
      EXPECT_NEAR(this->run(W3, with(criterion, group)).value, 3, 20 * this->eps);  // det W = 1
      const auto r = this->run(W2, with(criterion, group));  // det W = -1
      EXPECT_NEAR(r.value, group == Group::orthogonal || criterion == Criterion::square ? 2 : 0, 20 * this->eps);
    }
  }
}

TYPED_TEST(DiagonalizeTest, a_vanishing_diagonal_entry_is_no_trap) {
  // V diag(3, 2, -1) V^T is what `sum` makes of itself in SO(3), and its first diagonal entry, 2/3 - 2/3, is zero
  using T = typename TypeParam::T;
  const Real a = 1 / std::sqrt(Real{3}), b = std::sqrt(Real{2}) * a, h = 1 / std::sqrt(Real{2});
  const RealMatrix V{{0, a, b}, {h, -b * h, a * h}, {h, b * h, -a * h}};
  ASSERT_LE(difference(times(V, V.transposed()), RealMatrix::identity(3)), 1e-15);
  const HostMatrix<T> W = times(times(V, RealMatrix::diagonal({3, 2, -1})), V.transposed()).template as<T>();
  ASSERT_LE(std::abs(static_cast<double>(W(0, 0))), this->eps);
  const auto r = this->run(W, with(Criterion::square, Group::special_orthogonal));
  Real best = 0;
  for (unsigned trial = 0; trial < 4000; ++trial) {
    const RealMatrix Q = random_orthonormal(3, 3, trial);
    best =
        std::max(best, criterion_value(Criterion::square, determinant(Q) > 0 ? Q : plus(RealMatrix(3, 3), -1, Q), W));
  }
  EXPECT_GE(r.value, static_cast<double>(best) - 0.02 * r.bound);
}

TYPED_TEST(DiagonalizeTest, what_the_weights_leave_open_is_the_identity) {
  using T = typename TypeParam::T;
  for (const Criterion criterion : {Criterion::sum, Criterion::square}) {
    for (const Group group : {Group::orthogonal, Group::special_orthogonal}) {
      for (const index_t n : {1, 2, 5}) {
        const auto zero = this->run(HostMatrix<T>(n, 3), with(criterion, group));
        EXPECT_LE(difference(zero.P, HostMatrix<T>::identity(n)), 10 * this->eps);
        EXPECT_EQ(zero.value, 0);
        EXPECT_EQ(zero.bound, 0);
        EXPECT_TRUE(zero.converged);
      }
      // one column e_1: the other rows are free, and I is at hand
      HostMatrix<T> one(4, 1);
      one(0, 0) = 2;
      const auto r = this->run(one, with(criterion, group));
      EXPECT_LE(difference(r.P, HostMatrix<T>::identity(4)), 10 * this->eps);
    }
  }
  // rank 2 of 5: the rest is the choice nearest to the identity
  const HostMatrix<T> W = with_singular_values(5, 5, {2, 1}, 9).template as<T>();
  if (std::is_same_v<T, double>) {
    const auto r = this->run(W);
    for (unsigned trial = 0; trial < 200; ++trial) {  // turn the null space: U_0 Q V_0^T
      const ThinSvd t = jacobi_svd(real(W));
      const RealMatrix V0 = t.V.block(0, 2, 5, 3);
      const RealMatrix Q = trial % 2 ? random_orthonormal(3, 3, trial) : random_near_identity(3, 0.05L, trial);
      const RealMatrix turn =
          plus(plus(RealMatrix::identity(5), -1, times(V0, V0.transposed())), 1, times(times(V0, Q), V0.transposed()));
      const RealMatrix other = times(turn, r.P);  // still optimal
      ASSERT_NEAR(static_cast<double>(criterion_value(Criterion::sum, other, W)), 3, 1e-12);
      ASSERT_LE(trace(other), trace(real(r.P)) + 1e-12L);
    }
  }
}

TYPED_TEST(DiagonalizeTest, scales_change_nothing_but_the_scale) {
  using T = typename TypeParam::T;
  const HostMatrix<T> W = HostMatrix<T>::random(5, 5, 10);
  const bool single = std::is_same_v<T, float>;
  for (const Criterion criterion : {Criterion::sum, Criterion::square}) {
    const auto want = this->run(W, with(criterion));
    for (const double scale :
         single ? std::vector<double>{0x1p-120, 0x1p120} : std::vector<double>{0x1p-480, 0x1p480}) {
      HostMatrix<T> S = W;
      for (T& v : S.data) v *= static_cast<T>(scale);
      const auto device = this->to_device(S);
      const auto r = diagonalize<T>(this->context, device.view(), with(criterion));
      EXPECT_LE(difference(this->to_host(r.P), want.P), 100 * this->eps);
      const double unit = criterion == Criterion::sum ? scale : scale * scale;
      EXPECT_NEAR(r.value / unit, want.value, 20 * this->eps * want.value);
      EXPECT_NEAR(r.bound / unit, want.bound, 20 * this->eps * want.bound);
    }
  }
  const T tiny = std::numeric_limits<T>::denorm_min();
  const auto subnormal = this->to_device(HostMatrix<T>{{0, static_cast<T>(-4 * tiny)}, {static_cast<T>(3 * tiny), 0}});
  const auto r = diagonalize<T>(this->context, subnormal.view());
  EXPECT_LE(difference(this->to_host(r.P), HostMatrix<T>{{0, 1}, {-1, 0}}), 4 * this->eps);
  EXPECT_EQ(r.value, 7.0 * static_cast<double>(tiny));
}

TYPED_TEST(DiagonalizeTest, what_is_refused_is_named) {
  using T = typename TypeParam::T;
  const auto refused = [&](const HostMatrix<T>& W, auto&& change) {
    const auto device = this->to_device(W);
    DiagonalizeParams p;
    change(p);
    return refused_argument([&] { diagonalize<T>(this->context, device.view(), p); });
  };
  const HostMatrix<T> W = HostMatrix<T>::random(3, 4, 1);
  EXPECT_EQ(refused(W, [](auto&) {}), "");
  EXPECT_EQ(refused(W, [](auto& p) { p.max_iterations = -1; }), "max_iterations");
  EXPECT_EQ(refused(W, [](auto& p) { p.tol = -1; }), "tol");
  EXPECT_EQ(refused(W, [](auto& p) { p.tol = kNaN; }), "tol");
  EXPECT_EQ(refused_argument([&] { diagonalize<T>(this->context, MatrixView<const T>()); }), "W");
  HostMatrix<T> bad = W;
  bad(2, 3) = static_cast<T>(-kInf);
  for (const Order order : {Order::row_major, Order::column_major}) {
    const auto device = this->to_device(bad, order, 1);
    EXPECT_EQ(nonfinite_index([&] { diagonalize<T>(this->context, device.view()); }), "W(2, 3)");
  }
  if (std::is_same_v<T, double>) {  // sums of squares that are no numbers
    for (const double scale : {1e200, 1e-200}) {
      HostMatrix<T> S = W;
      for (T& v : S.data) v *= static_cast<T>(scale);
      EXPECT_EQ(refused(S, [](auto& p) { p.criterion = Criterion::square; }), "W");
      EXPECT_EQ(refused(S, [](auto& p) { p.criterion = Criterion::sum; }), "");
    }
  }
  // the trace, or P W, leaves its type
  const T most = std::numeric_limits<T>::max();
  EXPECT_EQ(refused(HostMatrix<T>::diagonal({most, most}), [](auto&) {}), (std::is_same_v<T, double> ? "W" : ""));
  EXPECT_EQ(refused(HostMatrix<T>{{most, most}, {-most, most}}, [](auto&) {}), "W");
}

TYPED_TEST(DiagonalizeTest, interrupts_are_answered) {
  using T = typename TypeParam::T;
  const auto W = this->to_device(HostMatrix<T>::random(6, 6, 2));
  EXPECT_GE(
      sweep_interrupts(this->context, [&](const Context& c) { diagonalize<T>(c, W.view(), with(Criterion::square)); }),
      3);
}

template <class T>
class DiagonalizeMemory : public testing::Test {};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(DiagonalizeMemory, Scalars);

TYPED_TEST(DiagonalizeMemory, failing_allocations_leak_nothing) {
  using T = TypeParam;
  const auto backend = make_guarded_backend();
  const Context context{backend};
  for (const auto& [n, m] : {std::pair<index_t, index_t>{4, 2}, {2, 3}}) {
    const DeviceMatrix<T> W(*backend, HostMatrix<T>::random(n, m, 1));
    for (const Criterion criterion : {Criterion::sum, Criterion::square}) {
      DiagonalizeParams p = with(criterion, Group::special_orthogonal);
      p.max_iterations = 2;
      EXPECT_GE(sweep_failing_allocations(*backend, [&] { diagonalize<T>(context, W.view(), p); }), 8u);
    }
  }
}

}  // namespace
}  // namespace brockett::test
