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
#include "leading_descrambler.hpp"
#include "leading_eigen.hpp"
#include "linear_maps.hpp"
#include "penalty_basis.hpp"
#include "permutation.hpp"
#include "preactivations.hpp"
#include "sampling_error.hpp"

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

// P as it is returned, its cast included, as P^T in float64
template <class T>
Buffer<double> as_returned(const Context& context, const Descrambling<T>& out) {
  auto& la = context.backend().full();
  Buffer<double> Pt(la, out.P.rows(), out.P.rows());
  la.convert_from(dtype_of<T>(), out.P.data(), out.P.rows(), Pt);
  return Pt;
}

// P W, row-major: its memory is the column-major (P W)^T = W^T P^T
template <class T>
void multiply_weights(const Context& context, MatrixView<const T> W, Descrambling<T>& out) {
  auto& la = linalg::of<T>(context.backend());
  out.weights = make_array<T>(context, W.rows, W.cols);
  la.multiply(flip(op_of(W)), Op::none, T(1), columns_of(W), columns_of(MatrixView<const T>(out.P.view())), T(0),
              columns_of(out.weights.view()));
  check_weights_finite(context, MatrixView<const T>(out.weights.view()));
}

// the same by the factors: W^T P^T = (W^T + (W^T F) G^T) B
template <class T>
void multiply_weights(const Context& context, const PenaltyBasis& basis, const LeadingDescrambler& P,
                      MatrixView<const T> W, Descrambling<T>& out) {
  using Base = LeadingDescrambler::Base;
  if (P.base == Base::reference) return multiply_weights(context, W, out);
  auto& la = context.backend().full();
  const auto M = columns_of(W);
  const Buffer<double> Wd = to_double<T>(context.backend(), M);
  Buffer<double> Z(la, W.cols, W.rows);
  if (op_of(W) == Op::none) {
    la.transpose(Wd, Z);
  } else {
    la.copy(Wd, Z);
  }
  if (P.F.cols() > 0) {
    Buffer<double> WF(la, W.cols, P.F.cols());
    la.multiply(flip(op_of(W)), Op::none, 1.0, Wd, P.F, 0.0, WF);
    la.multiply(Op::none, Op::transpose, 1.0, WF, P.G, 1.0, Z);
  }
  if (P.base == Base::modes) basis.apply(Op::none, Z);
  out.weights = row_major_array<T>(context, Z);
  check_weights_finite(context, MatrixView<const T>(out.weights.view()));
}

template <class T>
void finish(const Context& context, const Preactivations::Impl& y, const PenaltyBasis& basis, MatrixView<const T> W,
            Mat<const double> Pt, const DescrambleParams& params, Descrambling<T>& out) {
  out.P = row_major_array<T>(context, Pt);
  if (params.verify) {
    out.cost = evaluate_cost(y, basis, as_returned(context, out));
    out.identity_cost = identity_cost(y, basis);
  }
  if (!W.empty()) multiply_weights(context, W, out);
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

// the minimiser T G H U^T that the gauge names, all of U (n x n) being known; its transpose
Buffer<double> minimiser(const Context& context, const PenaltyBasis& basis, Mat<const double> U,
                         std::vector<index_t> clusters, const DescrambleParams& params, double& conditioning) {
  auto& la = context.backend().full();
  Gauge gauge(context, basis.blocks(), std::move(clusters), U);
  Buffer<double> K;
  if (params.gauge != GaugeKind::canonical) {
    K = gauge_overlap(context, basis, U, params.gauge == GaugeKind::given ? params.P0 : MatrixView<const double>());
  }
  const auto build = [&](bool flip) {  // P^T = U (G H)^T T^T
    Buffer<double> Pt = params.gauge == GaugeKind::canonical ? gauge.canonical(flip) : gauge.nearest(K, flip);
    basis.apply(Op::none, Pt);
    return Pt;
  };
  Buffer<double> Pt = build(false);
  if (params.group == Group::special_orthogonal) {
    Buffer<double> work(la, basis.n(), basis.n());
    la.copy(Pt, work);
    if (la.determinant_sign(work) < 0) Pt = build(true);
  }
  conditioning = gauge.conditioning();
  context.check_interrupt();
  return Pt;
}

template <class T>
void estimate_errors(const Preactivations::Impl& y, const PenaltyBasis& basis, Mat<const double> U,
                     const KnownSpectrum& spectrum, Descrambling<T>& out) {
  if (y.n_samples == 0) return;
  const bool moments = y.has_samples();
  const bool any = moments && !spectrum.variances.empty();
  out.block_error = block_errors(spectrum, basis.blocks(), y.n_samples,
                                 any ? fourth_moments(y, U, spectrum.variances[0]) : std::vector<double>());
  out.error_model = moments ? "moments" : "gaussian";
}

template <class T>
void solve_orthogonal(const Context& context, const Preactivations::Impl& y, const PenaltyBasis& basis,
                      MatrixView<const T> W, const DescrambleParams& params, const Principal& principal,
                      Descrambling<T>& out) {
  const auto& lambda = basis.lambda();
  out.optimum = out.bound = std::inner_product(lambda.begin(), lambda.end(), principal.variances.begin(), 0.0);
  const std::vector<index_t> clusters = equal_clusters(principal.values);
  const Buffer<double> Pt = minimiser(context, basis, principal.U, clusters, params, out.gauge_conditioning);
  finish(context, y, basis, W, Pt, params, out);
  if (params.verify) estimate_errors(y, basis, principal.U, {principal.variances, clusters}, out);
}

// --- the leading directions alone ---------------------------------------------------------------------------------------

// the largest of C, or of its square root; all of them where those are most of them
Principal leading(const Preactivations::Impl& y, index_t count, bool all) {
  if (!y.F.data()) {
    if (all) return eigen(y);
    LeadingEigen found = leading_eigen(y.context, y.C, count, y.noise);
    check_semidefinite(y.source.c_str(), y.n, found.smallest, found.values[0], y.noise);
    for (auto& v : found.values) v = std::max(v, 0.0);
    return {std::move(found.U), found.values, found.values};
  }
  // What a square root is kept for are small values, and Lanczos works with their squares.
  constexpr double resolved = 1e-6;
  if (!all && count < std::min(y.n, y.F.cols())) {
    const DenseMap<double> map(y.context, y.F, Op::none);
    KrylovParams p;
    p.rank = count;
    p.tol = 1e-13;
    p.max_columns = y.n;
    KrylovTriplets<double> t = krylov<double>(y.context, map, p);
    if (t.converged && t.s.back() > resolved * t.s.front()) {
      Principal out{std::move(t.U), {}, std::move(t.s)};
      for (const double v : out.values) out.variances.push_back(v * v);
      return out;
    }
  }
  return singular(y);
}

double trace(const Preactivations::Impl& y) {
  std::vector<double> diagonal(static_cast<std::size_t>(y.n));
  y.context.backend().full().download(Mat<const double>(y.C.data(), 1, y.n, y.n + 1), diagonal.data());
  return std::accumulate(diagonal.begin(), diagonal.end(), 0.0);
}

// least sum_i lambda_i s_i of variances that begin like this, are at most `next` after it, and add up to `rest` there
double least_cost(const std::vector<double>& lambda, const std::vector<double>& known, double next, double rest) {
  double sum = std::inner_product(known.begin(), known.end(), lambda.begin(), 0.0);
  for (std::size_t i = known.size(); i < lambda.size() && rest > 0; ++i) {
    const double s = std::min(rest, next);
    sum += lambda[i] * s;
    rest -= s;
  }
  return sum;
}

template <class T>
void solve_leading(const Context& context, const Preactivations::Impl& y, const PenaltyBasis& basis,
                   MatrixView<const T> W, const DescrambleParams& params, Descrambling<T>& out) {
  const index_t n = y.n;
  // Where the reduced problem is nearly as large as the whole one, its products and factorizations take longer than a
  // decomposition of everything, of which the tail is one cluster.
  const auto whole = [&](index_t rank) {
    const index_t order = reduced_order(basis, rank);
    return order >= n || (params.gauge != GaugeKind::canonical && 8 * order >= 7 * n);
  };
  const bool all = whole(params.rank);
  const Principal principal = leading(y, params.rank + 1, all);
  context.check_interrupt();
  const auto& values = principal.values;
  // Directions equal to one beyond the cut cannot be told from it: the cut moves to before them. A null space that the cut
  // goes through is one such case.
  index_t r = params.rank;
  while (r > 0 && values[static_cast<std::size_t>(r - 1)] - values[static_cast<std::size_t>(r)] <= kTie * values[0])
    --r;
  const auto first = [&](const std::vector<double>& v, index_t count) {
    return std::vector<double>(v.begin(), v.begin() + count);
  };
  const std::vector<index_t> clusters = equal_clusters(first(values, r));
  const Mat<const double> U = principal.U.mat().columns(0, r);

  const double floor = static_cast<double>(n) * std::numeric_limits<double>::epsilon() * values[0];
  out.rank = static_cast<index_t>(
      std::count_if(values.begin(), values.begin() + params.rank, [&](double v) { return v > floor; }));
  for (const double v : first(principal.variances, params.rank)) out.sigma.push_back(std::sqrt(v));
  KnownSpectrum spectrum{first(principal.variances, r), clusters, false, trace(y),
                         principal.variances[static_cast<std::size_t>(r)]};
  for (const double v : spectrum.variances) spectrum.rest -= v;
  spectrum.rest = std::max(spectrum.rest, 0.0);
  out.optimum = kNaN;
  out.bound = least_cost(basis.lambda(), spectrum.variances, spectrum.next, spectrum.rest);

  Buffer<double> P0;
  if (params.gauge == GaugeKind::given) P0 = orthogonal_reference(context, params.P0);
  if (all && whole(r)) {
    std::vector<index_t> cut = clusters;
    cut.push_back(n);
    DescrambleParams exact = params;
    exact.P0 = {P0.data(), n, n, Order::column_major};
    const Buffer<double> Pt = minimiser(context, basis, principal.U, std::move(cut), exact, out.gauge_conditioning);
    finish(context, y, basis, W, Pt, params, out);
  } else {
    const bool special = params.group == Group::special_orthogonal;
    const LeadingDescrambler P = params.gauge == GaugeKind::canonical
                                     ? canonical_leading(context, basis, U, clusters, special)
                                     : nearest_leading(context, basis, U, clusters, std::move(P0), special);
    out.gauge_conditioning = P.conditioning;
    {
      const Buffer<double> Pt = transposed(context, basis, P);
      out.P = row_major_array<T>(context, Pt);
      if (params.verify) {
        const double mean = spectrum.rest / static_cast<double>(n - r);
        out.cost = evaluate_cost(y, basis, P, as_returned(context, out), std::is_same_v<T, double> ? nullptr : &Pt,
                                 {U, spectrum.variances, mean});
      }
    }
    context.check_interrupt();
    if (params.verify) out.identity_cost = identity_cost(y, basis);
    if (!W.empty()) multiply_weights(context, basis, P, W, out);
  }
  if (params.verify) estimate_errors(y, basis, U, spectrum, out);
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
  out.blocks = basis.blocks();
  out.cost = out.identity_cost = kNaN;
  if (params.rank > 0 && params.rank < n && params.group != Group::permutation) {
    solve_leading(context, y, basis, W, params, out);
  } else {
    const Principal principal = y.F.data() ? singular(y) : eigen(y);
    context.check_interrupt();
    const auto& s = principal.values;
    const double floor = static_cast<double>(n) * std::numeric_limits<double>::epsilon() * s[0];
    out.rank = static_cast<index_t>(std::count_if(s.begin(), s.end(), [&](double v) { return v > floor; }));
    for (const double v : principal.variances) out.sigma.push_back(std::sqrt(v));
    if (params.group == Group::permutation) {
      solve_permutation(context, y, basis, W, params, out);
    } else {
      solve_orthogonal(context, y, basis, W, params, principal, out);
    }
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
