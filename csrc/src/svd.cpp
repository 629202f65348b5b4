#include "brockett/svd.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <numeric>

#include "check.hpp"
#include "gram.hpp"
#include "krylov.hpp"
#include "linalg/buffer.hpp"
#include "linalg/linalg.hpp"
#include "linear_maps.hpp"
#include "scaled_copy.hpp"
#include "signs.hpp"
#include "svd_costs.hpp"

namespace brockett {

using linalg::Buffer;
using linalg::LinAlg;
using linalg::Mat;
using linalg::Op;

namespace {

using Method = SvdParams::Method;

// The residual over s_1 that returned vectors of this precision can have: rounding them to it leaves 1e-7 in float.
template <class T>
constexpr double kReach = 4 * static_cast<double>(std::numeric_limits<T>::epsilon());

// ||A||_F^2 minus the squares of the leading values keeps that square of the norm, times some eps
template <class T>
constexpr double kLeastTail = std::is_same_v<T, float> ? 2e-3 : 1e-7;

// below this fraction of s_1 the vectors M v / s of the Gram matrix's v are orthogonal to less than 2e-8
constexpr double kOrthogonalGram = 1e-4;

/// A decomposition M = U diag(s) V^T of a column-major M (p x q), V (q x r) in columns.
template <class T>
struct Triplets {
  Buffer<T> U, V;
  std::vector<double> s;
  std::string method;
  bool converged = true;
  index_t columns = 0;  // krylov: multiplied by M and M^T
  index_t rank() const { return static_cast<index_t>(s.size()); }
};

/// Smallest rank (at least 1, at most `cap`) whose tail sqrt(total^2 - sum s^2) is at most tol times `total`.
index_t frobenius_rank(const std::vector<double>& s, double tol, index_t cap) {
  double tail = 0;
  const double total = std::sqrt(std::inner_product(s.begin(), s.end(), s.begin(), 0.0));
  index_t r = static_cast<index_t>(s.size());
  while (r > 1) {  // summed from the small end, so that small tails keep their digits
    const double v = s[static_cast<std::size_t>(r - 1)];
    if (std::sqrt(tail + v * v) > tol * total) break;
    tail += v * v;
    --r;
  }
  return std::min(r, cap);
}

template <class T>
class Solver {
 public:
  Solver(const Context& context, Mat<const T> M, Op op_a, const SvdParams& params)
      : context_(context), la_(linalg::of<T>(context.backend())), M_(M), op_a_(op_a), params_(params) {
    k_ = std::min(M.rows, M.cols);
    cap_ = params.rank > 0 ? std::min(params.rank, k_) : k_;
  }

  Triplets<T> exact() {
    Buffer<T> work(la_, M_.rows, M_.cols), U(la_, M_.rows, k_), Vt(la_, k_, M_.cols);
    la_.copy(M_, work);
    std::vector<T> s(static_cast<std::size_t>(k_));
    la_.svd_thin(work, s.data(), U, Vt);
    Triplets<T> out;
    out.method = "exact";
    out.s.assign(s.begin(), s.end());
    const index_t r = kept_rank(out.s);
    out.s.resize(static_cast<std::size_t>(r));
    out.V = Buffer<T>(la_, M_.cols, r);
    la_.transpose(Vt.mat().block(0, 0, r, M_.cols), out.V);
    out.U = Buffer<T>(la_, M_.rows, r);
    la_.copy(U.mat().columns(0, r), out.U);
    return out;
  }

  /// Eigenvectors of the smaller Gram matrix G = M^T M (or M M^T) in float64, the other side as M v / s.
  Triplets<T> gram() {
    const bool tall = M_.rows >= M_.cols;
    auto& ld = context_.backend().full();
    Buffer<double> G = gram_matrix(context_, M_, tall ? Op::transpose : Op::none);
    const bool need_all = params_.frobenius_tol > 0 || cap_ == k_;
    const index_t count = need_all ? k_ : cap_;
    std::vector<double> w(static_cast<std::size_t>(count));
    Buffer<double> small(ld, k_, count);
    context_.check_interrupt();
    ld.eigen_symmetric_largest(G, count, w.data(), small);
    context_.check_interrupt();
    std::vector<double> s(w.size());
    std::transform(w.begin(), w.end(), s.begin(), [](double v) { return std::sqrt(std::max(v, 0.0)); });
    const index_t r = kept_rank(s);
    s.resize(static_cast<std::size_t>(r));
    Buffer<double> large = other_side(small.mat().columns(0, r), s, tall);

    Triplets<T> out;
    out.method = "gram";
    out.s = std::move(s);
    out.U = cast(tall ? Mat<const double>(large) : Mat<const double>(small.mat().columns(0, r)));
    out.V = cast(tall ? Mat<const double>(small.mat().columns(0, r)) : Mat<const double>(large));
    return out;
  }

  /// Block Lanczos up to the tolerance, or, for `quick`, up to its budget of columns.
  Triplets<T> krylov(index_t max_columns, double& residual) {
    const bool quick = params_.method == Method::quick;
    KrylovParams p;
    // longer vectors cost few columns less than turning a wide row-major matrix does, and no memory of its size
    p.on_the_right = quick && 4 * max_columns < k_;
    const DenseMap<T> map(context_, M_, op_a_, p.on_the_right);
    p.rank = cap_;
    p.tol = params_.tol;
    p.frobenius_tol = params_.frobenius_tol;
    if (p.frobenius_tol > 0) p.squared_norm = std::pow(la_.norm(M_), 2);
    p.seed = params_.seed;
    p.max_columns = max_columns;
    p.stop_at_limit = quick;
    if (quick) p.widest = cap_ + params_.oversampling;
    KrylovTriplets<T> found = brockett::krylov<T>(context_, map, p);
    residual = found.residual;
    Triplets<T> out;
    out.method = quick ? "quick" : "krylov";
    out.s = std::move(found.s);
    out.converged = found.converged;
    out.columns = found.columns;
    out.U = op_a_ == Op::none ? std::move(found.U) : std::move(found.V);
    out.V = op_a_ == Op::none ? std::move(found.V) : std::move(found.U);
    return out;
  }

  /// max_i max(||M v_i - s_i u_i||, ||M^T u_i - s_i v_i||) / s_1
  double residual(const Triplets<T>& t) {
    if (t.s.empty() || t.s[0] == 0) return 0;
    return std::max(one_residual(Op::none, t.V, t.U, t.s), one_residual(Op::transpose, t.U, t.V, t.s));
  }

  index_t cap() const { return cap_; }
  index_t k() const { return k_; }

 private:
  index_t kept_rank(const std::vector<double>& s) const {
    return params_.frobenius_tol > 0 ? frobenius_rank(s, params_.frobenius_tol, cap_) : cap_;
  }
  Buffer<T> cast(Mat<const double> A) {
    Buffer<T> out(la_, A.rows, A.cols);
    context_.backend().full().convert_to(A, dtype_of<T>(), out.data(), A.rows);
    return out;
  }

  /// M v / ||M v|| for the columns v of `small` (M^T v when M is wide), in float64. They are orthogonal to eps (s_1 / s)^2:
  /// from 1e-4 s_1 on they are orthogonalized, and below the resolution of the Gram matrix s becomes ||M v||.
  Buffer<double> other_side(Mat<const double> small, std::vector<double>& s, bool tall) {
    auto& ld = context_.backend().full();
    const index_t n = tall ? M_.rows : M_.cols, r = small.cols;
    Buffer<double> out(ld, n, r);
    const Op op = tall ? Op::none : Op::transpose;
    for_each_double_block(context_, M_, tall ? BlockBy::rows : BlockBy::columns,
                          [&](index_t first, Mat<const double> block) {
                            const index_t b = tall ? block.rows : block.cols;
                            ld.multiply(op, Op::none, 1.0, block, small, 0.0, out.mat().block(first, 0, b, r));
                          });
    std::vector<double> norms(s.size()), inverse(s.size());
    ld.column_dots(out, out, norms.data());
    const double floor = s[0] * std::sqrt(static_cast<double>(k_) * std::numeric_limits<double>::epsilon());
    index_t orthogonal = r;
    for (index_t i = 0; i < r; ++i) {
      auto& v = s[static_cast<std::size_t>(i)];
      const double norm = std::sqrt(norms[static_cast<std::size_t>(i)]);
      if (v <= kOrthogonalGram * s[0]) orthogonal = std::min(orthogonal, i);
      if (v <= floor) {
        v = std::min(norm, i > 0 ? s[static_cast<std::size_t>(i - 1)] : norm);
      }
      inverse[static_cast<std::size_t>(i)] = norm > 0 ? 1 / norm : 0;
    }
    ld.scale_columns(out, inverse.data());
    if (orthogonal < r) orthogonalize_from(out, orthogonal);
    return out;
  }

  /// Columns from `first` on are made orthogonal to the ones before, which stay, and to each other.
  void orthogonalize_from(Buffer<double>& A, index_t first) {
    auto& ld = context_.backend().full();
    Buffer<double> Q(ld, A.rows(), A.cols());
    ld.copy(A, Q);
    ld.orthonormalize(Q);
    std::vector<double> sign(static_cast<std::size_t>(A.cols()));  // of the diagonal of R
    ld.column_dots(Q, A, sign.data());
    for (auto& v : sign) v = v < 0 ? -1 : 1;
    ld.scale_columns(Q, sign.data());
    ld.copy(Q.mat().columns(first, A.cols() - first), A.mat().columns(first, A.cols() - first));
  }

  double one_residual(Op op, const Buffer<T>& X, const Buffer<T>& Y, const std::vector<double>& s) {
    const index_t r = static_cast<index_t>(s.size());
    Buffer<T> R(la_, Y.rows(), r), S(la_, Y.rows(), r);
    la_.multiply(op, Op::none, T(1), M_, X, T(0), R);
    la_.copy(Y, S);
    const std::vector<T> d(s.begin(), s.end());
    la_.scale_columns(S, d.data());
    la_.add(T(-1), S, R);
    std::vector<double> squares(s.size());
    la_.column_dots(R, R, squares.data());
    return std::sqrt(*std::max_element(squares.begin(), squares.end())) / s[0];
  }

  const Context& context_;
  LinAlg<T>& la_;
  Mat<const T> M_;
  Op op_a_;
  const SvdParams& params_;
  index_t k_ = 0, cap_ = 0;
};

/// Make the largest entry of each vector of `leading` positive, flipping its partner along.
template <class T>
void fix_signs(LinAlg<T>& la, Buffer<T>& leading, Buffer<T>& partner) {
  const std::vector<T> sign = column_signs<T>(la, leading);
  la.scale_columns(leading, sign.data());
  la.scale_columns(partner, sign.data());
}

[[noreturn]] void throw_not_converged(double residual, double tol, index_t columns, double reach) {
  char text[240];
  std::snprintf(
      text, sizeof text,
      "svd by block Krylov: residual %.3g of s_1 after %lld columns, tol is %.3g; data of this precision reach "
      "about %.1g",
      residual, static_cast<long long>(columns), tol, reach);
  throw NotConverged(text);
}

template <class T>
Triplets<T> solve(const Context& context, Mat<const T> M, Op op_a, const SvdParams& params, double& residual) {
  Solver<T> solver(context, M, op_a, params);
  Method method = params.method;
  if (method == Method::automatic) {
    const SvdCosts costs = svd_costs<T>(M.rows, M.cols, solver.cap());
    const bool partial = solver.cap() < solver.k() && params.frobenius_tol == 0;
    const double direct = costs.gram > 0 ? costs.gram : costs.exact;
    if (partial && params.tol >= kReach<T> && costs.krylov < direct) {
      // a spectrum harder than the model's is given up where the direct method would have been done
      const index_t limit = params.max_columns > 0
                                ? params.max_columns
                                : static_cast<index_t>(2 * direct / costs.krylov * static_cast<double>(costs.columns));
      Triplets<T> t = solver.krylov(limit, residual);
      if (t.converged) return t;
      context.check_interrupt();
    }
    // float32 only: the float64 Gram matrix resolves all that float32 data hold down to 1e-4 s_1. It costs less than
    // gesdd where the matrix is far from square or part of the spectrum is enough.
    if (costs.gram > 0) {
      Triplets<T> t = solver.gram();
      residual = solver.residual(t);
      if (t.s.back() >= kOrthogonalGram * t.s.front()) {
        // what nothing in this precision reaches is no reason to try the next
        if (residual <= std::max(params.tol, kReach<T>)) return t;
        context.check_interrupt();
        const double of_gram = residual;
        Triplets<T> other = solver.exact();
        residual = solver.residual(other);
        if (residual < of_gram) return other;
        residual = of_gram;
        return t;
      }
      context.check_interrupt();
    }
    method = Method::exact;
  }
  if (method == Method::krylov) {
    Triplets<T> t = solver.krylov(params.max_columns > 0 ? params.max_columns : 10 * solver.k() + 64, residual);
    if (!t.converged) throw_not_converged(residual, params.tol, t.columns, kReach<T>);
    return t;
  }
  if (method == Method::quick) {
    return solver.krylov((params.iterations + 1) * (solver.cap() + params.oversampling), residual);
  }
  Triplets<T> t = method == Method::exact ? solver.exact() : solver.gram();
  residual = solver.residual(t);
  return t;
}

/// ||A||_F^2 by multiplying blocks of the identity.
template <class T>
double squared_norm(const Context& context, const LinearMap<T>& map) {
  auto& la = linalg::of<T>(context.backend());
  const Op op = map.rows() >= map.cols() ? Op::none : Op::transpose;
  const index_t n = std::min(map.rows(), map.cols()), m = std::max(map.rows(), map.cols());
  const index_t step = std::min<index_t>(n, 64);
  Buffer<T> E(la, n, step), Y(la, m, step);
  double sum = 0;
  for (index_t first = 0; first < n; first += step) {
    const index_t w = std::min(step, n - first);
    la.fill(E, T(0));
    la.set_identity(E.mat().block(first, 0, w, w));
    map.apply(op, E.mat().columns(0, w), Y.mat().columns(0, w));
    sum += std::pow(la.norm(Y.mat().columns(0, w)), 2);
    context.check_interrupt();
  }
  return sum;
}

template <class T>
void check_params(const SvdParams& p, bool is_operator) {
  if (p.rank < 0) throw InvalidArgument("rank", "must be at least 1, is " + std::to_string(p.rank));
  if (!(p.tol >= 0)) throw InvalidArgument("tol", "must be >= 0, is " + std::to_string(p.tol));
  if (!(p.frobenius_tol >= 0) || p.frobenius_tol >= 1) {
    throw InvalidArgument("frobenius_tol", "must be in [0, 1), is " + std::to_string(p.frobenius_tol));
  }
  if (p.method == Method::quick && p.frobenius_tol > 0) {
    throw InvalidArgument("frobenius_tol",
                          "needs singular values that have converged; those of method \"quick\" have not");
  }
  const bool by_krylov = p.method == Method::krylov || (is_operator && p.method == Method::automatic);
  if (by_krylov && p.frobenius_tol > 0 && p.frobenius_tol < kLeastTail<T>) {
    char text[160];
    std::snprintf(text, sizeof text, "method krylov resolves tails from %.1g of ||A||_F on in this precision, is %.3g",
                  kLeastTail<T>, p.frobenius_tol);
    throw InvalidArgument("frobenius_tol", text);
  }
  if (p.max_columns < 0) {
    throw InvalidArgument("max_columns", "must be >= 0, is " + std::to_string(p.max_columns));
  }
  if (p.iterations < 0) throw InvalidArgument("iterations", "must be >= 0, is " + std::to_string(p.iterations));
  if (p.oversampling < 0) throw InvalidArgument("oversampling", "must be >= 0, is " + std::to_string(p.oversampling));
}

}  // namespace

template <class T>
Svd<T> svd(const Context& context, MatrixView<const T> A, const SvdParams& params) {
  auto& backend = context.backend();
  auto& la = linalg::of<T>(backend);
  check_params<T>(params, false);
  const double magnitude = check_matrix(backend, "A", A);
  const Mat<const T> M = columns_of(A);
  const auto threads = backend.thread_scope(std::min(M.rows, M.cols));
  const Scaled<T> safe = scaled<T>(backend, M, magnitude);

  Svd<T> out;
  Triplets<T> t = solve<T>(context, safe.M, op_of(A), params, out.residual);
  for (auto& v : t.s) v /= safe.scale;
  const bool column_major = A.order == Order::column_major;
  Buffer<T>& left = column_major ? t.U : t.V;  // of A
  Buffer<T>& right = column_major ? t.V : t.U;
  if (params.signs == SvdParams::Signs::left) {
    fix_signs(la, left, right);
  } else {
    fix_signs(la, right, left);
  }
  out.s = t.s;
  out.method = t.method;
  out.columns = t.columns;
  const index_t r = t.rank();
  // U (m, r) and Vt (r, n) in A's order: columns of U and rows of Vt are what the buffers hold
  out.U = make_array<T>(context, A.rows, r, A.order);
  out.Vt = make_array<T>(context, r, A.cols, A.order);
  if (column_major) {
    la.copy(left, columns_of(out.U.view()));
    la.transpose(right, columns_of(out.Vt.view()));
  } else {
    la.transpose(left, columns_of(out.U.view()));
    la.copy(right, columns_of(out.Vt.view()));
  }
  return out;
}

template <class T>
Svd<T> svd(const Context& context, const Operator<T>& A, const SvdParams& params) {
  auto& la = linalg::of<T>(context.backend());
  check_params<T>(params, true);
  if (A.rows() < 1 || A.cols() < 1) {
    throw InvalidArgument("A", "must not be empty, has shape " + shape_text(A.rows(), A.cols()));
  }
  if (params.method == Method::exact || params.method == Method::gram) {
    throw InvalidArgument("method", "an operator is served by krylov and quick, not by methods that need its entries");
  }
  if (params.rank == 0 && params.frobenius_tol == 0) {
    throw InvalidArgument("rank", "must be given for an operator, unless frobenius_tol is");
  }
  const index_t k = std::min(A.rows(), A.cols());
  const bool quick = params.method == Method::quick;
  const auto threads = context.backend().thread_scope(k);
  const OperatorMap<T> map(context, A);
  KrylovParams p;
  p.rank = params.rank > 0 ? std::min(params.rank, k) : k;
  p.tol = params.tol;
  p.frobenius_tol = params.frobenius_tol;
  if (p.frobenius_tol > 0) p.squared_norm = squared_norm<T>(context, map);
  p.seed = params.seed;
  p.stop_at_limit = quick;
  if (quick) p.widest = p.rank + params.oversampling;
  p.max_columns = quick                    ? (params.iterations + 1) * (p.rank + params.oversampling)
                  : params.max_columns > 0 ? params.max_columns
                                           : 10 * k + 64;
  KrylovTriplets<T> t = krylov<T>(context, map, p);
  if (!quick && !t.converged) throw_not_converged(t.residual, params.tol, t.columns, kReach<T>);
  if (params.signs == SvdParams::Signs::left) {
    fix_signs(la, t.U, t.V);
  } else {
    fix_signs(la, t.V, t.U);
  }
  Svd<T> out;
  out.s = std::move(t.s);
  for (auto& v : out.s) v /= map.scale();
  out.residual = t.residual;
  out.method = quick ? "quick" : "krylov";
  out.columns = t.columns;
  const index_t r = static_cast<index_t>(out.s.size());
  out.U = make_array<T>(context, A.rows(), r);
  out.Vt = make_array<T>(context, r, A.cols());
  la.transpose(t.U, columns_of(out.U.view()));
  la.copy(t.V, columns_of(out.Vt.view()));
  return out;
}

template <class T>
WhitenedSvd<T> whitened_svd(const Context& context, MatrixView<const T> W, MatrixView<const double> R, index_t rank) {
  auto& backend = context.backend();
  auto& la = backend.full();
  const double magnitude = check_matrix(backend, "W", W);
  check_square("R", R.rows, R.cols, W.cols);
  const index_t n = W.rows, k = std::min(n, W.cols);
  if (rank < 0 || rank > k) {
    throw InvalidArgument("rank", "must be between 1 and " + std::to_string(k) + ", is " + std::to_string(rank));
  }
  const index_t r = rank > 0 ? rank : k;
  const auto threads = backend.thread_scope(std::max(n, W.cols));
  const Buffer<double> S = symmetric_copy(backend, "R", R);
  check_magnitude("W", magnitude);
  const Buffer<double> Wd = to_double<T>(backend, columns_of(W));

  // W R W^T = U diag(s^2) U^T. A tall W = Q F, Q^T Q = I, has U = Q Z with F R F^T = Z diag(s^2) Z^T of the small side:
  // from 8/7 of a square on, the factorization costs less than the larger eigenproblem. W may have any rank.
  const index_t m = W.cols;
  const bool tall = 7 * n > 8 * m;
  Buffer<double> Q, F;
  if (tall) {
    Q = Buffer<double>(la, n, m);
    if (op_of(W) == Op::none) {
      la.copy(Wd, Q);
    } else {
      la.transpose(Wd, Q);
    }
    la.orthonormalize(Q);
    F = Buffer<double>(la, m, m);
    la.multiply(Op::transpose, op_of(W), 1.0, Q, Wd, 0.0, F);
    context.check_interrupt();
  }
  Buffer<double> C = second_moment(context, "R", tall ? F : Wd, tall ? Op::none : op_of(W), S);
  std::vector<double> w(static_cast<std::size_t>(C.rows()));
  Buffer<double> Z(la, C.rows(), r);
  la.eigen_symmetric_leading(C, r, w.data(), Z);
  Buffer<double> U;
  if (tall) {
    U = Buffer<double>(la, n, r);
    la.multiply(Op::none, Op::none, 1.0, Q, Z, 0.0, U);
  } else {
    U = std::move(Z);
  }
  check_semidefinite("R", {w.rbegin(), w.rend()});
  WhitenedSvd<T> out;
  for (index_t i = 0; i < k; ++i) out.s.push_back(std::sqrt(std::max(w[static_cast<std::size_t>(i)], 0.0)));
  double tail = 0;
  for (index_t i = k; i-- > r;) tail += out.s[static_cast<std::size_t>(i)] * out.s[static_cast<std::size_t>(i)];
  out.error = std::sqrt(tail);

  la.scale_columns(U, column_signs<double>(la, U).data());
  // rows of the row-major results are columns here: U^T (r x n) and (U^T W)^T = W^T U (m x r)
  Buffer<double> Ut(la, r, n), projected(la, W.cols, r);
  la.transpose(U, Ut);
  la.multiply(flip(op_of(W)), Op::none, 1.0, Wd, U, 0.0, projected);
  out.U = row_major_array<T>(context, Ut);
  out.projected = row_major_array<T>(context, projected);
  return out;
}

#define BROCKETT_INSTANTIATE(T)                                               \
  template Svd<T> svd(const Context&, MatrixView<const T>, const SvdParams&); \
  template Svd<T> svd(const Context&, const Operator<T>&, const SvdParams&);  \
  template WhitenedSvd<T> whitened_svd(const Context&, MatrixView<const T>, MatrixView<const double>, index_t);
BROCKETT_INSTANTIATE(float)
BROCKETT_INSTANTIATE(double)

}  // namespace brockett
