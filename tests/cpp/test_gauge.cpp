#include <gtest/gtest.h>

#include <cmath>
#include <numbers>
#include <vector>

#include "descramble_fixture.hpp"
#include "gauge.hpp"
#include "varying_polar.hpp"

namespace brockett::test {
namespace {

template <class E>
class GaugeTest : public DescrambleFixture<E> {};
TYPED_TEST_SUITE(GaugeTest, Engines, EngineNames);

/// Spectra whose clusters lie within blocks of {0}, {1, 2}, {3, 4}, {5, 6}, {7}, or contain them.
std::vector<std::vector<Real>> spectra8() {
  return {{9, 8, 7, 6, 5, 4, 3, 2},  // nothing equal
          {9, 8, 8, 6, 5, 4, 4, 2},  // pairs equal
          {9, 7, 7, 7, 7, 4, 3, 2},  // a cluster of two blocks
          {9, 9, 9, 5, 4, 3, 3, 3},  // clusters of one and a half on either end, of whole blocks
          {9, 8, 7, 6, 5, 0, 0, 0},  // rank-deficient, whole blocks
          {5, 5, 5, 5, 5, 5, 5, 5},  // white
          {9, 0, 0, 0, 0, 0, 0, 0}};  // rank one
}

TYPED_TEST(GaugeTest, identity_gauge_is_the_nearest_minimiser) {
  const index_t n = 8;
  const RealMatrix I = RealMatrix::identity(n);
  unsigned seed = 50;
  for (const auto& spectrum : spectra8()) {
    for (int repeat = 0; repeat < 3; ++repeat) {
      SCOPED_TRACE("spectrum of " + std::to_string(static_cast<double>(spectrum[1])) + ", seed " +
                   std::to_string(++seed));
      const Problem p(fourier_penalty(n, 2), real(with_eigenvalues(spectrum, seed).template as<double>()));
      const auto r = this->run(p.C);
      this->check_optimal(r, p);
      const Nearest want = nearest_minimiser(p, I);
      // eigenvectors are known to rounding over the gaps; the trace is stationary, so it is known better
      EXPECT_NEAR(static_cast<double>(overlap(I, real(r.P))), static_cast<double>(want.trace), 1e-12 + 20 * this->eps);
      EXPECT_NEAR(r.gauge_conditioning, static_cast<double>(want.smallest), 1e-12);

      const auto s = this->run(p.C, with(Gauge::identity, Group::special_orthogonal));
      this->check_optimal(s, p);
      EXPECT_GT(determinant(s.P), 0);
      const Real flip = want.determinant < 0 ? 2 * want.smallest : 0;  // the least certain direction of all
      EXPECT_NEAR(static_cast<double>(overlap(I, real(s.P))), static_cast<double>(want.trace - flip),
                  1e-12 + 20 * this->eps);
    }
  }
}

TYPED_TEST(GaugeTest, no_other_gauge_is_nearer) {
  const index_t n = 8;
  const RealMatrix I = RealMatrix::identity(n);
  unsigned seed = 80;
  auto spectra = spectra8();
  spectra.push_back({9, 8, 5, 5, 4, 3, 2, 1});  // clusters that cross blocks
  spectra.push_back({9, 8, 5, 5, 5, 1, 1, 0.5L});
  spectra.push_back({9, 8, 7, 7, 0, 0, 0, 0});
  for (const auto& spectrum : spectra) {
    const Problem p(fourier_penalty(n, 2), real(with_eigenvalues(spectrum, ++seed).template as<double>()));
    for (const Group group : {Group::orthogonal, Group::special_orthogonal}) {
      const auto r = this->run(p.C, with(Gauge::identity, group));
      this->check_optimal(r, p);
      const RealMatrix P = real(r.P);
      const Real reached = overlap(I, P);
      for (unsigned trial = 0; trial < 200; ++trial) {
        const auto make = [&](index_t size, unsigned s) {
          return trial % 2 ? random_orthonormal(size, size, s)
                           : random_near_identity(size, trial % 4 ? 1e-3L : 0.1L, s);
        };
        const RealMatrix G = times(times(p.T, block_diagonal(p.blocks, trial, make)), p.T.transposed());
        const RealMatrix H = times(times(p.U, block_diagonal(p.clusters, trial + 7777, make)), p.U.transposed());
        const RealMatrix Q = times(times(G, P), H);
        if (group == Group::special_orthogonal && determinant(Q) < 0) continue;
        ASSERT_LE(overlap(I, Q), reached + 1e-9L + 50 * this->eps) << trial;
        if (trial < 3) {  // and it is a minimiser, so that the comparison means something
          EXPECT_NEAR(static_cast<double>(brockett_trace(p.A, Q, p.C)), r.cost,
                      (1e-12 + 20 * this->eps) * static_cast<double>(p.size()));
        }
      }
    }
  }
}

TYPED_TEST(GaugeTest, a_given_minimiser_is_reproduced) {
  const index_t n = 8;
  unsigned seed = 120;
  auto spectra = spectra8();
  spectra.push_back({9, 8, 5, 5, 4, 3, 2, 1});
  spectra.push_back({9, 8, 7, 7, 0, 0, 0, 0});
  for (const auto& spectrum : spectra) {
    for (int repeat = 0; repeat < 3; ++repeat) {
      const Problem p(fourier_penalty(n, 2), real(with_eigenvalues(spectrum, ++seed).template as<double>()));
      const HostMatrix<double> P0 = random_minimiser(p, seed).template as<double>();
      for (const Order order : {Order::row_major, Order::column_major}) {
        const auto device = this->to_device(P0, order, 2);
        DescrambleParams params = with(Gauge::given);
        params.P0 = device.view();
        const auto r = this->run(p.C, params);
        this->check_optimal(r, p);
        EXPECT_LE(difference(r.P, P0), 1e-7 + 4 * this->eps) << "seed " << seed;
        EXPECT_NEAR(r.gauge_conditioning, 1, 1e-7);
        params.group = Group::special_orthogonal;
        const auto s = this->run(p.C, params);
        EXPECT_GT(determinant(s.P), 0);
        if (determinant(P0) > 0) {
          EXPECT_LE(difference(s.P, P0), 1e-7 + 4 * this->eps);
        }
      }
    }
  }
}

TYPED_TEST(GaugeTest, nearest_to_any_given_matrix) {
  const index_t n = 8;
  unsigned seed = 140;
  for (const auto& spectrum : spectra8()) {
    const Problem p(fourier_penalty(n, 2), real(with_eigenvalues(spectrum, ++seed).template as<double>()));
    const HostMatrix<double> P0 = random_orthonormal(n, n, seed).template as<double>();
    const auto device = this->to_device(P0, Order::row_major, 1);
    DescrambleParams params = with(Gauge::given);
    params.P0 = device.view();
    const Nearest want = nearest_minimiser(p, real(P0));
    const auto r = this->run(p.C, params);
    this->check_optimal(r, p);
    EXPECT_NEAR(static_cast<double>(overlap(real(P0), real(r.P))), static_cast<double>(want.trace),
                1e-12 + 20 * this->eps);
    params.group = Group::special_orthogonal;
    const auto s = this->run(p.C, params);
    EXPECT_GT(determinant(s.P), 0);
    const Real flip = want.determinant < 0 ? 2 * want.smallest : 0;
    EXPECT_NEAR(static_cast<double>(overlap(real(P0), real(s.P))), static_cast<double>(want.trace - flip),
                1e-12 + 20 * this->eps);
  }
}

TYPED_TEST(GaugeTest, crossing_clusters_end_where_random_starts_do_not_get_further) {
  const index_t n = 8;
  const RealMatrix I = RealMatrix::identity(n);
  const std::vector<std::vector<Real>> spectra{{9, 8, 5, 5, 4, 3, 2, 1},
                                               {9, 8, 5, 5, 5, 1, 1, 0.5L},
                                               {9, 8, 7, 7, 0, 0, 0, 0},
                                               {9, 9, 5, 5, 3, 3, 1, 1},
                                               {4, 4, 4, 4, 0, 0, 0, 0}};
  unsigned seed = 160;
  for (const auto& spectrum : spectra) {
    const Problem p(fourier_penalty(n, 2), real(with_eigenvalues(spectrum, ++seed).template as<double>()));
    bool crossing = false;
    components(p, crossing);
    ASSERT_TRUE(crossing);
    const auto r = this->run(p.C);
    this->check_optimal(r, p);
    const Real reached = overlap(I, real(r.P));
    // tr(G H K), K = U^T T, by polar steps in long double from random G
    const RealMatrix K = times(p.U.transposed(), p.T);
    const auto polar_blocks = [](const RealMatrix& M,
                                 const std::vector<index_t>& starts) {  // the best block-diagonal Q for tr(Q M)
      RealMatrix Q(M.rows, M.rows);
      for (std::size_t b = 0; b + 1 < starts.size(); ++b) {
        const index_t lo = starts[b], d = starts[b + 1] - lo;
        const RealMatrix q = polar_factor(M.block(lo, lo, d, d)).transposed();
        for (index_t i = 0; i < d; ++i) {
          for (index_t j = 0; j < d; ++j) Q(lo + i, lo + j) = q(i, j);
        }
      }
      return Q;
    };
    Real best = 0;
    for (unsigned start = 0; start < 12; ++start) {
      RealMatrix G = block_diagonal(p.blocks, start, [](index_t d, unsigned s) { return random_orthonormal(d, d, s); });
      Real value = 0;
      for (int sweep = 0; sweep < 300; ++sweep) {
        const RealMatrix H = polar_blocks(times(K, G), p.clusters);
        G = polar_blocks(times(H, K), p.blocks);
        const Real next = trace(times(G, times(H, K)));
        if (next - value < 1e-13L) break;
        value = next;
      }
      best = std::max(best, value);
    }
    EXPECT_GE(static_cast<double>(reached), static_cast<double>(best) - 1e-6 - 50 * this->eps) << "seed " << seed;
  }
}

TYPED_TEST(GaugeTest, canonical_gauge_is_sign_fixed_eigenvectors) {
  const index_t n = 8;
  const RealMatrix T = fourier_modes(n);
  unsigned seed = 180;
  auto spectra = spectra8();
  spectra.push_back({9, 8, 5, 5, 4, 3, 2, 1});
  for (const auto& spectrum : spectra) {
    const Problem p(fourier_penalty(n, 2), real(with_eigenvalues(spectrum, ++seed).template as<double>()));
    for (const Group group : {Group::orthogonal, Group::special_orthogonal}) {
      const auto r = this->run(p.C, with(Gauge::canonical, group));
      this->check_optimal(r, p);
      EXPECT_TRUE(std::isnan(r.gauge_conditioning));
      const RealMatrix U = times(real(r.P).transposed(), T);  // P = T U^T
      const bool flipped = group == Group::special_orthogonal && [&] {
        const RealMatrix Q = real(this->run(p.C, with(Gauge::canonical)).P);
        return determinant(Q) < 0;
      }();
      if (group == Group::special_orthogonal) {
        EXPECT_GT(determinant(r.P), 0);
      }
      for (std::size_t c = 0; c + 1 < p.clusters.size(); ++c) {
        const index_t lo = p.clusters[c], d = p.clusters[c + 1] - lo;
        RealMatrix Uc = U.block(0, lo, n, d);
        if (flipped && lo + d == n) {
          for (index_t i = 0; i < n; ++i) Uc(i, d - 1) = -Uc(i, d - 1);
        }
        const RealMatrix want = p.U.block(0, lo, n, d);
        if (d == 1) {
          index_t at = 0;
          for (index_t i = 1; i < n; ++i) at = std::abs(Uc(i, 0)) > std::abs(Uc(at, 0)) ? i : at;
          EXPECT_GT(Uc(at, 0), 0);
          EXPECT_LE(difference(times(Uc, Uc.transposed()), times(want, want.transposed())), 1e-12 + 20 * this->eps);
        } else {  // the basis of the cluster nearest to the axes of its positions
          RealMatrix axes(n, d);
          for (index_t i = 0; i < d; ++i) axes(lo + i, i) = 1;
          EXPECT_LE(difference(Uc, times(want, polar_factor(times(want.transposed(), axes)))), 1e-9 + 100 * this->eps);
        }
      }
    }
  }
}

TYPED_TEST(GaugeTest, a_rank_makes_the_rest_one_cluster) {
  const index_t n = 8;
  const RealMatrix I = RealMatrix::identity(n);
  for (const index_t rank : {1, 3, 5, 7, 8}) {  // where blocks end, so that nothing crosses
    SCOPED_TRACE(rank);
    Problem p(fourier_penalty(n, 2), real(with_eigenvalues({9, 8, 7, 6, 5, 4, 3, 2}, 200).template as<double>()));
    if (rank < n) p.cut(rank);
    DescrambleParams params;
    params.rank = rank;
    const auto r = this->run(p.C, params);
    const Nearest want = nearest_minimiser(p, I);
    EXPECT_NEAR(static_cast<double>(overlap(I, real(r.P))), static_cast<double>(want.trace), 1e-12 + 20 * this->eps);
    EXPECT_NEAR(r.cost, static_cast<double>(brockett_trace(p.A, r.P, p.C)), 1e-13 * static_cast<double>(p.size()));
    EXPECT_EQ(r.rank, rank);  // no more is known
    EXPECT_EQ(static_cast<index_t>(r.sigma.size()), rank);
    EXPECT_EQ(std::isnan(r.optimum), rank < n);
    // the leading rows of T^T P are eigenvectors of C all the same
    const RealMatrix Q = times(p.T.transposed(), r.P);
    for (std::size_t b = 0; b + 1 < p.blocks.size() && p.blocks[b + 1] <= rank; ++b) {
      const index_t lo = p.blocks[b], d = p.blocks[b + 1] - lo;
      const RealMatrix rows = Q.block(lo, 0, d, n), U = p.U.block(0, lo, n, d);
      EXPECT_LE(difference(times(rows.transposed(), rows), times(U, U.transposed())), 1e-12 + 40 * this->eps);
    }
  }
}

linalg::Buffer<double> uploaded(linalg::LinAlg<double>& la, const RealMatrix& M) {
  linalg::Buffer<double> out(la, M.rows, M.cols);
  std::vector<double> host;
  for (index_t j = 0; j < M.cols; ++j) {
    for (index_t i = 0; i < M.rows; ++i) host.push_back(static_cast<double>(M(i, j)));
  }
  la.upload(host.data(), out);
  return out;
}

Real nuclear_norm(const RealMatrix& M) {
  Real sum = 0;
  for (const Real s : jacobi_svd(M).s) sum += s;
  return sum;
}

TYPED_TEST(GaugeTest, polar_factors_of_which_some_columns_vary) {
  const index_t q = 12, j = 4;
  for (const index_t p : {1, 2, 4}) {
    for (const unsigned seed : {1U, 2U, 3U}) {
      SCOPED_TRACE(std::to_string(p) + ", seed " + std::to_string(seed));
      // columns of an orthogonal matrix, as overlaps are; seed 3: and one of B's is all but lost
      const RealMatrix whole = random_orthonormal(2 * q, 2 * q, 400 + seed);
      RealMatrix B = whole.block(0, 0, q, q);
      const RealMatrix V = whole.block(0, q, q, j), G = random_orthonormal(j, p, 410 + seed);
      RealMatrix M = B;
      const RealMatrix VG = times(V, G);
      for (index_t i = 0; i < q; ++i) {
        for (index_t c = 0; c < p; ++c) {
          B(i, c + 1) = 0;
          M(i, c + 1) = VG(i, c);
        }
        if (seed == 3) B(i, q - 1) = M(i, q - 1) = M(i, q - 1) * 1e-7L;
      }
      const linalg::Buffer<double> Bd = uploaded(this->context.backend().full(), B),
                                   Vd = uploaded(this->context.backend().full(), V);
      const VaryingPolar polar_of(this->context.backend().full(), Bd, Vd);
      std::vector<double> Gh, R;
      for (index_t c = 0; c < p; ++c) {
        for (index_t i = 0; i < j; ++i) Gh.push_back(static_cast<double>(G(i, c)));
      }
      const double norm = polar_of(Gh, p, R);
      EXPECT_NEAR(norm, static_cast<double>(nuclear_norm(M) - nuclear_norm(B)), 1e-13);
      const RealMatrix W = polar_factor(M).block(0, 1, q, p), want = times(W.transposed(), V);
      ASSERT_EQ(static_cast<index_t>(R.size()), p * j);
      for (index_t c = 0; c < j; ++c) {
        for (index_t i = 0; i < p; ++i) {
          EXPECT_NEAR(R[static_cast<std::size_t>(i + c * p)], static_cast<double>(want(i, c)), 1e-13);
        }
      }
    }
  }
}

// [V G, B] is singular: its polar factor is that of the directions that it has. By hand v1 = v2 = e1 / 2, B = 0.8 e3, G = I:
// the columns that vary are (e1 e1) / sqrt 2; G of their difference: nothing at all.
TYPED_TEST(GaugeTest, polar_factors_of_columns_that_depend_on_each_other) {
  auto& full = this->context.backend().full();
  RealMatrix B(3, 3), V(3, 2);
  B(2, 2) = 0.8L;
  V(0, 0) = V(0, 1) = 0.5L;
  std::vector<double> R;
  const VaryingPolar parallel(full, uploaded(full, B), uploaded(full, V));
  EXPECT_NEAR(parallel({1, 0, 0, 1}, 2, R), 0.5 * std::numbers::sqrt2, 1e-7);
  for (const double r : R) EXPECT_NEAR(r, 0.25 * std::numbers::sqrt2, 1e-7);
  const double half = 0.5 * std::numbers::sqrt2;
  EXPECT_NEAR(parallel({half, -half}, 1, R), 0, 1e-7);
  for (const double r : R) EXPECT_NEAR(r, 0, 1e-7);

  // rotated, so that nothing but rounding tells that they depend on each other
  const index_t q = 20;
  for (const unsigned seed : {1U, 2U, 3U, 4U}) {
    const RealMatrix X = random_orthonormal(q, q, 460 + seed), Y = random_orthonormal(q - 3, q - 3, 470 + seed);
    const RealMatrix rest = times(X.block(0, 3, q, q - 3), Y);
    RealMatrix whole(q, q), varying(q, 3);
    for (index_t i = 0; i < q; ++i) {
      for (index_t c = 3; c < q; ++c) whole(i, c) = 0.6L * rest(i, c - 3);
      varying(i, 0) = 0.5L * X(i, 0);
      varying(i, 1) = 0.3L * X(i, 0) + 0.4L * X(i, 1);
      varying(i, 2) = 0.8L * X(i, 0) + 0.4L * X(i, 1);  // the sum of both
    }
    const VaryingPolar polar_of(full, uploaded(full, whole), uploaded(full, varying));
    // V = [x1 x2] F, of rank two
    RealMatrix F(2, 3);
    F(0, 0) = 0.5L, F(0, 1) = 0.3L, F(0, 2) = 0.8L, F(1, 1) = F(1, 2) = 0.4L;
    EXPECT_NEAR(polar_of({1, 0, 0, 0, 1, 0, 0, 0, 1}, 3, R), static_cast<double>(nuclear_norm(F)), 1e-7);
    const RealMatrix want = times(polar_factor(F).transposed(), F);
    for (index_t c = 0; c < 3; ++c) {
      for (index_t i = 0; i < 3; ++i) {
        EXPECT_NEAR(R[static_cast<std::size_t>(i + c * 3)], static_cast<double>(want(i, c)), 1e-7);
      }
    }
  }
}

TEST(VaryingPolar, pays_for_few_columns_of_many) {
  EXPECT_TRUE(VaryingPolar::pays(32, 2));
  EXPECT_FALSE(VaryingPolar::pays(31, 2));
  EXPECT_FALSE(VaryingPolar::pays(32, 0));
  EXPECT_FALSE(VaryingPolar::pays(8192, 256));  // 460 MB of moments
}

// A block of two lies in a single direction and in a cluster of forty. The climb is over before polar factors of order forty
// are alternated: one sweep sees it, or one more.
TYPED_TEST(GaugeTest, a_wide_cluster_that_a_narrow_block_cuts) {
  const index_t n = 44, cut = 4;
  const std::vector<index_t> blocks{0, 1, 3, 5, n}, clusters{0, 1, 2, 3, cut, n};
  for (const unsigned seed : {1U, 2U, 3U, 4U}) {
    SCOPED_TRACE(seed);
    const RealMatrix K = random_orthonormal(n, n, 430 + seed);
    const linalg::Buffer<double> I = uploaded(this->context.backend().full(), RealMatrix::identity(n)),
                                 Kd = uploaded(this->context.backend().full(), K);
    brockett::Gauge gauge(this->context, blocks, clusters, I);
    const linalg::Buffer<double> Z = gauge.nearest(Kd, false);  // (G H)^T
    EXPECT_LE(gauge.sweeps(), 2);
    std::vector<double> host(static_cast<std::size_t>(n * n));
    this->context.backend().full().download(Z, host.data());
    RealMatrix GH(n, n);
    for (index_t i = 0; i < n; ++i) {
      for (index_t j = 0; j < n; ++j) GH(j, i) = host[static_cast<std::size_t>(i + j * n)];
    }
    EXPECT_LE(difference(times(GH, GH.transposed()), RealMatrix::identity(n)), 1e-14L * 4);
    // G H = diag(G_1, G_2, I) H: the angle in the block of two, either way round, and what is best given it
    const auto best_at = [&](Real angle, int sign) {
      RealMatrix M = K.block(cut, cut, n - cut, n - cut);
      const Real c = std::cos(angle), s = std::sin(angle);
      for (index_t i = 0; i < n - cut; ++i) M(i, 0) = -s * sign * K(cut + i, cut - 1) + c * sign * K(cut + i, cut);
      return std::abs(c * K(cut - 1, cut - 1) + s * K(cut - 1, cut)) + nuclear_norm(M);
    };
    Real reached = 0;
    for (index_t i = cut - 1; i < n; ++i) {
      for (index_t k = cut - 1; k < n; ++k) reached += GH(i, k) * K(k, i);
    }
    // where it ended nothing near is better: the angle is that of the row of G H that only G has a part in
    const Real angle = std::atan2(GH(cut, cut - 1), GH(cut - 1, cut - 1));
    EXPECT_NEAR(static_cast<double>(reached), static_cast<double>(best_at(angle, 1)), 1e-12);
    for (const Real step : {-1e-3L, 1e-3L}) EXPECT_LT(best_at(angle + step, 1), reached);
  }
}

using Starts = std::vector<index_t>;

TEST(Clusters, by_hand) {
  EXPECT_EQ(equal_clusters({9, 8, 8, 5}), Starts({0, 1, 3, 4}));
  EXPECT_EQ(equal_clusters({0, 0, 0}), Starts({0, 3}));
  EXPECT_EQ(equal_clusters({7}), Starts({0, 1}));
  EXPECT_EQ(equal_clusters({}), Starts({0}));
  // rounding of the largest value is no difference, 100 times as much is one, however many values there are
  std::vector<double> values{1, 2e-15, 1e-15};
  EXPECT_EQ(equal_clusters(values), Starts({0, 1, 3}));
  values.resize(1000, 0);
  values[1] = 3e-14, values[2] = 0;
  EXPECT_EQ(equal_clusters(values), Starts({0, 1, 2, 1000}));
}

}  // namespace
}  // namespace brockett::test
