#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "brockett/svd.hpp"
#include "reference.hpp"

namespace brockett::test {
namespace {

using Method = SvdParams::Method;
using Signs = SvdParams::Signs;
using ValuesMethod = SingularValuesParams::Method;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

SvdParams with(Method method, index_t rank = 0) {
  SvdParams p;
  p.method = method;
  p.rank = rank;
  return p;
}

template <class T>
struct HostSvd {
  HostMatrix<T> U;
  std::vector<double> s;
  HostMatrix<T> Vt;
  double residual = 0;
  std::string method;
  index_t columns = 0;
  index_t rank() const { return static_cast<index_t>(s.size()); }
};

/// max_i max(||A v_i - s_i u_i||, ||A^T u_i - s_i v_i||) / s_1 in long double.
template <class T>
double true_residual(const HostMatrix<T>& A, const HostSvd<T>& r) {
  const RealMatrix AV = times(A, r.Vt.transposed()), AtU = times(A.transposed(), r.U);
  Real worst = 0;
  for (index_t i = 0; i < r.rank(); ++i) {
    Real a = 0, b = 0;
    const Real s = r.s[static_cast<std::size_t>(i)];
    for (index_t k = 0; k < A.rows; ++k) a += std::pow(AV(k, i) - s * static_cast<Real>(r.U(k, i)), 2);
    for (index_t k = 0; k < A.cols; ++k) b += std::pow(AtU(k, i) - s * static_cast<Real>(r.Vt(i, k)), 2);
    worst = std::max({worst, a, b});
  }
  return r.s[0] > 0 ? static_cast<double>(std::sqrt(worst) / r.s[0]) : 0;
}

/// ||A - U diag(s) Vt||_F
template <class T>
double reconstruction_error(const HostMatrix<T>& A, const HostSvd<T>& r) {
  std::vector<Real> s(r.s.begin(), r.s.end());
  return static_cast<double>(frobenius(plus(real(A), -1, times(times(r.U, RealMatrix::diagonal(s)), r.Vt))));
}

template <class E>
class SvdTest : public EngineTest<E> {
 protected:
  using Scalar = typename E::T;
  using EngineTest<E>::eps;

  HostSvd<Scalar> run(const HostMatrix<Scalar>& A, const SvdParams& params = {}, Order order = Order::row_major,
                      index_t padding = 0) {
    const auto device = this->to_device(A, order, padding);
    const Svd<Scalar> r = svd<Scalar>(this->context, device.view(), params);
    EXPECT_EQ(difference(this->to_host(device), A), 0) << "the input was changed";
    EXPECT_EQ(r.U.order(), order);
    EXPECT_EQ(r.Vt.order(), order);
    return {this->to_host(r.U), r.s, this->to_host(r.Vt), r.residual, r.method, r.columns};
  }

  /// Everything that any decomposition, truncated or not, has to keep; `residual` is the largest allowed.
  void check(const HostMatrix<Scalar>& A, const HostSvd<Scalar>& r, double residual, Signs signs = Signs::right) {
    ASSERT_EQ(r.U.rows, A.rows);
    ASSERT_EQ(r.U.cols, r.rank());
    ASSERT_EQ(r.Vt.rows, r.rank());
    ASSERT_EQ(r.Vt.cols, A.cols);
    const double n = static_cast<double>(std::max(A.rows, A.cols));
    // A v / s of the Gram matrix's v are orthogonal to float64 rounding over (s_r / s_1)^2, and to 1e-7 at the very worst
    const double lost =
        r.method != "gram" || r.s[0] == 0 ? 0 : std::min(1e-7, 3e-15 * std::pow(r.s[0] / r.s.back(), 2));
    EXPECT_LE(orthogonality_error(r.U), 10 * eps * std::sqrt(n) + lost);
    EXPECT_LE(orthogonality_error(r.Vt.transposed()), 10 * eps * std::sqrt(n) + lost);
    for (index_t j = 0; j < r.rank(); ++j) {  // of unit length, however far from orthogonal
      EXPECT_NEAR(static_cast<double>(frobenius(r.U.block(0, j, A.rows, 1))), 1, 10 * eps * std::sqrt(n));
      EXPECT_NEAR(static_cast<double>(frobenius(r.Vt.block(j, 0, 1, A.cols))), 1, 10 * eps * std::sqrt(n));
    }
    for (std::size_t i = 0; i < r.s.size(); ++i) {
      EXPECT_GE(r.s[i], 0);
      if (i > 0) {
        EXPECT_LE(r.s[i], r.s[i - 1]);
      }
    }
    // the residual is a measurement: it is what an independent one finds, to the rounding of T
    const double measured = true_residual(A, r);
    EXPECT_NEAR(r.residual, measured, 4 * eps * std::sqrt(n) + 1e-3 * measured);
    EXPECT_LE(measured, residual + lost);
    const HostMatrix<Scalar> leading = signs == Signs::right ? r.Vt.transposed() : r.U;
    for (index_t j = 0; j < r.rank(); ++j) {
      index_t at = 0;
      for (index_t i = 1; i < leading.rows; ++i) at = std::abs(leading(i, j)) > std::abs(leading(at, j)) ? i : at;
      EXPECT_GT(leading(at, j), 0) << "sign of vector " << j;
    }
  }
};
TYPED_TEST_SUITE(SvdTest, Engines, EngineNames);

// --- by hand ------------------------------------------------------------------------------------------------------------

TYPED_TEST(SvdTest, of_small_matrices_by_hand) {
  using T = typename TypeParam::T;
  for (const Method method : {Method::exact, Method::gram, Method::krylov, Method::quick, Method::automatic}) {
    SCOPED_TRACE(static_cast<int>(method));
    // diag(3, -2): V = I, U = diag(1, -1)
    auto r = this->run(HostMatrix<T>{{3, 0}, {0, -2}}, with(method));
    EXPECT_NEAR(r.s[0], 3, 8 * this->eps);
    EXPECT_NEAR(r.s[1], 2, 8 * this->eps);
    EXPECT_LE(difference(r.U, HostMatrix<T>{{1, 0}, {0, -1}}), 8 * this->eps);
    EXPECT_LE(difference(r.Vt, HostMatrix<T>{{1, 0}, {0, 1}}), 8 * this->eps);
    // [[3, 0], [4, 5]]: s = 3 sqrt 5, sqrt 5; V = [[1, 1], [1, -1]] / sqrt 2, U = [[1, 3], [3, -1]] / sqrt 10 up to signs
    r = this->run(HostMatrix<T>{{3, 0}, {4, 5}}, with(method));
    EXPECT_NEAR(r.s[0], std::sqrt(45.0), 40 * this->eps);
    EXPECT_NEAR(r.s[1], std::sqrt(5.0), 40 * this->eps);
    EXPECT_NEAR(r.U(0, 0) * std::sqrt(10.0), 1, 40 * this->eps);
    EXPECT_NEAR(r.U(1, 0) * std::sqrt(10.0), 3, 40 * this->eps);
    EXPECT_NEAR(std::abs(r.U(0, 1)) * std::sqrt(10.0), 3, 40 * this->eps);
    // a column, a row, a number
    r = this->run(HostMatrix<T>{{3}, {-4}}, with(method));
    EXPECT_NEAR(r.s[0], 5, 20 * this->eps);
    EXPECT_EQ(r.Vt(0, 0), 1);
    EXPECT_NEAR(r.U(1, 0), -0.8, 8 * this->eps);
    r = this->run(HostMatrix<T>{{3, -4}}, with(method));
    EXPECT_NEAR(r.Vt(0, 1), 0.8, 8 * this->eps);
    EXPECT_EQ(r.U(0, 0), -1);
    r = this->run(HostMatrix<T>{{-5}}, with(method));
    EXPECT_EQ(r.s[0], 5);
    EXPECT_EQ(r.U(0, 0), -1);
    EXPECT_EQ(r.Vt(0, 0), 1);
  }
}

TYPED_TEST(SvdTest, nilpotent_and_identity_by_hand) {
  using T = typename TypeParam::T;
  for (const Method method : {Method::exact, Method::gram, Method::quick}) {
    SCOPED_TRACE(static_cast<int>(method));
    const HostMatrix<T> N{{0, 2}, {0, 0}}, I = HostMatrix<T>::identity(4);
    const auto r = this->run(N, with(method));
    this->check(N, r, 4 * this->eps);
    EXPECT_NEAR(r.s[0], 2, 4 * this->eps);
    EXPECT_NEAR(r.s[1], 0, 4 * this->eps);
    EXPECT_NEAR(r.Vt(0, 1), 1, 4 * this->eps);
    EXPECT_NEAR(r.U(0, 0), 1, 4 * this->eps);
    const auto i = this->run(I, with(method));
    this->check(I, i, 8 * this->eps);
    EXPECT_LE(difference(product(i.U, i.Vt), I), 8 * this->eps);  // only U V^T is determined
  }
}

TYPED_TEST(SvdTest, zero_matrix) {
  using T = typename TypeParam::T;
  for (const Method method : {Method::exact, Method::gram, Method::krylov, Method::quick, Method::automatic}) {
    SCOPED_TRACE(static_cast<int>(method));
    for (const auto& [m, n] : {std::pair<index_t, index_t>{5, 3}, {3, 5}, {1, 1}, {4, 4}}) {
      const HostMatrix<T> A(m, n);
      const auto r = this->run(A, with(method));
      this->check(A, r, 0);
      EXPECT_EQ(r.s, std::vector<double>(static_cast<std::size_t>(std::min(m, n)), 0.0));
      EXPECT_EQ(r.residual, 0);
    }
  }
}

// --- equivalence --------------------------------------------------------------------------------------------------------

TYPED_TEST(SvdTest, every_method_reproduces_awkward_shapes) {
  using T = typename TypeParam::T;
  const index_t large = TypeParam::kind == EngineKind::cuda ? 197 : 597;  // most of the time goes to the reference
  for (const auto& [m, n] : {std::pair<index_t, index_t>{large, 43}, {43, large}, {43, 43}, {50, 43}}) {
    const HostMatrix<T> A = HostMatrix<T>::random(m, n, 7);
    const std::vector<Real> want = jacobi_svd(real(A)).s;
    for (const Method method : {Method::exact, Method::gram, Method::krylov, Method::automatic, Method::quick}) {
      for (const Order order : {Order::row_major, Order::column_major}) {
        SCOPED_TRACE(std::to_string(m) + " x " + std::to_string(n) + ", method " +
                     std::to_string(static_cast<int>(method)));
        const auto r = this->run(A, with(method), order, 2);
        this->check(A, r, 60 * this->eps);
        ASSERT_EQ(r.rank(), 43);
        for (std::size_t i = 0; i < want.size(); ++i) {
          const Real lost =
              r.method == "gram" ? 1e-15L * want[0] * want[0] / want[i] : 0;  // s^2 is known to 1e-15 s_1^2
          EXPECT_LE(std::abs(r.s[i] - want[i]), 60 * this->eps * want[0] + lost) << i;
        }
        EXPECT_LE(reconstruction_error(A, r), 100 * this->eps * static_cast<double>(want[0]));
        EXPECT_NE(r.method, "");
        if (method == Method::quick) {
          EXPECT_EQ(r.method, "quick");
        }
      }
    }
  }
}

TYPED_TEST(SvdTest, truncation_keeps_the_leading_triplets) {
  using T = typename TypeParam::T;
  std::vector<Real> s;
  for (int i = 0; i < 12; ++i) s.push_back(std::pow(Real{2}, -i));
  const HostMatrix<T> A = with_singular_values(30, 12, s, 21).template as<T>();
  const std::vector<Real> want = jacobi_svd(real(A)).s;
  for (const bool tall : {true, false}) {
    const HostMatrix<T> M = tall ? A : A.transposed();
    for (const Method method : {Method::exact, Method::gram, Method::krylov, Method::automatic, Method::quick}) {
      for (const index_t rank : {1, 2, 3, 5, 11}) {
        SCOPED_TRACE("rank " + std::to_string(rank) + ", method " + std::to_string(static_cast<int>(method)));
        SvdParams p = with(method, rank);
        p.oversampling = 4;
        p.iterations = 12;
        const auto r = this->run(M, p);
        ASSERT_EQ(r.rank(), rank);
        // quick stops at its budget and does not refine what rounding left
        this->check(M, r, (method == Method::quick ? 400 : 100) * this->eps);
        Real tail = 0;
        for (index_t i = 0; i < 12; ++i) {
          if (i < rank) {
            const Real w = want[static_cast<std::size_t>(i)], lost = r.method == "gram" ? 1e-15L / w : 0;
            EXPECT_LE(std::abs(r.s[static_cast<std::size_t>(i)] - w), 60 * this->eps + lost);
          } else {
            tail += want[static_cast<std::size_t>(i)] * want[static_cast<std::size_t>(i)];
          }
        }
        EXPECT_NEAR(reconstruction_error(M, r), static_cast<double>(std::sqrt(tail)), 60 * this->eps);
      }
      // more than there are: all that there are
      EXPECT_EQ(this->run(M, with(method, 40)).rank(), 12);
    }
  }
}

TYPED_TEST(SvdTest, signs_follow_the_side_asked_for_and_the_first_of_equals) {
  using T = typename TypeParam::T;
  const HostMatrix<T> A = HostMatrix<T>::random(9, 6, 4);
  for (const Method method : {Method::exact, Method::gram, Method::quick}) {
    for (const Order order : {Order::row_major, Order::column_major}) {
      for (const Signs signs : {Signs::left, Signs::right}) {
        SvdParams p = with(method);
        p.signs = signs;
        this->check(A, this->run(A, p, order), 100 * this->eps, signs);
      }
    }
  }
  // the right vector is ±(-1, 1, -1, 1) / 2, exactly: of equal magnitudes the first counts
  const auto r = this->run(HostMatrix<T>{{-1, 1, -1, 1}}, with(Method::gram));
  EXPECT_EQ(difference(r.Vt, HostMatrix<T>{{0.5, -0.5, 0.5, -0.5}}), 0);
  EXPECT_EQ(r.U(0, 0), -1);
}

TYPED_TEST(SvdTest, frobenius_tolerance_takes_the_smallest_rank_that_serves) {
  using T = typename TypeParam::T;
  std::vector<Real> s;
  for (int i = 0; i < 8; ++i) s.push_back(std::pow(Real{10}, -0.5L * i));
  const HostMatrix<T> A = with_singular_values(20, 8, s, 5).template as<T>();
  const double norm = static_cast<double>(frobenius(A));
  for (const Method method : {Method::exact, Method::gram, Method::automatic}) {
    for (const double tol : {0.9, 0.5, 0.2, 0.05, 0.01, 1e-3}) {
      SCOPED_TRACE(tol);
      SvdParams p = with(method);
      p.frobenius_tol = tol;
      const auto r = this->run(A, p);
      this->check(A, r, 100 * this->eps);
      EXPECT_LE(reconstruction_error(A, r), tol * norm);
      if (r.rank() > 1) {
        p.frobenius_tol = 0;
        p.rank = r.rank() - 1;
        EXPECT_GT(reconstruction_error(A, this->run(A, p)), tol * norm);
      }
      p.frobenius_tol = tol;
      p.rank = 2;  // both: the smaller
      EXPECT_EQ(this->run(A, p).rank(), std::min<index_t>(2, r.rank()));
    }
  }
}

// --- truthfulness and refinement ------------------------------------------------------------------------------------------

TYPED_TEST(SvdTest, quick_says_how_bad_it_is) {
  using T = typename TypeParam::T;
  const HostMatrix<T> A = HostMatrix<T>::random(60, 40, 11);  // no decay: few iterations cannot do it
  double before = kInf;
  for (const int iterations : {0, 1, 2, 4}) {
    SvdParams p = with(Method::quick, 4);
    p.iterations = iterations;
    p.oversampling = 2;
    const auto r = this->run(A, p);
    this->check(A, r, 1);  // compares the residual with an independent one
    EXPECT_EQ(r.columns, 6 * (iterations + 1));
    EXPECT_LT(r.residual, before);
    EXPECT_GT(r.residual, 1e-4);
    before = r.residual;
  }
}

TYPED_TEST(SvdTest, quick_is_a_function_of_the_seed_and_not_of_storage) {
  using T = typename TypeParam::T;
  const HostMatrix<T> A = HostMatrix<T>::random(37, 23, 12);
  SvdParams p = with(Method::quick, 3);
  p.iterations = 1;
  p.oversampling = 1;
  const auto first = this->run(A, p), again = this->run(A, p), padded = this->run(A, p, Order::row_major, 5);
  EXPECT_EQ(first.s, again.s);
  EXPECT_EQ(first.U.data, again.U.data);
  EXPECT_EQ(first.Vt.data, again.Vt.data);
  EXPECT_LE(difference(first.U, padded.U), 50 * this->eps);
  const auto columns = this->run(A, p, Order::column_major);
  EXPECT_LE(difference(first.U, columns.U), 200 * this->eps);
  EXPECT_LE(difference(first.Vt, columns.Vt), 200 * this->eps);
  p.seed = 1;
  EXPECT_GT(difference(first.U, this->run(A, p).U), 1e-3);
}

TYPED_TEST(SvdTest, automatic_is_never_quick_and_keeps_its_tolerance) {
  using T = typename TypeParam::T;
  std::vector<Real> s;
  for (int i = 0; i < 16; ++i) s.push_back(std::pow(Real{10}, -0.25L * i));
  const HostMatrix<T> A = with_singular_values(200, 16, s, 6).template as<T>();
  for (const index_t rank : {0, 1, 8}) {
    for (const double tol : {1e-6, 0.0}) {
      SvdParams p = with(Method::automatic, rank);
      p.tol = tol;
      const auto r = this->run(A, p);
      this->check(A, r, std::max(tol, 60 * this->eps));
      EXPECT_TRUE(r.method == "gram" || r.method == "exact") << r.method;
      // a tolerance that nothing reaches takes no accuracy away: of the direct methods the nearer stands
      SvdParams exact = p;
      exact.method = Method::exact;
      EXPECT_LE(r.residual, this->run(A, exact).residual);
      if (tol == 0) {
        EXPECT_EQ(r.method, sizeof(T) == sizeof(float) ? "gram" : "exact");
      }
    }
  }
}

TYPED_TEST(SvdTest, rank_deficient_by_gram) {
  using T = typename TypeParam::T;
  for (const auto& [m, n] : {std::pair<index_t, index_t>{20, 8}, {8, 20}, {8, 8}}) {
    const HostMatrix<T> A = with_singular_values(m, n, {3, 2, 1}, 9).template as<T>();
    const auto r = this->run(A, with(Method::gram));
    // beyond the rank 3 of A the values are at the level of the square root of float64 rounding, or of A's own rounding
    this->check(A, r, 1e-7 + 20 * this->eps);
    for (index_t i = 3; i < 8; ++i) EXPECT_LE(r.s[static_cast<std::size_t>(i)], 1e-7 + 20 * this->eps);
    EXPECT_LE(reconstruction_error(A, r), 3e-7 + 60 * this->eps);
    this->check(A, this->run(A, with(Method::exact)), 20 * this->eps);
  }
}

TYPED_TEST(SvdTest, gram_is_orthonormal_however_small_the_values) {
  // values near the square root of float64 rounding: M v / s are far from orthogonal there
  using T = typename TypeParam::T;
  for (const Real small : {1e-3L, 1e-5L, 1e-6L, 2e-7L, 5e-8L, 2e-8L}) {
    SCOPED_TRACE(static_cast<double>(small));
    const std::vector<Real> s{1, 0.5L, small, 0.9L * small, 0.8L * small, 0.7L * small, 0.6L * small};
    for (const unsigned seed : {1u, 2u}) {
      const HostMatrix<T> A = with_singular_values(31, 7, s, seed).template as<T>();
      this->check(A, this->run(A, with(Method::gram)), 2e-7 + 20 * this->eps);
      this->check(A.transposed(), this->run(A.transposed(), with(Method::gram)), 2e-7 + 20 * this->eps);
      this->check(A, this->run(A, with(Method::gram, 4)), 2e-7 + 20 * this->eps);
    }
  }
}

TYPED_TEST(SvdTest, extreme_scales_change_nothing_but_the_scale) {
  using T = typename TypeParam::T;
  const HostMatrix<T> A = HostMatrix<T>::random(12, 7, 13);
  const bool single = std::is_same_v<T, float>;
  const std::vector<double> scales =
      single ? std::vector<double>{0x1p-110, 0x1p110} : std::vector<double>{0x1p-960, 0x1p-664, 0x1p664, 0x1p1000};
  for (const Method method : {Method::exact, Method::gram, Method::krylov, Method::quick, Method::automatic}) {
    const auto want = this->run(A, with(method));
    for (const double scale : scales) {
      SCOPED_TRACE(std::to_string(std::log2(scale)) + ", method " + std::to_string(static_cast<int>(method)));
      HostMatrix<T> S = A;
      for (T& x : S.data) x *= static_cast<T>(scale);
      const auto r = this->run(S, with(method));
      EXPECT_LE(difference(r.U, want.U), 100 * this->eps);
      EXPECT_LE(difference(r.Vt, want.Vt), 100 * this->eps);
      for (std::size_t i = 0; i < r.s.size(); ++i) EXPECT_NEAR(r.s[i] / scale, want.s[i], 50 * this->eps);
      EXPECT_LE(r.residual, 50 * this->eps);
      const auto device = this->to_device(S);
      for (const auto m : {ValuesMethod::gram, ValuesMethod::exact, ValuesMethod::automatic}) {
        const SingularValues v = singular_values<T>(this->context, device.view(), {m});
        for (std::size_t i = 0; i < r.s.size(); ++i) EXPECT_NEAR(v.values[i] / scale, want.s[i], 50 * this->eps);
      }
    }
  }
}

TYPED_TEST(SvdTest, subnormal_numbers_are_numbers) {
  using T = typename TypeParam::T;
  const double tiny = std::numeric_limits<T>::denorm_min();
  for (const Method method : {Method::exact, Method::gram, Method::quick}) {
    const HostMatrix<T> A{{static_cast<T>(3 * tiny), 0}, {static_cast<T>(4 * tiny), 0}};
    const auto r = this->run(A, with(method));
    EXPECT_EQ(r.s[0], 5 * tiny);
    EXPECT_NEAR(r.U(0, 0), 0.6, 10 * this->eps);
    EXPECT_LE(r.s[1], 1e-14 * r.s[0]);
    const auto device = this->to_device(A);
    EXPECT_EQ(singular_values<T>(this->context, device.view()).values[0], 5 * tiny);
  }
}

// --- singular values ------------------------------------------------------------------------------------------------------

TYPED_TEST(SvdTest, singular_values_keep_their_bounds) {
  using T = typename TypeParam::T;
  struct Case {
    const char* name;
    HostMatrix<T> A;
  };
  std::vector<Real> decay, cliff;
  for (int i = 0; i < 20; ++i) decay.push_back(std::pow(Real{10}, -0.5L * i));
  for (int i = 0; i < 20; ++i) cliff.push_back(i < 6 ? 1 : 1e-9L);
  const std::vector<Case> cases{{"gaussian", HostMatrix<T>::random(597, 43, 1)},
                                {"wide", HostMatrix<T>::random(43, 597, 2)},
                                {"square", HostMatrix<T>::random(33, 33, 3)},
                                {"nearly square", HostMatrix<T>::random(40, 33, 4)},
                                {"decay", with_singular_values(100, 20, decay, 5).template as<T>()},
                                {"decay, square", with_singular_values(20, 20, decay, 6).template as<T>()},
                                {"cliff", with_singular_values(20, 90, cliff, 7).template as<T>()},
                                {"rank 1", with_singular_values(9, 5, {2}, 8).template as<T>()},
                                {"zero", HostMatrix<T>(6, 4)},
                                {"scalar", HostMatrix<T>{{-3}}}};
  for (const Case& c : cases) {
    const std::vector<Real> want = jacobi_svd(real(c.A)).s;
    for (const auto method : {ValuesMethod::automatic, ValuesMethod::gram, ValuesMethod::exact}) {
      for (const Order order : {Order::row_major, Order::column_major}) {
        SCOPED_TRACE(std::string(c.name) + ", method " + std::to_string(static_cast<int>(method)));
        const auto device = this->to_device(c.A, order, 2);
        const SingularValues r = singular_values<T>(this->context, device.view(), {method});
        EXPECT_EQ(difference(this->to_host(device), c.A), 0);
        ASSERT_EQ(r.values.size(), want.size());
        if (method == ValuesMethod::gram) {
          EXPECT_EQ(r.method, "gram");
        } else if (method == ValuesMethod::exact) {
          EXPECT_EQ(r.method, "qr+gesdd");
        }
        const Real s1 = want[0];
        EXPECT_LT(r.bound, 2e3 * (r.method == "gram" ? 2.3e-16 : this->eps));
        index_t resolved = 0;
        for (std::size_t i = 0; i < want.size(); ++i) {
          const Real got = r.values[i];
          if (r.method == "gram") {
            EXPECT_LE(std::abs(got * got - want[i] * want[i]), r.bound * s1 * s1) << i;
            resolved += got > 0 && got >= 1e-7L * r.values[0];
          } else {
            EXPECT_LE(std::abs(got - want[i]), r.bound * s1) << i;
            resolved += got > static_cast<Real>(want.size()) * static_cast<Real>(this->eps) * r.values[0];
          }
          if (i > 0) {
            EXPECT_LE(r.values[i], r.values[i - 1]);
          }
          EXPECT_GE(r.values[i], 0);
        }
        EXPECT_EQ(r.n_resolved, resolved);
        // resolved means: right to a few per cent at worst, and to 1e-12 by default for double
        for (index_t i = 0; i < r.n_resolved; ++i) {
          const Real w = want[static_cast<std::size_t>(i)], d = std::abs(r.values[static_cast<std::size_t>(i)] - w);
          if (r.method == "gram") {
            EXPECT_LE(d, 0.05L * w) << i;
          }
          if (method == ValuesMethod::automatic && !std::is_same_v<T, float>) {
            EXPECT_LE(d, 1e-12L * s1) << i;
          }
        }
      }
    }
  }
}

TYPED_TEST(SvdTest, gram_matrices_of_several_blocks) {
  // blocks hold 2^22 numbers: columns of length 2^21 + 7 that are e_1 … with a last entry in the second block
  using T = typename TypeParam::T;
  const index_t m = (index_t{1} << 21) + 7;
  HostMatrix<T> A(m, 2);
  A(0, 0) = 3, A(m - 1, 0) = 4, A(5, 1) = 2;
  for (const bool tall : {true, false}) {
    const auto device = this->to_device(tall ? A : A.transposed());
    const SingularValues r = singular_values<T>(this->context, device.view(), {ValuesMethod::gram});
    EXPECT_NEAR(r.values[0], 5, 1e-14);
    EXPECT_NEAR(r.values[1], 2, 1e-14);
  }
}

TYPED_TEST(SvdTest, float_values_below_the_resolution_are_reported) {
  using T = typename TypeParam::T;
  // diagonal, so that rounding to float moves nothing
  const auto device = this->to_device(HostMatrix<T>::diagonal({T(1), T(1e-3), T(2e-7), T(1e-9), T(0)}));
  const SingularValues r = singular_values<T>(this->context, device.view(), {ValuesMethod::gram});
  EXPECT_EQ(r.n_resolved, 3);
  const SingularValues e = singular_values<T>(this->context, device.view(), {ValuesMethod::exact});
  EXPECT_EQ(e.n_resolved, (std::is_same_v<T, float> ? 2 : 4));
}

// --- whitened -------------------------------------------------------------------------------------------------------------

/// ||W - B||_R = sqrt tr((W - B) R (W - B)^T)
template <class T, class U>
double r_distance(const HostMatrix<T>& W, const HostMatrix<U>& B, const RealMatrix& R) {
  const RealMatrix D = plus(real(W), -1, real(B));
  return static_cast<double>(std::sqrt(std::max(Real{0}, trace(times(times(D, R), D.transposed())))));
}

TYPED_TEST(SvdTest, whitened_by_hand) {
  using T = typename TypeParam::T;
  // W = I, R = diag(4, 1): W R^(1/2) = diag(2, 1); rank 1 keeps the first output and costs 1
  const auto W = this->to_device(HostMatrix<T>{{1, 0}, {0, 1}});
  const auto R = this->to_device(HostMatrix<double>{{4, 0}, {0, 1}});
  const auto r = whitened_svd<T>(this->context, W.view(), R.view(), 1);
  EXPECT_NEAR(r.s[0], 2, 1e-15);
  EXPECT_NEAR(r.s[1], 1, 1e-15);
  EXPECT_NEAR(r.error, 1, 1e-15);
  EXPECT_LE(difference(this->to_host(r.U), HostMatrix<T>{{1}, {0}}), 1e-15);
  EXPECT_LE(difference(this->to_host(r.projected), HostMatrix<T>{{1, 0}}), 1e-15);
  // R = [[1, 1], [1, 1]] is singular: W x sees only x_1 + x_2
  const auto S = this->to_device(HostMatrix<double>{{1, 1}, {1, 1}});
  const auto V = this->to_device(HostMatrix<T>{{3, 0}, {0, 4}});
  const auto q = whitened_svd<T>(this->context, V.view(), S.view());
  EXPECT_NEAR(q.s[0], 5, 1e-14);
  EXPECT_NEAR(q.s[1], 0, 1e-7);
  EXPECT_LE(q.error, 1e-15);
  const auto U = this->to_host(q.U);
  EXPECT_NEAR(U(0, 0), 0.6, 4 * this->eps);
  EXPECT_NEAR(U(1, 0), 0.8, 4 * this->eps);
}

TYPED_TEST(SvdTest, whitened_is_the_best_approximation_in_the_norm_of_the_data) {
  using T = typename TypeParam::T;
  struct Case {
    index_t n, m, rank_of_r;
  };
  for (const auto& [n, m, rank_of_r] :
       {Case{7, 11, 11}, Case{11, 7, 7}, Case{7, 11, 4}, Case{6, 6, 2}, Case{5, 1, 1}}) {
    SCOPED_TRACE(std::to_string(n) + " x " + std::to_string(m) + ", R of rank " + std::to_string(rank_of_r));
    const HostMatrix<T> W = HostMatrix<T>::random(n, m, 31);
    const RealMatrix X = random_real(m, rank_of_r, 32);
    const HostMatrix<double> R = times(X, X.transposed()).template as<double>();
    const std::vector<Real> want = jacobi_svd(times(W, X)).s;  // W R^(1/2) has the singular values of W X
    const index_t k = std::min(n, m);
    for (const Order order : {Order::row_major, Order::column_major}) {
      const auto Wd = this->to_device(W, order, 2);
      const auto Rd = this->to_device(R, order, 1);
      for (index_t rank = 1; rank <= k; ++rank) {
        const auto r = whitened_svd<T>(this->context, Wd.view(), Rd.view(), rank);
        ASSERT_EQ(static_cast<index_t>(r.s.size()), k);
        const auto U = this->to_host(r.U), projected = this->to_host(r.projected);
        ASSERT_EQ(U.cols, rank);
        EXPECT_LE(orthogonality_error(U), 20 * this->eps);
        EXPECT_LE(difference(projected, product(U.transposed(), W)), 40 * this->eps);
        Real tail = 0;
        for (std::size_t i = 0; i < static_cast<std::size_t>(k); ++i) {
          const Real w = i < want.size() ? want[i] : 0;
          EXPECT_LE(std::abs(static_cast<Real>(r.s[i]) * r.s[i] - w * w), 1e-13L * want[0] * want[0]);
          if (static_cast<index_t>(i) >= rank) tail += w * w;
        }
        const double best = static_cast<double>(std::sqrt(tail));
        EXPECT_NEAR(r.error, best, 1e-6 * static_cast<double>(want[0]));
        const double reached = r_distance(W, times(U, projected), real(R));
        EXPECT_NEAR(reached, best, (1e-6 + 100 * this->eps) * static_cast<double>(want[0]));
        for (unsigned trial = 0; trial < 50; ++trial) {  // any other U, far or near, and any other factors
          const RealMatrix Q = trial % 2 ? random_orthonormal(n, rank, trial)
                                         : polar_factor(plus(real(U), 0.05L, random_real(n, rank, trial)));
          EXPECT_GE(r_distance(W, times(Q, times(Q.transposed(), W)), real(R)),
                    reached - 1e-6 * static_cast<double>(want[0]));
          const RealMatrix near =
              plus(real(projected), 0.05L, random_real(rank, m, 100 + trial));  // other coefficients
          EXPECT_GE(r_distance(W, times(U, near), real(R)), reached - 1e-6 * static_cast<double>(want[0]));
        }
      }
      EXPECT_EQ(this->to_host(whitened_svd<T>(this->context, Wd.view(), Rd.view()).U).cols, k);
    }
  }
}

// --- refusals, interrupts, memory -------------------------------------------------------------------------------------------

TYPED_TEST(SvdTest, what_is_refused_is_named) {
  using T = typename TypeParam::T;
  const auto A = this->to_device(HostMatrix<T>::random(4, 3, 1));
  const auto refused = [&](auto&& change) {
    SvdParams p;
    change(p);
    return refused_argument([&] { svd<T>(this->context, A.view(), p); });
  };
  EXPECT_EQ(refused([](auto&) {}), "");
  EXPECT_EQ(refused([](auto& p) { p.rank = -1; }), "rank");
  EXPECT_EQ(refused([](auto& p) { p.tol = -1e-9; }), "tol");
  EXPECT_EQ(refused([](auto& p) { p.tol = kNaN; }), "tol");
  EXPECT_EQ(refused([](auto& p) { p.frobenius_tol = -0.1; }), "frobenius_tol");
  EXPECT_EQ(refused([](auto& p) { p.frobenius_tol = 1; }), "frobenius_tol");
  EXPECT_EQ(refused([](auto& p) { p.frobenius_tol = kNaN; }), "frobenius_tol");
  EXPECT_EQ(refused([](auto& p) { p.frobenius_tol = 0.1, p.method = Method::quick; }), "frobenius_tol");
  EXPECT_EQ(refused([](auto& p) { p.iterations = -1; }), "iterations");
  EXPECT_EQ(refused([](auto& p) { p.oversampling = -1; }), "oversampling");

  const auto matrix = [&](MatrixView<const T> view) {
    const std::string a = refused_argument([&] { svd<T>(this->context, view); });
    EXPECT_EQ(a, refused_argument([&] { singular_values<T>(this->context, view); }));
    return a;
  };
  MatrixView<const T> v = A.view();
  v.rows = 0;
  EXPECT_EQ(matrix(v), "A");
  v = A.view(), v.data = nullptr;
  EXPECT_EQ(matrix(v), "A");
  v = A.view(), v.ld = 2;
  EXPECT_EQ(matrix(v), "A");
  EXPECT_EQ(matrix({}), "A");
  HostMatrix<T> bad = HostMatrix<T>::random(4, 3, 1);
  bad(2, 1) = static_cast<T>(kNaN);
  bad(3, 2) = static_cast<T>(kInf);
  for (const Order order : {Order::row_major, Order::column_major}) {
    const auto B = this->to_device(bad, order, 1);
    EXPECT_EQ(nonfinite_index([&] { svd<T>(this->context, B.view()); }), "A(2, 1)");
    EXPECT_EQ(nonfinite_index([&] { singular_values<T>(this->context, B.view()); }), "A(2, 1)");
    EXPECT_EQ(nonfinite_index([&] {
                whitened_svd<T>(this->context, B.view(), this->to_device(HostMatrix<double>::identity(3)).view());
              }),
              "W(2, 1)");
  }
}

TYPED_TEST(SvdTest, whitened_refuses_by_name) {
  using T = typename TypeParam::T;
  const auto refused = [&](const HostMatrix<T>& W, const HostMatrix<double>& R, index_t rank = 0) {
    const auto Wd = this->to_device(W);
    const auto Rd = this->to_device(R);
    return refused_argument([&] { whitened_svd<T>(this->context, Wd.view(), Rd.view(), rank); });
  };
  const HostMatrix<T> W = HostMatrix<T>::random(4, 3, 1);
  const auto I = HostMatrix<double>::identity(3);
  EXPECT_EQ(refused(W, I), "");
  EXPECT_EQ(refused(W, I, 4), "rank");
  EXPECT_EQ(refused(W, I, -1), "rank");
  EXPECT_EQ(refused(W, HostMatrix<double>::identity(4)), "R");
  EXPECT_EQ(refused(W, HostMatrix<double>(3, 4)), "R");
  EXPECT_EQ(refused(W, HostMatrix<double>{{1, 0.1, 0}, {0, 1, 0}, {0, 0, 1}}), "R");  // not symmetric
  EXPECT_EQ(refused(W, HostMatrix<double>{{1, 0, 0}, {0, -1, 0}, {0, 0, 1}}), "R");  // not semidefinite
  EXPECT_EQ(refused(W, HostMatrix<double>{{1, 0, 0}, {0, kNaN, 0}, {0, 0, 1}}), "R");
  EXPECT_EQ(refused(W, HostMatrix<double>{{1e308, 0, 0}, {0, 1e308, 0}, {0, 0, 1e308}}), "R");  // W R W^T overflows
  if (!std::is_same_v<T, float>) {
    HostMatrix<T> huge = W, small = W;
    for (T& x : huge.data) x *= static_cast<T>(1e200);
    for (T& x : small.data) x *= static_cast<T>(1e-200);
    EXPECT_EQ(refused(huge, I), "W");
    EXPECT_EQ(refused(small, I), "W");
  }
}

TYPED_TEST(SvdTest, interrupts_are_answered) {
  using T = typename TypeParam::T;
  const auto A = this->to_device(HostMatrix<T>::random(30, 20, 2));
  const auto R = this->to_device(HostMatrix<double>::identity(20));
  for (const Method method : {Method::gram, Method::quick}) {
    EXPECT_GE(sweep_interrupts(this->context, [&](const Context& c) { svd<T>(c, A.view(), with(method)); }), 2);
  }
  for (const auto m : {ValuesMethod::gram, ValuesMethod::exact}) {
    EXPECT_GE(sweep_interrupts(this->context, [&](const Context& c) { singular_values<T>(c, A.view(), {m}); }), 1);
  }
  EXPECT_EQ(svd<T>(this->context, A.view()).s.size(), 20u);
}

template <class T>
class SvdMemory : public testing::Test {};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(SvdMemory, Scalars);

TYPED_TEST(SvdMemory, failing_allocations_leak_nothing) {
  using T = TypeParam;
  const auto backend = make_guarded_backend();
  const Context context{backend};
  const auto rank_deficient = with_singular_values(9, 6, {3, 2}, 1).as<T>();
  for (const Order order : {Order::row_major, Order::column_major}) {
    const DeviceMatrix<T> A(*backend, rank_deficient, order, 1);
    HostMatrix<T> large = rank_deficient;
    for (T& x : large.data) x *= static_cast<T>(std::is_same_v<T, float> ? 1e35 : 1e200);
    const DeviceMatrix<T> B(*backend, large, order);
    const DeviceMatrix<double> R(*backend, HostMatrix<double>::identity(6));
    for (const Method method : {Method::exact, Method::gram, Method::krylov, Method::quick, Method::automatic}) {
      EXPECT_GE(sweep_failing_allocations(*backend, [&] { svd<T>(context, A.view(), with(method)); }), 4u);
      EXPECT_GE(sweep_failing_allocations(*backend, [&] { svd<T>(context, B.view(), with(method, 2)); }), 4u);
    }
    for (const auto m : {ValuesMethod::gram, ValuesMethod::exact}) {
      EXPECT_GE(sweep_failing_allocations(*backend, [&] { singular_values<T>(context, A.view(), {m}); }), 1u);
    }
    EXPECT_GE(sweep_failing_allocations(*backend, [&] { whitened_svd<T>(context, A.view(), R.view()); }), 4u);
  }
}

}  // namespace
}  // namespace brockett::test
