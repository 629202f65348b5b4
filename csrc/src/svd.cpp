#include "brockett/svd.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "check.hpp"
#include "gram.hpp"
#include "linalg/buffer.hpp"
#include "linalg/linalg.hpp"
#include "scaled_copy.hpp"
#include "signs.hpp"

namespace brockett {

using linalg::Buffer;
using linalg::LinAlg;
using linalg::Mat;
using linalg::Op;

namespace {

using Method = SvdParams::Method;

// below this fraction of s_1 the vectors M v / s of the Gram matrix's v are orthogonal to less than 2e-8
constexpr double kOrthogonalGram = 1e-4;

/// A decomposition M = U diag(s) V^T of a column-major M (p x q), V (q x r) in columns.
template <class T>
struct Triplets {
  Buffer<T> U, V;
  std::vector<double> s;
  std::string method;
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

  /// Randomized subspace iteration (Halko, Martinsson, Tropp 2011, algorithm 4.4), every half step re-orthonormalized.
  Triplets<T> quick() {
    const index_t l = std::min(k_, cap_ + std::max<index_t>(params_.oversampling, 0));
    const index_t rows = op_a_ == Op::none ? M_.rows : M_.cols, cols = op_a_ == Op::none ? M_.cols : M_.rows;
    Buffer<T> Y(la_, rows, l), Z(la_, cols, l);
    la_.normals(Z, params_.seed);  // by the shape of A, not of its storage: the same numbers for either order
    product(Z, Y);
    la_.orthonormalize(Y);
    for (int i = 0; i < params_.iterations; ++i) {
      context_.check_interrupt();
      product_transposed(Y, Z);
      la_.orthonormalize(Z);
      product(Z, Y);
      la_.orthonormalize(Y);
    }
    // A ~ Y (Y^T A): B^T = A^T Y = Vb diag(s) Ub^T
    product_transposed(Y, Z);
    Buffer<T> Vb(la_, cols, l), Ubt(la_, l, l);
    std::vector<T> s(static_cast<std::size_t>(l));
    la_.svd_thin(Z, s.data(), Vb, Ubt);
    Buffer<T> left(la_, rows, cap_), right(la_, cols, cap_);
    la_.multiply(Op::none, Op::transpose, T(1), Y, Ubt.mat().block(0, 0, cap_, l), T(0), left);
    la_.copy(Vb.mat().columns(0, cap_), right);
    Triplets<T> out;
    out.method = "quick";
    out.s.assign(s.begin(), s.begin() + cap_);
    out.U = op_a_ == Op::none ? std::move(left) : std::move(right);
    out.V = op_a_ == Op::none ? std::move(right) : std::move(left);
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
  void product(const Buffer<T>& X, Buffer<T>& Y) {  // Y <- A X
    la_.multiply(op_a_, Op::none, T(1), M_, X, T(0), Y);
  }
  void product_transposed(const Buffer<T>& X, Buffer<T>& Y) {  // Y <- A^T X
    la_.multiply(flip(op_a_), Op::none, T(1), M_, X, T(0), Y);
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

template <class T>
Triplets<T> solve(const Context& context, Mat<const T> M, Op op_a, const SvdParams& params, double& residual) {
  Solver<T> solver(context, M, op_a, params);
  Method method = params.method;
  const index_t aspect = std::max(M.rows, M.cols) / solver.k();
  if (method == Method::automatic) {
    // float32 only: the float64 Gram matrix resolves all that float32 data hold down to 1e-4 s_1. It costs less than
    // gesdd where the matrix is far from square or part of the spectrum is enough.
    const bool gram_pays = std::is_same_v<T, float> && (solver.cap() < solver.k() || aspect >= 2);
    if (gram_pays) {
      Triplets<T> t = solver.gram();
      residual = solver.residual(t);
      if (residual <= params.tol && t.s.back() >= kOrthogonalGram * t.s.front()) return t;
      context.check_interrupt();
    }
    method = Method::exact;
  }
  Triplets<T> t = method == Method::exact ? solver.exact() : method == Method::gram ? solver.gram() : solver.quick();
  residual = solver.residual(t);
  return t;
}

void check_params(const SvdParams& p) {
  if (p.rank < 0) throw InvalidArgument("rank", "must be at least 1, is " + std::to_string(p.rank));
  if (!(p.tol >= 0)) throw InvalidArgument("tol", "must be >= 0, is " + std::to_string(p.tol));
  if (!(p.frobenius_tol >= 0) || p.frobenius_tol >= 1) {
    throw InvalidArgument("frobenius_tol", "must be in [0, 1), is " + std::to_string(p.frobenius_tol));
  }
  if (p.method == Method::quick && p.frobenius_tol > 0) {
    throw InvalidArgument("frobenius_tol", "needs all singular values; method \"quick\" does not compute them");
  }
  if (p.iterations < 0) throw InvalidArgument("iterations", "must be >= 0, is " + std::to_string(p.iterations));
  if (p.oversampling < 0) throw InvalidArgument("oversampling", "must be >= 0, is " + std::to_string(p.oversampling));
}

/// The matrix itself, or an exactly scaled copy when its magnitude is extreme.
template <class T>
struct Scaled {
  Mat<const T> M;
  double scale = 1;
  Buffer<T> copy;
};
template <class T>
Scaled<T> scaled(linalg::Backend& backend, Mat<const T> M) {
  auto& la = linalg::of<T>(backend);
  Scaled<T> out{M, safe_scale<T>(la.max_abs(M)), {}};
  if (out.scale != 1) {
    out.copy = Buffer<T>(la, M.rows, M.cols);
    la.copy(M, out.copy);
    scale_exactly(la, out.scale, out.copy.mat());
    out.M = out.copy;
  }
  return out;
}

}  // namespace

template <class T>
Svd<T> svd(const Context& context, MatrixView<const T> A, const SvdParams& params) {
  auto& backend = context.backend();
  auto& la = linalg::of<T>(backend);
  check_params(params);
  check_matrix(backend, "A", A);
  const Mat<const T> M = columns_of(A);
  const auto threads = backend.thread_scope(std::min(M.rows, M.cols));
  const Scaled<T> safe = scaled<T>(backend, M);

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
SingularValues singular_values(const Context& context, MatrixView<const T> A, const SingularValuesParams& params) {
  auto& backend = context.backend();
  check_matrix(backend, "A", A);
  const Mat<const T> M = columns_of(A);
  const index_t k = std::min(M.rows, M.cols), longest = std::max(M.rows, M.cols);
  const auto threads = backend.thread_scope(k);
  const Scaled<T> safe = scaled<T>(backend, M);
  constexpr bool single = std::is_same_v<T, float>;
  constexpr double eps = std::numeric_limits<double>::epsilon();

  using M2 = SingularValuesParams::Method;
  SingularValues out;
  if (params.method == M2::gram || (params.method == M2::automatic && (single || longest >= 2 * k))) {
    auto& ld = backend.full();
    Buffer<double> G = gram_matrix(context, safe.M, M.rows >= M.cols ? Op::transpose : Op::none);
    std::vector<double> w(static_cast<std::size_t>(k));
    context.check_interrupt();
    ld.eigen_symmetric(G, w.data(), false);
    out.values.resize(w.size());
    std::transform(w.rbegin(), w.rend(), out.values.begin(), [](double v) { return std::sqrt(std::max(v, 0.0)); });
    out.method = "gram";
    // rounding of the sums and of the eigensolver, both relative to s_1^2
    out.bound = 4 * eps * std::sqrt(static_cast<double>(longest));
    const double resolution = 1e-7 * out.values[0];
    out.n_resolved = static_cast<index_t>(
        std::count_if(out.values.begin(), out.values.end(), [&](double v) { return v > 0 && v >= resolution; }));
    // double data: squares lose (s_1 / s)^2 eps; beyond 1e-12 they are not good enough
    const bool enough = single || params.method == M2::gram || out.values.back() >= 1e-2 * out.values[0];
    if (!enough) out = {};
  }
  if (out.values.empty()) {
    auto& la = linalg::of<T>(backend);
    Buffer<T> work(la, longest, k);
    if (M.rows >= M.cols) {
      la.copy(safe.M, work);
    } else {
      la.transpose(safe.M, work);
    }
    context.check_interrupt();
    std::vector<T> s(static_cast<std::size_t>(k));
    if (longest > k) {
      la.qr_factor(work);
      Buffer<T> R(la, k, k);
      la.copy(work.mat().block(0, 0, k, k), R);
      context.check_interrupt();
      la.svd_thin(R, s.data(), {}, {});
    } else {
      la.svd_thin(work, s.data(), {}, {});
    }
    out.values.assign(s.begin(), s.end());
    out.method = "qr+gesdd";
    out.bound = 4 * static_cast<double>(std::numeric_limits<T>::epsilon()) * std::sqrt(static_cast<double>(longest));
    const double resolution = static_cast<double>(k) * static_cast<double>(std::numeric_limits<T>::epsilon()) * s[0];
    out.n_resolved = static_cast<index_t>(
        std::count_if(out.values.begin(), out.values.end(), [&](double v) { return v > resolution; }));
  }
  for (auto& v : out.values) v /= safe.scale;
  return out;
}

template <class T>
WhitenedSvd<T> whitened_svd(const Context& context, MatrixView<const T> W, MatrixView<const double> R, index_t rank) {
  auto& backend = context.backend();
  auto& la = backend.full();
  check_matrix(backend, "W", W);
  check_square("R", R.rows, R.cols, W.cols);
  const index_t n = W.rows, k = std::min(n, W.cols);
  if (rank < 0 || rank > k) {
    throw InvalidArgument("rank", "must be between 1 and " + std::to_string(k) + ", is " + std::to_string(rank));
  }
  const index_t r = rank > 0 ? rank : k;
  const auto threads = backend.thread_scope(std::max(n, W.cols));
  const Buffer<double> S = symmetric_copy(backend, "R", R);
  check_magnitude("W", linalg::of<T>(backend).max_abs(columns_of(W)));
  const Buffer<double> Wd = to_double<T>(backend, columns_of(W));
  Buffer<double> C = second_moment(context, "R", Wd, op_of(W), S);

  // W R W^T = U diag(s^2) U^T
  std::vector<double> w(static_cast<std::size_t>(n));
  la.eigen_symmetric(C, w.data(), true);
  check_semidefinite("R", w);
  WhitenedSvd<T> out;
  for (index_t i = 0; i < k; ++i) out.s.push_back(std::sqrt(std::max(w[static_cast<std::size_t>(n - 1 - i)], 0.0)));
  double tail = 0;
  for (index_t i = k; i-- > r;) tail += out.s[static_cast<std::size_t>(i)] * out.s[static_cast<std::size_t>(i)];
  out.error = std::sqrt(tail);

  Buffer<double> U(la, n, r);
  for (index_t i = 0; i < r; ++i) la.copy(C.mat().columns(n - 1 - i, 1), U.mat().columns(i, 1));
  la.scale_columns(U, column_signs<double>(la, U).data());
  // rows of the row-major results are columns here: U^T (r x n) and (U^T W)^T = W^T U (m x r)
  Buffer<double> Ut(la, r, n), projected(la, W.cols, r);
  la.transpose(U, Ut);
  la.multiply(flip(op_of(W)), Op::none, 1.0, Wd, U, 0.0, projected);
  out.U = row_major_array<T>(context, Ut);
  out.projected = row_major_array<T>(context, projected);
  return out;
}

#define BROCKETT_INSTANTIATE(T)                                                                              \
  template Svd<T> svd(const Context&, MatrixView<const T>, const SvdParams&);                                \
  template SingularValues singular_values(const Context&, MatrixView<const T>, const SingularValuesParams&); \
  template WhitenedSvd<T> whitened_svd(const Context&, MatrixView<const T>, MatrixView<const double>, index_t);
BROCKETT_INSTANTIATE(float)
BROCKETT_INSTANTIATE(double)

}  // namespace brockett
