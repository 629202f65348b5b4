#include "brockett/descramble.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <numeric>

#include "check.hpp"
#include "cost.hpp"
#include "gauge.hpp"
#include "gram.hpp"
#include "penalty_basis.hpp"
#include "permutation.hpp"
#include "preactivations.hpp"

namespace brockett {

using linalg::Buffer;
using linalg::Mat;
using linalg::Op;

namespace {

using Group = DescrambleParams::Group;
using GaugeKind = DescrambleParams::Gauge;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

void check_params(const Context& context, const DescrambleParams& p, index_t n) {
  if (p.rank < 0 || p.rank > n) {
    throw InvalidArgument("rank", "must be between 1 and " + std::to_string(n) + ", is " + std::to_string(p.rank));
  }
  if (p.starts < 0) throw InvalidArgument("starts", "must be >= 0, is " + std::to_string(p.starts));
  if (p.max_sweeps < 0) throw InvalidArgument("max_sweeps", "must be >= 0, is " + std::to_string(p.max_sweeps));
  if (p.gauge != GaugeKind::given) return;
  auto& backend = context.backend();
  check_matrix(backend, "P0", p.P0);
  check_square("P0", p.P0.rows, p.P0.cols, n);
  auto& la = backend.full();
  const auto M = columns_of(p.P0);
  Buffer<double> product(la, n, n), identity(la, n, n);
  la.multiply(Op::transpose, Op::none, 1.0, M, M, 0.0, product);
  la.set_identity(identity);
  la.add(-1.0, identity, product);
  const double departure = la.max_abs(product);
  if (!(departure <= 1e-6)) {
    char text[96];
    std::snprintf(text, sizeof text, "must be orthogonal to 1e-6; max|P0^T P0 - I| is %.3g", departure);
    throw InvalidArgument("P0", text);
  }
}

/// Eigenvectors of C in columns (descending) and their eigenvalues, clipped at zero.
struct Principal {
  Buffer<double> U;
  std::vector<double> variances;
  // what was decomposed: the variances, or the deviations of a square root. Rounding, and so rank and ties, is relative to
  // the largest of these
  std::vector<double> values;
};

// C = U diag(s) U^T; -C is handed over, so that the ascending order of the solver is the descending one of C
Principal eigen(const Preactivations::Impl& y) {
  auto& la = y.context.backend().full();
  Principal out{Buffer<double>(la, y.n, y.n), std::vector<double>(static_cast<std::size_t>(y.n)), {}};
  la.copy(y.C, out.U);
  la.scale(-1.0, out.U);
  la.eigen_symmetric(out.U, out.variances.data(), true);
  for (auto& v : out.variances) v = -v;
  check_semidefinite(y.source.c_str(), {out.variances.rbegin(), out.variances.rend()}, y.noise);
  for (auto& v : out.variances) v = std::max(v, 0.0);
  out.values = out.variances;
  return out;
}

// The same from a square root F (n x r) of C: singular values keep the small end that C has lost to rounding
Principal singular(const Preactivations::Impl& y) {
  auto& la = y.context.backend().full();
  const index_t n = y.n, columns = std::max(n, y.F.cols());
  Buffer<double> F(la, n, columns), Vt(la, n, columns);
  la.fill(F, 0.0);  // fewer columns than neurons: zeros complete U
  la.copy(y.F, F.mat().columns(0, y.F.cols()));
  Principal out{Buffer<double>(la, n, n), {}, std::vector<double>(static_cast<std::size_t>(n))};
  la.svd_thin(F, out.values.data(), out.U, Vt);
  for (const double v : out.values) out.variances.push_back(v * v);
  return out;
}

// Sampling error of the subspace of each block: E ||sin Theta_b||^2 = (1/N) sum_{i in b, j not in b} m_ij / (s_i - s_j)^2,
// m_ij = s_i s_j for Gaussian samples, E[z_i^2 z_j^2] of the principal components z in general (n x n, in units of s_1^2;
// empty: Gaussian); infinite where s_i and s_j are one of `ties`
std::vector<double> block_errors(std::vector<double> s, const std::vector<index_t>& ties,
                                 const std::vector<index_t>& blocks, index_t n_samples,
                                 const std::vector<double>& moments) {
  if (const double largest = s[0]; largest > 0) {  // products of variances of extreme scale leave float64
    for (auto& v : s) v /= largest;
  }
  const index_t n = static_cast<index_t>(s.size());
  std::vector<double> out;
  for (std::size_t b = 0; b + 1 < blocks.size(); ++b) {
    const index_t lo = blocks[b], hi = blocks[b + 1];
    double sum = 0;
    for (index_t i = lo; i < hi; ++i) {
      for (index_t j = 0; j < n; ++j) {
        if (j >= lo && j < hi) continue;
        const double si = s[static_cast<std::size_t>(i)], sj = s[static_cast<std::size_t>(j)];
        const double gap = si - sj;
        const bool tied =
            std::upper_bound(ties.begin(), ties.end(), i) == std::upper_bound(ties.begin(), ties.end(), j);
        if (tied || gap == 0) {
          sum = std::numeric_limits<double>::infinity();
          continue;
        }
        // ratios one by one: the square of a small gap may vanish
        const double m = moments.empty()
                             ? (si / gap) * (sj / gap)
                             : moments[static_cast<std::size_t>(std::max(i, j) + std::min(i, j) * n)] / gap / gap;
        sum += m;
      }
    }
    out.push_back(std::sqrt(std::min(static_cast<double>(hi - lo), sum / static_cast<double>(n_samples))));
  }
  return out;
}

/// E[z_i^2 z_j^2] of z = U^T (y - mean) / sigma_1, lower triangle column-major on the host.
std::vector<double> fourth_moments(const Preactivations::Impl& y, Mat<const double> U, double variance) {
  auto& la = y.context.backend().full();
  Buffer<double> M(la, y.n, y.n);
  la.fill(M, 0.0);
  for_each_centred_block(y, [&](Mat<double> Y) {
    Buffer<double> Z(la, y.n, Y.cols);
    la.multiply(Op::transpose, Op::none, variance > 0 ? 1 / std::sqrt(variance) : 1.0, U, Y, 0.0, Z);
    la.square(Z);
    la.accumulate_outer(Op::none, 1.0 / static_cast<double>(y.n_samples), Z, 1.0, M);
  });
  std::vector<double> out(static_cast<std::size_t>(y.n * y.n));
  la.download(M, out.data());
  return out;
}

template <class T>
void finish(const Context& context, const Preactivations::Impl& y, const PenaltyBasis& basis, MatrixView<const T> W,
            Mat<const double> Pt, const DescrambleParams& params, Descrambling<T>& out) {
  out.P = row_major_array<T>(context, Pt);
  if (params.verify) {
    // from the P that is returned, rounding of the cast included
    Buffer<double> cast(context.backend().full(), y.n, y.n);
    context.backend().full().convert_from(dtype_of<T>(), out.P.data(), y.n, cast);
    out.cost = evaluate_cost(y, basis, cast);
    out.identity_cost = identity_cost(y, basis);
  }
  if (!W.empty()) {
    auto& la = linalg::of<T>(context.backend());
    out.weights = make_array<T>(context, W.rows, W.cols);
    // row-major P W: its memory is the column-major (P W)^T = W^T P^T
    la.multiply(flip(op_of(W)), Op::none, T(1), columns_of(W), columns_of(MatrixView<const T>(out.P.view())), T(0),
                columns_of(out.weights.view()));
    check_weights_finite(context, MatrixView<const T>(out.weights.view()));
  }
}

template <class T>
void solve_permutation(const Context& context, const Preactivations::Impl& y, const PenaltyBasis& basis,
                       MatrixView<const T> W, const DescrambleParams& params, Descrambling<T>& out) {
  auto& la = context.backend().full();
  const index_t n = y.n;
  std::vector<double> A(static_cast<std::size_t>(n * n)), C(A.size());
  la.download(basis.matrix(), A.data());
  la.download(y.C, C.data());
  PermutationParams search;
  search.circulant = basis.circulant();
  search.seed = params.seed;
  search.starts = params.starts;
  search.max_sweeps = params.max_sweeps;
  search.penalty_eigenvalues = basis.lambda();
  const PermutationSearch found =
      search_permutation(A, C, n, search, host_algebra(la), [&] { context.check_interrupt(); });
  out.permutation = found.order;
  out.bound = found.bound;
  out.optimum = out.gauge_conditioning = kNaN;

  std::vector<double> Pt(A.size());  // row i of P is e_{order_i}: column i of P^T
  for (index_t i = 0; i < n; ++i) Pt[static_cast<std::size_t>(found.order[static_cast<std::size_t>(i)] + i * n)] = 1;
  Buffer<double> device(la, n, n);
  la.upload(Pt.data(), device);
  finish(context, y, basis, W, device, params, out);
}

template <class T>
void solve_orthogonal(const Context& context, const Preactivations::Impl& y, const PenaltyBasis& basis,
                      MatrixView<const T> W, const DescrambleParams& params, const Principal& principal,
                      Descrambling<T>& out) {
  auto& la = context.backend().full();
  const auto& lambda = basis.lambda();
  out.optimum = out.bound = std::inner_product(lambda.begin(), lambda.end(), principal.variances.begin(), 0.0);

  Gauge gauge(context, basis, equal_clusters(principal.values, params.rank), principal.U);
  const auto build = [&](bool flip) {  // P^T = U (G H)^T T^T
    Buffer<double> Pt =
        params.gauge == GaugeKind::canonical
            ? gauge.canonical(flip)
            : gauge.nearest(params.gauge == GaugeKind::given ? params.P0 : MatrixView<const double>(), flip);
    basis.apply(Op::none, Pt);
    return Pt;
  };
  Buffer<double> Pt = build(false);
  if (params.group == Group::special_orthogonal) {
    Buffer<double> work(la, y.n, y.n);
    la.copy(Pt, work);
    if (la.determinant_sign(work) < 0) Pt = build(true);
  }
  out.gauge_conditioning = gauge.conditioning();
  context.check_interrupt();
  finish(context, y, basis, W, Pt, params, out);

  if (params.verify && y.n_samples > 0) {
    const bool moments = y.has_samples();
    out.block_error =
        block_errors(principal.variances, equal_clusters(principal.values, 0), basis.blocks(), y.n_samples,
                     moments ? fourth_moments(y, principal.U, principal.variances[0]) : std::vector<double>());
    out.error_model = moments ? "moments" : "gaussian";
  }
}

}  // namespace

template <class T>
Descrambling<T> descramble(const Context& context, const Preactivations& pre, MatrixView<const T> W,
                           const DescrambleParams& params) {
  const Preactivations::Impl& y = pre.impl();
  const index_t n = y.n;
  if (!W.empty()) {
    check_matrix(context.backend(), "W", W);
    if (W.rows != n) {
      throw InvalidArgument(
          "W", "has " + std::to_string(W.rows) + " rows, the pre-activations have " + std::to_string(n) + " neurons");
    }
  }
  const auto threads = context.backend().thread_scope(n);
  check_params(context, params, n);
  const PenaltyBasis basis(context, params.penalty, n);

  Descrambling<T> out;
  const Principal principal = y.F.data() ? singular(y) : eigen(y);
  context.check_interrupt();
  const auto& s = principal.values;
  const double floor = static_cast<double>(n) * std::numeric_limits<double>::epsilon() * s[0];
  out.rank = static_cast<index_t>(std::count_if(s.begin(), s.end(), [&](double v) { return v > floor; }));
  for (const double v : principal.variances) out.sigma.push_back(std::sqrt(v));
  out.blocks = basis.blocks();
  out.cost = out.identity_cost = kNaN;
  if (params.group == Group::permutation) {
    solve_permutation(context, y, basis, W, params, out);
  } else {
    solve_orthogonal(context, y, basis, W, params, principal, out);
  }
  for (const double v : {out.optimum, out.bound, out.cost, out.identity_cost}) {  // NaN where there is none
    if (std::isinf(v)) throw InvalidArgument(y.source, "its cost overflows float64; rescale the data");
  }
  return out;
}

BrockettCost brockett_cost(const Context& context, MatrixView<const double> P, MatrixView<const double> C,
                           const Penalty& penalty) {
  auto& backend = context.backend();
  auto& la = backend.full();
  check_matrix(backend, "P", P);
  check_square("P", P.rows, P.cols, P.rows);
  check_square("C", C.rows, C.cols, P.rows);
  const auto threads = backend.thread_scope(P.rows);
  const Buffer<double> S = symmetric_copy(backend, "C", C);
  const PenaltyBasis basis(context, penalty, P.rows);
  // X = Q^T = P^T T; value = sum_i lambda_i q_i C q_i^T
  Buffer<double> X(la, P.rows, P.rows), Z(la, P.rows, P.rows);
  if (P.order == Order::row_major) {
    la.copy(columns_of(P), X);
  } else {
    la.transpose(columns_of(P), X);
  }
  basis.apply(Op::transpose, X);
  la.multiply(Op::none, Op::none, 1.0, S, X, 0.0, Z);
  std::vector<double> q(static_cast<std::size_t>(P.rows));
  la.column_dots(X, Z, q.data());
  BrockettCost out;
  out.value = std::inner_product(q.begin(), q.end(), basis.lambda().begin(), 0.0);
  // gradient 2 A P C = 2 T diag(lambda) Q C; its transpose is (Q C)^T diag(2 lambda) T^T
  std::vector<double> scale = basis.lambda();
  for (auto& v : scale) v *= 2;
  la.scale_columns(Z, scale.data());
  basis.apply(Op::none, Z);
  out.gradient = row_major_array<double>(context, Z);
  return out;
}

#define BROCKETT_INSTANTIATE(T)                                                                   \
  template Descrambling<T> descramble(const Context&, const Preactivations&, MatrixView<const T>, \
                                      const DescrambleParams&);
BROCKETT_INSTANTIATE(float)
BROCKETT_INSTANTIATE(double)

}  // namespace brockett
