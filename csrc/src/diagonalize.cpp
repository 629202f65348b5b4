#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "brockett/descramble.hpp"
#include "check.hpp"
#include "scaled_copy.hpp"

namespace brockett {

using linalg::Buffer;
using linalg::Mat;
using linalg::Op;

namespace {

using Criterion = DiagonalizeParams::Criterion;

class Diagonalizer {
 public:
  // B (n x n): row j is column j of W, cut or padded with zeros; tr(P W) = tr(P B^T)
  Diagonalizer(const Context& context, const Buffer<double>& B, bool special)
      : context_(context), la_(context.backend().full()), B_(B), n_(B.rows()), special_(special) {}

  /// P <- the orthogonal matrix of largest tr(P M^T): the polar factor of M; in the null space of M the choice nearest
  /// to the identity. Returns the singular values of M.
  std::vector<double> polar(const Buffer<double>& M, Buffer<double>& P) {
    Buffer<double> work(la_, n_, n_), X(la_, n_, n_), Yt(la_, n_, n_);
    la_.copy(M, work);
    std::vector<double> s(static_cast<std::size_t>(n_));
    la_.svd_thin(work, s.data(), X, Yt);
    const double floor = static_cast<double>(n_) * std::numeric_limits<double>::epsilon() * s[0];
    index_t r = 0;
    while (r < n_ && s[static_cast<std::size_t>(r)] > floor) ++r;
    if (r < n_) align_null_space(X.mat().columns(r, n_ - r), Yt.mat().block(r, 0, n_ - r, n_));
    la_.multiply(Op::none, Op::none, 1.0, X, Yt, 0.0, P);
    if (special_) {
      la_.copy(P, work);
      if (la_.determinant_sign(work) < 0) {  // P - 2 x_n y_n^T costs 2 s_n, the least
        la_.multiply(Op::none, Op::none, -2.0, X.mat().columns(n_ - 1, 1), Yt.mat().block(n_ - 1, 0, 1, n_), 1.0, P);
      }
    }
    return s;
  }

  /// Diagonal of P W over the first `count` entries: d_i = sum_k P_ik W_ki = row i of P times row i of B.
  std::vector<double> diagonal(const Buffer<double>& P, index_t count) {
    Buffer<double> Pt(la_, n_, n_), Bt(la_, n_, n_);
    la_.transpose(P, Pt);
    la_.transpose(B_, Bt);
    std::vector<double> d(static_cast<std::size_t>(n_));
    la_.column_dots(Pt, Bt, d.data());
    d.resize(static_cast<std::size_t>(count));
    return d;
  }

  /// P <- polar(diag(d) B), d = diag(P W), until the gain is below tol; each step cannot lower sum d_i^2, since that is
  /// convex in P and the step maximises its linearization.
  int iterate(Buffer<double>& P, index_t count, int max_iterations, double tol, bool& converged) {
    double value = sum_of_squares(diagonal(P, count));
    converged = false;
    int i = 0;
    for (; i < max_iterations && !converged; ++i) {
      context_.check_interrupt();
      std::vector<double> d = diagonal(P, count);
      double largest = 0;
      for (const double v : d) largest = std::max(largest, std::abs(v));
      // a zero stays zero: a stationary point, but no maximum
      for (auto& v : d) v = v == 0 ? (largest > 0 ? 1e-3 * largest : 1.0) : v;
      d.resize(static_cast<std::size_t>(n_));
      Buffer<double> M(la_, n_, n_), next(la_, n_, n_);
      la_.copy(B_, M);
      la_.scale_rows(M, d.data());
      polar(M, next);
      const double gained = sum_of_squares(diagonal(next, count));
      converged = gained - value <= tol * std::abs(value);
      if (gained >= value) {
        P = std::move(next);
        value = gained;
      }
    }
    return i;
  }

  static double sum_of_squares(const std::vector<double>& d) {
    return std::inner_product(d.begin(), d.end(), d.begin(), 0.0);
  }

 private:
  // Of all X_0 H Y_0^T the nearest to the identity has H = polar(X_0^T Y_0) = A B^T: X_0 <- X_0 A, Y_0 <- Y_0 B. The last
  // pair of columns is then the one whose reversal costs least.
  void align_null_space(Mat<double> X0, Mat<double> Y0t) {
    const index_t d = X0.cols;
    Buffer<double> K(la_, d, d), A(la_, d, d), Bt(la_, d, d), X(la_, n_, d), Yt(la_, d, n_);
    la_.multiply(Op::transpose, Op::transpose, 1.0, X0, Y0t, 0.0, K);
    std::vector<double> s(static_cast<std::size_t>(d));
    la_.svd_thin(K, s.data(), A, Bt);
    la_.multiply(Op::none, Op::none, 1.0, X0, A, 0.0, X);
    la_.multiply(Op::none, Op::none, 1.0, Bt, Y0t, 0.0, Yt);
    la_.copy(X, X0);
    la_.copy(Yt, Y0t);
  }

  const Context& context_;
  linalg::LinAlg<double>& la_;
  const Buffer<double>& B_;
  index_t n_;
  bool special_;
};

}  // namespace

template <class T>
Diagonalization<T> diagonalize(const Context& context, MatrixView<const T> W, const DiagonalizeParams& params) {
  auto& backend = context.backend();
  auto& la = backend.full();
  check_matrix(backend, "W", W);
  if (params.max_iterations < 0) throw InvalidArgument("max_iterations", "must be >= 0");
  if (!(params.tol >= 0)) throw InvalidArgument("tol", "must be >= 0, is " + std::to_string(params.tol));
  const index_t n = W.rows, count = std::min(n, W.cols);
  const auto threads = backend.thread_scope(n);
  const bool special = params.group == DiagonalizeParams::Group::special_orthogonal;

  // W at a scale where squares are safe; P does not depend on it
  Buffer<double> Wd = to_double<T>(backend, columns_of(W));
  const double magnitude = la.max_abs(Wd), scale = safe_scale<double>(magnitude);
  if (params.criterion == Criterion::square) check_magnitude("W", magnitude);
  scale_exactly(la, scale, Wd.mat());
  Buffer<double> B(la, n, n);
  la.fill(B, 0.0);
  if (W.order == Order::row_major) {  // the memory is W^T: rows of it are columns of W
    la.copy(Wd.mat().block(0, 0, count, n), B.mat().block(0, 0, count, n));
  } else {
    la.transpose(Wd.mat().columns(0, count), B.mat().block(0, 0, count, n));
  }

  Diagonalizer solver(context, B, special);
  Buffer<double> P(la, n, n);
  const std::vector<double> s = solver.polar(B, P);
  Diagonalization<T> out;
  if (params.criterion == Criterion::sum) {
    out.bound = std::accumulate(s.begin(), s.end(), 0.0) / scale;
  } else {
    const double norm = la.norm(B) / scale;
    out.bound = norm * norm;
    out.iterations = solver.iterate(P, count, params.max_iterations, params.tol, out.converged);
    if (!special) {
      std::vector<double> sign = solver.diagonal(P, count);
      sign.resize(static_cast<std::size_t>(n));
      for (auto& v : sign) v = v < 0 ? -1 : 1;
      la.scale_rows(P, sign.data());
    }
  }

  if (!std::isfinite(out.bound)) throw InvalidArgument("W", "its criterion overflows float64; rescale the weights");

  Buffer<double> Pt(la, n, n);
  la.transpose(P, Pt);
  out.P = row_major_array<T>(context, Pt);
  la.convert_from(dtype_of<T>(), out.P.data(), n, Pt);
  la.transpose(Pt, P);
  for (const double v : solver.diagonal(P, count)) {
    out.value += params.criterion == Criterion::sum ? v / scale : (v / scale) * (v / scale);
  }
  auto& lt = linalg::of<T>(backend);
  out.weights = make_array<T>(context, n, W.cols);
  lt.multiply(flip(op_of(W)), Op::none, T(1), columns_of(W), columns_of(MatrixView<const T>(out.P.view())), T(0),
              columns_of(out.weights.view()));
  check_weights_finite(context, MatrixView<const T>(out.weights.view()));
  return out;
}

#define BROCKETT_INSTANTIATE(T) \
  template Diagonalization<T> diagonalize(const Context&, MatrixView<const T>, const DiagonalizeParams&);
BROCKETT_INSTANTIATE(float)
BROCKETT_INSTANTIATE(double)

}  // namespace brockett
