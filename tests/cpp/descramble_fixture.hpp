// What the tests around the descrambler share: its problems solved by Jacobi rotations, and the checks that any answer has to pass.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <numeric>
#include <optional>
#include <vector>

#include "brockett/descramble.hpp"
#include "reference.hpp"

namespace brockett::test {

using Group = DescrambleParams::Group;
using Gauge = DescrambleParams::Gauge;
using Method = AutocorrelationParams::Method;

inline constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
inline constexpr double kInf = std::numeric_limits<double>::infinity();

inline DescrambleParams with(Gauge gauge, Group group = Group::orthogonal) {
  DescrambleParams p;
  p.gauge = gauge;
  p.group = group;
  return p;
}

/// Real Fourier modes in columns: constant; cosine, sine; …; Nyquist.
inline RealMatrix fourier_modes(index_t n) {
  RealMatrix T(n, n);
  for (index_t c = 0; c < n; ++c) {
    const index_t k = (c + 1) / 2;
    const Real norm = std::sqrt((k == 0 || 2 * k == n ? Real{1} : Real{2}) / static_cast<Real>(n));
    for (index_t j = 0; j < n; ++j) {
      const Real angle = two_pi_over(k * j, n);
      T(j, c) = norm * (c % 2 == 1 || c == 0 ? std::cos(angle) : std::sin(angle));
    }
  }
  return T;
}

/// Eigenvectors and eigenvalues of both sides of a problem, by Jacobi rotations; blocks and clusters as starts.
struct Problem {
  RealMatrix A, C, T, U;
  std::vector<Real> lambda, variances;  // ascending, descending
  std::vector<index_t> blocks, clusters;
  index_t n() const { return A.rows; }

  Problem(const RealMatrix& A_, const RealMatrix& C_) : A(A_), C(C_) {
    Spectrum a = jacobi_eigen(A);
    Spectrum c = jacobi_eigen(plus(RealMatrix(A.rows, A.rows), -1, C));  // ascending in -C
    T = a.vectors;
    U = c.vectors;
    lambda = a.values;
    for (const Real v : c.values) variances.push_back(std::max(-v, Real{0}));
    blocks = runs(lambda, 1e-13L * (std::abs(lambda.back()) + std::abs(lambda.front())));
    clusters = runs(variances, static_cast<Real>(n()) * 2.3e-16L * variances[0]);
  }
  Real optimum() const { return std::inner_product(lambda.begin(), lambda.end(), variances.begin(), Real{0}); }
  /// ||A||_2 ||C||_2: the unit of rounding of costs that go through products.
  Real size() const { return std::max(std::abs(lambda.back()), std::abs(lambda.front())) * variances[0]; }
  void cut(index_t rank) {
    clusters.erase(std::lower_bound(clusters.begin(), clusters.end(), rank + 1), clusters.end());
    if (clusters.back() != rank) clusters.push_back(rank);
    clusters.push_back(n());
  }
};

/// Block-diagonal, each block from make(size, seed).
template <class F>
RealMatrix block_diagonal(const std::vector<index_t>& starts, unsigned seed, F&& make) {
  RealMatrix out(starts.back(), starts.back());
  for (std::size_t b = 0; b + 1 < starts.size(); ++b) {
    const RealMatrix Q = make(starts[b + 1] - starts[b], seed * 31 + static_cast<unsigned>(b));
    for (index_t i = 0; i < Q.rows; ++i) {
      for (index_t j = 0; j < Q.rows; ++j) out(starts[b] + i, starts[b] + j) = Q(i, j);
    }
  }
  return out;
}

/// A random minimiser T G H U^T.
inline RealMatrix random_minimiser(const Problem& p, unsigned seed) {
  const auto haar = [](index_t n, unsigned s) { return random_orthonormal(n, n, s); };
  return times(times(p.T, times(block_diagonal(p.blocks, seed, haar), block_diagonal(p.clusters, seed + 500, haar))),
               p.U.transposed());
}

/// Positions where a block and a cluster end together, and whether each part between is one block or one cluster.
inline std::vector<index_t> components(const Problem& p, bool& crossing) {
  std::vector<index_t> cuts;
  std::set_intersection(p.blocks.begin(), p.blocks.end(), p.clusters.begin(), p.clusters.end(),
                        std::back_inserter(cuts));
  crossing = false;
  for (std::size_t i = 0; i + 1 < cuts.size(); ++i) {
    const auto inside = [&](const std::vector<index_t>& starts) {
      return std::count_if(starts.begin(), starts.end(), [&](index_t s) { return s > cuts[i] && s < cuts[i + 1]; });
    };
    crossing = crossing || (inside(p.blocks) > 0 && inside(p.clusters) > 0);
  }
  return cuts;
}

/// The largest tr(P0^T P) over minimisers P, and the smallest singular value that was met, where nothing crosses.
struct Nearest {
  Real trace = 0;
  Real smallest = std::numeric_limits<Real>::infinity();
  Real determinant = 1;  // of that P, up to the sign of det T U
};
inline Nearest nearest_minimiser(const Problem& p, const RealMatrix& P0) {
  bool crossing = false;
  const auto cuts = components(p, crossing);
  EXPECT_FALSE(crossing);
  const RealMatrix M = times(times(p.T.transposed(), P0), p.U);
  Nearest out;
  for (std::size_t i = 0; i + 1 < cuts.size(); ++i) {
    const RealMatrix K = M.block(cuts[i], cuts[i], cuts[i + 1] - cuts[i], cuts[i + 1] - cuts[i]);
    const ThinSvd t = jacobi_svd(K);
    out.trace += std::accumulate(t.s.begin(), t.s.end(), Real{0});
    out.smallest = std::min(out.smallest, t.s.back());
    out.determinant *= determinant(times(t.U, t.V.transposed()));
  }
  out.determinant *= determinant(p.T) * determinant(p.U);
  return out;
}

inline Real overlap(const RealMatrix& P0, const RealMatrix& P) { return trace(times(P0.transposed(), P)); }

template <class S>
struct HostResult : Descrambling<S> {
  HostMatrix<S> P, weights;
};

template <class E>
class DescrambleFixture : public EngineTest<E> {
 protected:
  using Scalar = typename E::T;
  using EngineTest<E>::eps;
  using EngineTest<E>::context;

  HostResult<Scalar> run(const Preactivations& y, const DescrambleParams& params = {}, const HostMatrix<Scalar>& W = {},
                         Order order = Order::row_major) {
    std::optional<DeviceMatrix<Scalar>> Wd;
    if (W.rows > 0) Wd.emplace(*this->backend, W, order, 2);
    const auto r = descramble<Scalar>(context, y, Wd ? Wd->view() : MatrixView<const Scalar>(), params);
    HostResult<Scalar> out{r, this->to_host(r.P), W.rows > 0 ? this->to_host(r.weights) : HostMatrix<Scalar>()};
    EXPECT_EQ(r.P.order(), Order::row_major);
    EXPECT_EQ(r.weights.empty(), W.rows == 0);
    if (W.rows > 0) {
      const double size = largest_entry(W) * static_cast<double>(W.rows);
      EXPECT_LE(difference(out.weights, times(out.P, W)), 4 * eps * size);
    }
    return out;
  }
  Preactivations covariance(const RealMatrix& C, index_t n_samples = 0) {
    return Preactivations::from_covariance(context, this->to_device(C.as<double>(), Order::row_major, 1).view(),
                                           n_samples);
  }
  HostResult<Scalar> run(const RealMatrix& C, const DescrambleParams& params = {}) {
    return run(covariance(C), params);
  }

  /// What holds for every minimiser, in any gauge.
  void check_optimal(const HostResult<Scalar>& r, const Problem& p) {
    const auto n = static_cast<double>(p.n());
    const double size = static_cast<double>(p.size()), optimum = static_cast<double>(p.optimum());
    const double rounding = 1e-14 * n * size;
    EXPECT_LE(orthogonality_error(r.P), 10 * eps * std::sqrt(n));
    EXPECT_NEAR(r.optimum, optimum, rounding);
    EXPECT_EQ(r.bound, r.optimum);
    EXPECT_NEAR(r.cost, static_cast<double>(brockett_trace(p.A, r.P, p.C)), rounding);  // of the P that was returned
    EXPECT_NEAR(r.cost, optimum, rounding + 4 * n * eps * optimum + 4 * size * n * n * eps * eps);
    EXPECT_NEAR(r.identity_cost, static_cast<double>(trace(times(p.A, p.C))), rounding);
    ASSERT_EQ(static_cast<index_t>(r.sigma.size()), p.n());
    for (std::size_t i = 0; i < r.sigma.size(); ++i) {
      EXPECT_NEAR(r.sigma[i] * r.sigma[i], static_cast<double>(p.variances[i]),
                  1e-14 * n * static_cast<double>(p.variances[0]));
    }
    EXPECT_EQ(r.blocks, p.blocks);
    EXPECT_TRUE(r.permutation.empty());
  }
};

/// 2, 2 ratio, 2 ratio^2, …
inline std::vector<Real> falling(index_t n, Real ratio = 0.6L) {
  std::vector<Real> s;
  for (index_t i = 0; i < n; ++i) s.push_back(2 * std::pow(ratio, static_cast<Real>(i)));
  return s;
}

}  // namespace brockett::test
