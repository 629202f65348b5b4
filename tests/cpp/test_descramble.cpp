#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "descramble_fixture.hpp"

namespace brockett::test {
namespace {

template <class E>
class DescrambleTest : public DescrambleFixture<E> {};
TYPED_TEST_SUITE(DescrambleTest, Engines, EngineNames);

// --- by hand ------------------------------------------------------------------------------------------------------------

TYPED_TEST(DescrambleTest, one_neuron) {
  using T = typename TypeParam::T;
  for (const Group group : {Group::orthogonal, Group::special_orthogonal, Group::permutation}) {
    for (const Gauge gauge : {Gauge::identity, Gauge::canonical}) {
      const auto r = this->run(this->covariance(RealMatrix{{4}}), with(gauge, group), HostMatrix<T>{{3, -5}});
      EXPECT_EQ(r.P(0, 0), 1);
      EXPECT_EQ(r.cost, 0);
      EXPECT_EQ(r.sigma, std::vector<double>({2}));
      EXPECT_EQ(r.rank, 1);
      EXPECT_EQ(r.weights(0, 1), -5);
    }
  }
  const auto P0 = this->to_device(HostMatrix<double>{{-1}});
  DescrambleParams p = with(Gauge::given);
  p.P0 = P0.view();
  EXPECT_EQ(this->run(RealMatrix{{4}}, p).P(0, 0), -1);
  p.group = Group::special_orthogonal;
  EXPECT_EQ(this->run(RealMatrix{{4}}, p).P(0, 0), 1);
}

TYPED_TEST(DescrambleTest, two_neurons_by_hand) {
  // T = [[1, 1], [1, -1]] / sqrt 2, U = (e_2, e_1): P = T diag(±1) U^T, nearest to I with both signs plus, det P = 1
  const double h = 1 / std::numbers::sqrt2;
  for (const Group group : {Group::orthogonal, Group::special_orthogonal}) {
    const auto r = this->run(RealMatrix{{1, 0}, {0, 4}}, with(Gauge::identity, group));
    EXPECT_LE(difference(r.P, HostMatrix<double>{{h, h}, {-h, h}}), this->eps);
    EXPECT_NEAR(r.optimum, 1, 1e-15);
    EXPECT_NEAR(r.cost, 1, 4 * this->eps);
    EXPECT_NEAR(r.identity_cost, 2.5, 1e-15);
    EXPECT_NEAR(r.gauge_conditioning, h, 1e-15);
    EXPECT_EQ(r.sigma, std::vector<double>({2, 1}));
    EXPECT_EQ(r.blocks, std::vector<index_t>({0, 1, 2}));
    EXPECT_TRUE(r.block_error.empty());
    EXPECT_EQ(r.error_model, "");
  }
  // canonical: U = (e_2, e_1), P = T U^T; its determinant is +1, so that SO(2) changes nothing
  EXPECT_LE(
      difference(this->run(RealMatrix{{1, 0}, {0, 4}}, with(Gauge::canonical)).P, HostMatrix<double>{{h, h}, {-h, h}}),
      this->eps);
  // C = diag(4, 1): U = I, P = T in the canonical gauge, and with its last column reversed in SO(2)
  EXPECT_LE(
      difference(this->run(RealMatrix{{4, 0}, {0, 1}}, with(Gauge::canonical)).P, HostMatrix<double>{{h, h}, {h, -h}}),
      this->eps);
  EXPECT_LE(difference(this->run(RealMatrix{{4, 0}, {0, 1}}, with(Gauge::canonical, Group::special_orthogonal)).P,
                       HostMatrix<double>{{h, -h}, {h, h}}),
            this->eps);
}

TYPED_TEST(DescrambleTest, three_neurons_by_hand) {
  // lambda = 0, 1, 1; C = diag(1, 2, 3): optimum 2 + 1, cost of I: 2/3 (1 + 2 + 3). The first row of T^T P is ±e_3.
  const auto r = this->run(RealMatrix{{1, 0, 0}, {0, 2, 0}, {0, 0, 3}});
  EXPECT_NEAR(r.optimum, 3, 1e-14);
  EXPECT_NEAR(r.cost, 3, 20 * this->eps);
  EXPECT_NEAR(r.identity_cost, 4, 1e-14);
  for (index_t j = 0; j < 3; ++j)
    EXPECT_NEAR((r.P(0, j) + r.P(1, j) + r.P(2, j)) / std::sqrt(3.0), j == 2 ? 1 : 0, 4 * this->eps);
  EXPECT_EQ(r.blocks, std::vector<index_t>({0, 1, 3}));
}

TYPED_TEST(DescrambleTest, smooth_white_and_zero_data_give_the_identity) {
  for (const index_t n : {1, 2, 3, 4, 5, 8, 9}) {
    for (const Group group : {Group::orthogonal, Group::special_orthogonal}) {
      SCOPED_TRACE(n);
      const HostMatrix<double> I = HostMatrix<double>::identity(n);
      const auto zero = this->run(RealMatrix(n, n), with(Gauge::identity, group));
      EXPECT_LE(difference(zero.P, I), 20 * this->eps);
      EXPECT_EQ(zero.rank, 0);
      EXPECT_EQ(zero.cost, 0);
      EXPECT_EQ(zero.optimum, 0);
      EXPECT_NEAR(zero.gauge_conditioning, 1, 1e-14);
      const auto white = this->run(RealMatrix::identity(n), with(Gauge::identity, group));
      EXPECT_LE(difference(white.P, I), 20 * this->eps);
      EXPECT_NEAR(white.gauge_conditioning, 1, 1e-14);
      // variances that fall with the frequency, equal for sine and cosine: a smooth layer is a fixed point
      std::vector<Real> s;
      for (index_t i = 0; i < n; ++i) s.push_back(1 / static_cast<Real>(1 + (i + 1) / 2));
      const RealMatrix T = fourier_modes(n);
      const auto smooth =
          this->run(times(times(T, RealMatrix::diagonal(s)), T.transposed()), with(Gauge::identity, group));
      EXPECT_LE(difference(smooth.P, I), 20 * this->eps);
    }
    // the canonical gauge gives T for no data
    EXPECT_LE(difference(this->run(RealMatrix(n, n), with(Gauge::canonical)).P, fourier_modes(n)), 20 * this->eps);
  }
}

TYPED_TEST(DescrambleTest, high_pass_circulant_by_hand) {
  // variances that rise with the frequency, n even: P = diag((-1)^j) moves frequency k to n/2 - k
  const index_t n = 8;
  std::vector<Real> s;
  for (index_t i = 0; i < n; ++i) s.push_back(1 + static_cast<Real>((i + 1) / 2));
  const RealMatrix T = fourier_modes(n);
  const auto r = this->run(times(times(T, RealMatrix::diagonal(s)), T.transposed()));
  // k' = n/2 - k: 0*5 + 1*(4+4) + 16*(3+3) + 81*(2+2) + 256*1
  EXPECT_NEAR(r.optimum, 684, 1e-11);
  EXPECT_NEAR(r.cost, 684, 684 * 20 * this->eps);
  HostMatrix<double> alternating(n, n);
  for (index_t j = 0; j < n; ++j) alternating(j, j) = j % 2 ? -1 : 1;
  // nearest to I among the minimisers is another one, P0 = diag((-1)^j) is met exactly
  const auto P0 = this->to_device(alternating);
  DescrambleParams p = with(Gauge::given);
  p.P0 = P0.view();
  const auto given = this->run(times(times(T, RealMatrix::diagonal(s)), T.transposed()), p);
  EXPECT_LE(difference(given.P, alternating), 40 * this->eps);
}

// --- optimality -----------------------------------------------------------------------------------------------------------

TYPED_TEST(DescrambleTest, cost_of_the_returned_matrix_is_the_optimum) {
  for (const index_t n : {1, 2, 3, 4, 5, 8, 9, 43}) {
    SCOPED_TRACE(n);
    const Problem p(
        fourier_penalty(n, 2),
        real(with_eigenvalues(falling(n, n > 9 ? 0.9L : 0.6L), 100 + static_cast<unsigned>(n)).template as<double>()));
    for (const Gauge gauge : {Gauge::identity, Gauge::canonical}) {
      for (const Group group : {Group::orthogonal, Group::special_orthogonal}) {
        const auto r = this->run(p.C, with(gauge, group));
        this->check_optimal(r, p);
        EXPECT_EQ(r.rank, n);
        if (group == Group::special_orthogonal) {
          EXPECT_GT(determinant(r.P), 0);
        }
      }
    }
  }
}

TYPED_TEST(DescrambleTest, every_penalty_is_optimal) {
  const index_t n = 12;
  const RealMatrix C = real(with_eigenvalues(falling(n, 0.75L), 7).template as<double>());
  const HostMatrix<double> custom_A =
      plus(random_real(n, n, 3), 1, random_real(n, n, 3).transposed()).template as<double>();
  const HostMatrix<double> L = difference_penalty(n, 1, false).template as<double>();
  struct Case {
    Penalty penalty;
    RealMatrix A;
  };
  const std::vector<Case> cases{{fourier_derivative(1), fourier_penalty(n, 1)},
                                {fourier_derivative(3), fourier_penalty(n, 3)},
                                {finite_difference(1), difference_penalty(n, 1, true)},
                                {finite_difference(2, Boundary::neumann), difference_penalty(n, 2, false)},
                                {grid({3, 4}, 2), grid_penalty({3, 4}, 2, true)},
                                {grid({2, 3, 2}, 1, Boundary::neumann), grid_penalty({2, 3, 2}, 1, false)},
                                {graph_laplacian(L.view(), 2), power(real(L), 2)},
                                {custom(custom_A.view()), real(custom_A)}};
  for (std::size_t i = 0; i < cases.size(); ++i) {
    SCOPED_TRACE(i);
    const Problem p(cases[i].A, C);
    DescrambleParams params;
    params.penalty = cases[i].penalty;
    const auto r = this->run(C, params);
    EXPECT_LE(orthogonality_error(r.P), 40 * this->eps);
    const double size = static_cast<double>(p.size());
    EXPECT_NEAR(r.optimum, static_cast<double>(p.optimum()), 1e-13 * size);
    EXPECT_NEAR(r.cost, static_cast<double>(brockett_trace(p.A, r.P, C)), 1e-13 * size);
    EXPECT_NEAR(r.cost, static_cast<double>(p.optimum()),
                1e-13 * size + 100 * this->eps * static_cast<double>(std::abs(p.optimum()) + p.size() * this->eps) +
                    20 * this->eps * size * (i == 7));
    EXPECT_EQ(r.blocks, p.blocks);
    const Nearest want = nearest_minimiser(p, RealMatrix::identity(n));
    EXPECT_NEAR(static_cast<double>(overlap(RealMatrix::identity(n), real(r.P))), static_cast<double>(want.trace),
                1e-10 + 100 * this->eps);
  }
}

TYPED_TEST(DescrambleTest, no_other_orthogonal_matrix_costs_less) {
  const index_t n = 6;
  const Problem p(fourier_penalty(n, 2), real(with_eigenvalues(falling(n), 8).template as<double>()));
  const auto r = this->run(p.C);
  const Real margin = 1e-13L * p.size() + 40 * this->eps * p.optimum();
  for (unsigned trial = 0; trial < 1000; ++trial) {
    const RealMatrix Q = trial % 2 ? random_orthonormal(n, n, trial)
                                   : times(random_near_identity(n, trial % 4 ? 1e-2L : 0.2L, trial), r.P);
    ASSERT_GE(brockett_trace(p.A, Q, p.C), r.cost - margin) << trial;
  }
}

// --- degenerate data --------------------------------------------------------------------------------------------------------

TYPED_TEST(DescrambleTest, fewer_samples_than_neurons) {
  using T = typename TypeParam::T;
  const index_t n = 9;
  for (const index_t N : {1, 2, 5, 8}) {
    const HostMatrix<T> Y = HostMatrix<T>::random(n, N, 210);
    const auto device = this->to_device(Y, Order::column_major, 2);
    const Preactivations y = Preactivations::from_samples(this->context, samples_of(device));
    const Problem p(fourier_penalty(n, 2), sample_moments(Y).R);
    const auto r = this->run(y);
    EXPECT_EQ(r.rank, N);
    EXPECT_LE(orthogonality_error(r.P), 40 * this->eps);
    EXPECT_NEAR(r.optimum, static_cast<double>(p.optimum()), 1e-13 * static_cast<double>(p.size()));
    EXPECT_NEAR(r.cost, static_cast<double>(brockett_trace(p.A, r.P, p.C)), 1e-13 * static_cast<double>(p.size()));
    const auto s = this->run(y, with(Gauge::identity, Group::special_orthogonal));
    EXPECT_GT(determinant(s.P), 0);
    EXPECT_NEAR(s.cost, r.cost,
                1e-13 * static_cast<double>(p.size()) + 100 * this->eps * static_cast<double>(p.optimum()));
  }
}

TYPED_TEST(DescrambleTest, identical_rows_and_circulant_data) {
  const index_t n = 6;
  RealMatrix ones(n, n, 3);  // every neuron says the same
  const auto same = this->run(ones);
  EXPECT_EQ(same.rank, 1);
  EXPECT_NEAR(same.optimum, 0, 1e-13);
  EXPECT_LE(difference(same.P, HostMatrix<double>::identity(n)), 40 * this->eps);  // constant already
  RealMatrix one(n, n);
  one(2, 2) = 5;  // one neuron speaks: its row becomes the constant
  const auto lone = this->run(one);
  EXPECT_EQ(lone.rank, 1);
  EXPECT_NEAR(lone.cost, 0, 1e4 * this->eps * this->eps + 1e-13);
  for (index_t i = 0; i < n; ++i) EXPECT_NEAR(std::abs(lone.P(i, 2)), 1 / std::sqrt(6.0), 10 * this->eps);
  for (index_t m : {5, 6, 7, 8}) {  // circulant, falling, rising, mixed: pairs of equal variances that cross blocks
    for (const std::vector<Real>& by_frequency : {std::vector<Real>{5, 4, 3, 2, 1}, {1, 2, 3, 4, 5}, {2, 5, 1, 4, 3}}) {
      std::vector<Real> s;
      for (index_t i = 0; i < m; ++i) s.push_back(by_frequency[static_cast<std::size_t>((i + 1) / 2)]);
      const RealMatrix T = fourier_modes(m);
      const Problem p(fourier_penalty(m, 2),
                      real(times(times(T, RealMatrix::diagonal(s)), T.transposed()).template as<double>()));
      this->check_optimal(this->run(p.C), p);
    }
  }
}

TYPED_TEST(DescrambleTest, scales_change_nothing_but_the_scale) {
  using T = typename TypeParam::T;
  const index_t n = 6;
  const HostMatrix<double> Y = HostMatrix<double>::random(n, 40, 220);
  const auto plain_samples = this->to_device(Y);
  const auto want = this->run(Preactivations::from_samples(this->context, samples_of(plain_samples)), {},
                              HostMatrix<T>::random(n, 3, 1));
  for (const double scale : {0x1p-480, 0x1p-300, 0x1p300, 0x1p480}) {
    SCOPED_TRACE(std::log2(scale));
    HostMatrix<double> S = Y;
    for (double& v : S.data) v *= scale;
    const auto device = this->to_device(S);
    const auto r = this->run(Preactivations::from_samples(this->context, samples_of(device)));
    EXPECT_LE(difference(r.P, want.P), 1e-11 + 10 * this->eps);
    EXPECT_NEAR(r.cost / scale / scale, want.cost, 1e-12 * want.identity_cost);
    EXPECT_NEAR(r.optimum / scale / scale, want.optimum, 1e-12 * want.identity_cost);
    EXPECT_NEAR(r.identity_cost / scale / scale, want.identity_cost, 1e-12 * want.identity_cost);
    ASSERT_EQ(r.block_error.size(), want.block_error.size());
    for (std::size_t b = 0; b < r.block_error.size(); ++b) EXPECT_NEAR(r.block_error[b], want.block_error[b], 1e-9);
  }
}

TYPED_TEST(DescrambleTest, costs_that_overflow_are_refused) {
  using T = typename TypeParam::T;
  const auto refused = [&](const RealMatrix& C) { return refused_argument([&] { this->run(C); }); };
  RealMatrix C = RealMatrix::identity(40);
  for (Real& v : C.data) v *= 1e304L;
  EXPECT_EQ(refused(C), "C");
  EXPECT_EQ(refused(plus(RealMatrix(40, 40), 1e-10L, C)), "");
  DescrambleParams p;
  p.group = Group::permutation;
  p.starts = 0;
  EXPECT_EQ(refused_argument([&] { this->run(C, p); }), "C");
  // P W that leaves the type of W: P is the P0 given, a rotation by 45 degrees
  const double h = 1 / std::numbers::sqrt2;
  const auto P0 = this->to_device(HostMatrix<double>{{h, h}, {-h, h}});
  DescrambleParams given = with(Gauge::given);
  given.P0 = P0.view();
  const auto largest = this->to_device(HostMatrix<T>(2, 1, std::numeric_limits<T>::max()));
  const Preactivations zero = this->covariance(RealMatrix(2, 2));
  EXPECT_EQ(refused_argument([&] { descramble<T>(this->context, zero, largest.view(), given); }), "W");
  const auto half = this->to_device(HostMatrix<T>(2, 1, std::numeric_limits<T>::max() / 2));
  EXPECT_EQ(refused_argument([&] { descramble<T>(this->context, zero, half.view(), given); }), "");
  // second moments that overflow on the way
  const auto W = this->to_device(HostMatrix<T>(2, 2, T(1e30)));
  const auto R = this->to_device(HostMatrix<double>(2, 2, 1e280));
  EXPECT_EQ(refused_argument([&] { Preactivations::from_matrix<T>(this->context, W.view(), R.view()); }),
            "autocorrelation");
  const auto X = this->to_device(HostMatrix<double>(2, 3, 1e149));
  EXPECT_EQ(refused_argument([&] { Preactivations::from_inputs<T>(this->context, W.view(), samples_of(X)); }),
            "inputs");
}

// --- permutations -----------------------------------------------------------------------------------------------------------

TYPED_TEST(DescrambleTest, permutations_of_few_neurons_are_optimal) {
  using T = typename TypeParam::T;
  for (const index_t n : {1, 2, 3, 4, 5, 6}) {
    for (const bool circulant : {true, false}) {
      const HostMatrix<T> W = HostMatrix<T>::random(n, 4, 400 + static_cast<unsigned>(n));
      const RealMatrix C = times(W, W.transposed()),
                       A = circulant ? fourier_penalty(n, 2) : difference_penalty(n, 2, false);
      const auto device = this->to_device(W, Order::column_major, 2);
      DescrambleParams p;
      p.group = Group::permutation;
      if (!circulant) p.penalty = finite_difference(2, Boundary::neumann);
      const auto r = this->run(Preactivations::isotropic<T>(this->context, device.view()), p, W);
      const double best = static_cast<double>(least_permutation_cost(A, C)),
                   size = static_cast<double>(jacobi_eigen(A).values.back()) * static_cast<double>(trace(C));
      EXPECT_NEAR(r.cost, best, 1e-13 * size) << n;
      EXPECT_LE(r.bound, best + 1e-13 * size);
      EXPECT_GE(r.bound, static_cast<double>(least_cost(A, C)) - 1e-13 * size);  // no worse than the eigenvalue bound
      EXPECT_NEAR(r.identity_cost, static_cast<double>(trace(times(A, C))), 1e-13 * size);
      EXPECT_TRUE(std::isnan(r.optimum));
      EXPECT_TRUE(std::isnan(r.gauge_conditioning));
      EXPECT_TRUE(r.block_error.empty());
      ASSERT_EQ(static_cast<index_t>(r.permutation.size()), n);
      for (index_t i = 0; i < n; ++i) {
        for (index_t j = 0; j < n; ++j) EXPECT_EQ(r.P(i, j), j == r.permutation[static_cast<std::size_t>(i)] ? 1 : 0);
        for (index_t j = 0; j < 4; ++j) EXPECT_EQ(r.weights(i, j), W(r.permutation[static_cast<std::size_t>(i)], j));
      }
      if (circulant) {
        EXPECT_EQ(r.permutation[0], 0);
        EXPECT_TRUE(n < 3 || r.permutation[1] < r.permutation[static_cast<std::size_t>(n - 1)]);
      }
    }
  }
}

// --- refusals, interrupts, memory -------------------------------------------------------------------------------------------

TYPED_TEST(DescrambleTest, parameters_are_refused_by_name) {
  using T = typename TypeParam::T;
  const Preactivations y = this->covariance(RealMatrix::identity(3));
  const auto refused = [&](auto&& change) {
    DescrambleParams p;
    change(p);
    return refused_argument([&] { this->run(y, p); });
  };
  EXPECT_EQ(refused([](auto&) {}), "");
  EXPECT_EQ(refused([](auto& p) { p.rank = -1; }), "rank");
  EXPECT_EQ(refused([](auto& p) { p.rank = 4; }), "rank");
  EXPECT_EQ(refused([](auto& p) { p.starts = -1; }), "starts");
  EXPECT_EQ(refused([](auto& p) { p.max_sweeps = -1; }), "max_sweeps");
  EXPECT_EQ(refused([](auto& p) { p.penalty = grid({2, 2}); }), "penalty");
  const auto given = [&](const HostMatrix<double>& P0) {
    const auto d = this->to_device(P0);
    return refused([&](auto& p) { p.gauge = Gauge::given, p.P0 = d.view(); });
  };
  EXPECT_EQ(refused([](auto& p) { p.gauge = Gauge::given; }), "P0");
  EXPECT_EQ(given(HostMatrix<double>::identity(3)), "");
  EXPECT_EQ(given(HostMatrix<double>::identity(2)), "P0");
  EXPECT_EQ(given(HostMatrix<double>(3, 2)), "P0");
  EXPECT_EQ(given(HostMatrix<double>{{1, 0, 0}, {0, 1, 0}, {0, 0, kNaN}}), "P0");
  EXPECT_EQ(given(HostMatrix<double>{{1, 0, 0}, {0, 1, 0}, {0, 0, 1.001}}), "P0");
  EXPECT_EQ(given(HostMatrix<double>{{1, 0, 0}, {0, 1, 0}, {0, 0, 1 + 1e-8}}), "");
  EXPECT_EQ(given(HostMatrix<double>{{1, 0, 0}, {0, 1, 1e200}, {0, 0, 1}}), "P0");
  const auto weights = [&](const HostMatrix<T>& W) { return refused_argument([&] { this->run(y, {}, W); }); };
  EXPECT_EQ(weights(HostMatrix<T>::random(3, 5, 1)), "");
  EXPECT_EQ(weights(HostMatrix<T>::random(4, 5, 1)), "W");
  EXPECT_EQ(weights(HostMatrix<T>(3, 2, static_cast<T>(kInf))), "W");
}

TYPED_TEST(DescrambleTest, inputs_are_not_modified_and_may_be_used_twice) {
  using T = typename TypeParam::T;
  const HostMatrix<T> W = HostMatrix<T>::random(5, 4, 3);
  const HostMatrix<double> X = HostMatrix<double>::random(4, 20, 4);
  const auto Wd = this->to_device(W, Order::row_major, 1);
  const auto Xd = this->to_device(X, Order::column_major, 2);
  const double bias[] = {1, 2, 3, 4, 5};
  const Preactivations y = Preactivations::from_inputs<T>(this->context, Wd.view(), samples_of(Xd), bias, true);
  const auto C = this->to_host(y.matrix());
  const auto a = descramble<T>(this->context, y, Wd.view()), b = descramble<T>(this->context, y, Wd.view());
  EXPECT_EQ(difference(this->to_host(a.P), this->to_host(b.P)), 0);
  EXPECT_EQ(a.cost, b.cost);
  EXPECT_EQ(difference(this->to_host(Wd), W), 0);
  EXPECT_EQ(difference(this->to_host(Xd), X), 0);
  EXPECT_EQ(difference(this->to_host(y.matrix()), C), 0);
}

TYPED_TEST(DescrambleTest, interrupts_are_answered) {
  using T = typename TypeParam::T;
  const auto C = this->to_device(with_eigenvalues({9, 8, 7, 7, 0, 0, 0, 0}, 5).template as<double>());
  const Preactivations y = Preactivations::from_covariance(this->context, C.view());
  EXPECT_GE(sweep_interrupts(this->context, [&](const Context& c) { descramble<T>(c, y, {}); }), 2);
  DescrambleParams p;
  p.rank = 3;
  EXPECT_GE(sweep_interrupts(this->context, [&](const Context& c) { descramble<T>(c, y, {}, p); }), 3);
  p.group = Group::permutation;
  EXPECT_GE(sweep_interrupts(this->context, [&](const Context& c) { descramble<T>(c, y, {}, p); }), 1);
  const auto X = this->to_device(HostMatrix<double>::random(8, 30, 1));
  EXPECT_GE(sweep_interrupts(this->context, [&](const Context& c) { Preactivations::from_samples(c, samples_of(X)); }),
            1);
}

template <class T>
class DescrambleMemory : public testing::Test {};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(DescrambleMemory, Scalars);

TYPED_TEST(DescrambleMemory, failing_allocations_leak_nothing) {
  using T = TypeParam;
  const auto backend = make_guarded_backend();
  const Context context{backend};
  const DeviceMatrix<T> W(*backend, HostMatrix<T>::random(6, 3, 1));
  const DeviceMatrix<double> X(*backend, HostMatrix<double>::random(3, 20, 2));
  const DeviceMatrix<double> Y(*backend, HostMatrix<double>::random(6, 20, 3));
  const DeviceMatrix<double> P0(*backend, random_orthonormal(6, 6, 4).as<double>());
  const DeviceMatrix<double> R(*backend, HostMatrix<double>::identity(3));
  const double bias[] = {1, 2, 3, 4, 5, 6};
  AutocorrelationParams root;
  root.method = Method::qr;
  root.center = true;
  Autocorrelation acc(context, 3, root);
  acc.update(samples_of(X));
  const std::vector<std::function<Preactivations()>> sources{
      [&] { return Preactivations::from_samples(context, samples_of(Y), true); },
      [&] { return Preactivations::from_inputs<T>(context, W.view(), samples_of(X), bias); },
      [&] { return Preactivations::from_autocorrelation<T>(context, W.view(), acc, bias); },
      [&] { return Preactivations::from_matrix<T>(context, W.view(), R.view()); },
      [&] { return Preactivations::isotropic<T>(context, W.view(), bias); }};
  for (std::size_t i = 0; i < sources.size(); ++i) {
    SCOPED_TRACE(i);
    EXPECT_GE(sweep_failing_allocations(*backend, [&] { sources[i](); }), 3u);
    const Preactivations y = sources[i]();
    for (const Gauge gauge : {Gauge::identity, Gauge::canonical, Gauge::given}) {
      for (const Group group : {Group::orthogonal, Group::special_orthogonal, Group::permutation}) {
        DescrambleParams p = with(gauge, group);
        p.P0 = P0.view();
        p.starts = 1;
        if (gauge != Gauge::identity && i != 2) p.verify = false;
        if (group == Group::permutation && (gauge != Gauge::identity || i > 0)) continue;
        EXPECT_GE(sweep_failing_allocations(*backend, [&] { descramble<T>(context, y, W.view(), p); }), 4u);
        p.rank = 1;
        EXPECT_GE(sweep_failing_allocations(*backend, [&] { descramble<T>(context, y, W.view(), p); }), 4u);
      }
    }
    Preactivations stacked = sources[i]();
    for (std::size_t k = 0;; ++k) {
      const auto before = to_host<double>(*backend, MatrixView<const double>(stacked.matrix().view()));
      backend->fail_allocation_after(k);
      bool failed = false;
      try {
        stacked.add(2, samples_of(Y));
      } catch (const OutOfMemory&) {
        failed = true;
      }
      backend->cancel_failure();
      if (!failed) break;
      ASSERT_EQ(difference(to_host<double>(*backend, MatrixView<const double>(stacked.matrix().view())), before), 0);
      ASSERT_EQ(stacked.n_samples(), y.n_samples());
    }
  }
  const DeviceMatrix<double> C(*backend, HostMatrix<double>::identity(6));
  EXPECT_GE(sweep_failing_allocations(*backend, [&] { brockett_cost(context, P0.view(), C.view()); }), 3u);
}

}  // namespace
}  // namespace brockett::test
