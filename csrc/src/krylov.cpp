#include "krylov.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "check.hpp"

namespace brockett {

using linalg::Buffer;
using linalg::LinAlg;
using linalg::Mat;
using linalg::Op;

namespace {

std::size_t at(index_t i) { return static_cast<std::size_t>(i); }

// Cholesky factors with smaller pivots are not trusted: Q would lose more than half of float64's digits.
constexpr double kCholeskyPivot = 1e-6;
// A block that lost more than this share to the basis, or to its own other columns, is orthogonalized once more.
constexpr double kCancelled = 0.02;
// A block whose columns depend on each other more than this after they were made orthonormal is projected once more: what
// it loses adds up over the blocks, and in float the last ones of a basis that spans everything would be noise.
constexpr double kIndependent = 0.3;
// Passes that end in a block orthogonal to the basis whatever it was; three were the most that were seen.
constexpr int kPasses = 8;
// A restart keeps a quarter more vectors than are wanted, and three times as many fit in before the next.
constexpr index_t kDepth = 3;

// What rounding leaves of a singular value that is 0, over sigma_1: of products in float; of the eigenvalues of H, which
// are its square, in double.
template <class T>
constexpr double kUnresolved = std::is_same_v<T, float> ? 2e-6 : 1e-7;

// Residuals below this may be rounding that refinement takes out.
template <class T>
constexpr double kStagnation = 400 * static_cast<double>(std::numeric_limits<T>::epsilon());

/// One Cholesky step on columns of unit length; the smallest pivot, or 0 where it failed and A is as it was.
double cholesky_step(LinAlg<double>& la, Mat<double> A) {
  const index_t r = A.cols;
  std::vector<double> norms(at(r));
  la.column_dots(A, A, norms.data());
  for (auto& v : norms) {
    v = std::sqrt(v);
    if (!(v >= std::numeric_limits<double>::min()) || !std::isfinite(v)) return 0;
  }
  Buffer<double> G(la, r, r);
  la.accumulate_outer(Op::transpose, 1.0, A, 0.0, G);
  std::vector<double> inverse(norms);
  for (auto& v : inverse) v = 1 / v;
  la.scale_columns(G, inverse.data());
  la.scale_rows(G, inverse.data());
  if (la.cholesky(G) != 0) return 0;
  std::vector<double> L(at(r * r));
  la.download(G, L.data());
  double pivot = 1;
  for (index_t i = 0; i < r; ++i) pivot = std::min(pivot, L[at(i + i * r)]);
  if (!(pivot >= kCholeskyPivot)) return 0;
  la.scale_columns(A, inverse.data());
  la.triangular_solve(linalg::Side::right, Op::transpose, G, A);
  return pivot;
}

template <class T>
Buffer<T> cast(const Context& context, Mat<const double> A) {
  Buffer<T> out(linalg::of<T>(context.backend()), A.rows, A.cols);
  context.backend().full().convert_to(A, dtype_of<T>(), out.data(), A.rows);
  return out;
}

/// Numbers of the i-th refill of a stream; the stream itself starts the iteration.
std::uint64_t refill_seed(std::uint64_t seed, std::uint64_t count) { return seed + 0x9E3779B97F4A7C15ULL * count; }

}  // namespace

double orthonormalize_columns(LinAlg<double>& la, Mat<double> A) {
  if (A.empty()) return 1;
  const double pivot = cholesky_step(la, A);
  if (pivot == 0) {
    la.orthonormalize(A);
    return 0;
  }
  cholesky_step(la, A);
  return pivot;
}

index_t krylov_width(bool on_device, index_t rank) {
  // A narrow block gets further with the same number of columns: 640, 750 and 930 columns for 128 triplets to 1e-6 with
  // blocks of 8, 16 and 32 (4096 x 4096, heavy tail). What a column costs decides: on a host 8 and 16 columns take as
  // long in all (81 and 47 steps of 8.1 and 13.2 ms), 32 take 15 % more; a device needs 64 to be busy.
  if (on_device) return 64;
  return rank <= 32 ? 8 : 16;
}

index_t krylov_depth(index_t rank, index_t width, index_t n) {
  const index_t depth = kDepth * rank + 8 * width;
  return depth >= n - n / 8 ? n : depth;
}

namespace {

/// Block Lanczos on op(M)^T op(M), op(M) being the tall reading (m x n, m >= n) of M: V (n x d) orthonormal and
/// H = V^T op(M)^T op(M) V, all of whose entries are computed, not assumed from the recurrence: so V may be extended by
/// anything orthogonal to it, the next Krylov block or a random one.
template <class T>
class Lanczos {
 public:
  Lanczos(const Context& context, const LinearMap<T>& map, Op op, const KrylovParams& params, index_t width)
      : context_(context),
        la_(linalg::of<T>(context.backend())),
        ld_(context.backend().full()),
        map_(map),
        op_(op),
        params_(params),
        m_(op == Op::none ? map.rows() : map.cols()),
        n_(op == Op::none ? map.cols() : map.rows()) {
    width_ = std::min(width, n_);
    reserve(krylov_depth(params.rank, width_, n_), width_);
    la_.normals(V_.mat().columns(0, width_), params.seed);
    Buffer<double> start = to_double<T>(context.backend(), V_.mat().columns(0, width_));
    orthonormalize_columns(ld_, start);
    ld_.convert_to(start, dtype_of<T>(), V_.data(), n_);
  }

  index_t size() const { return d_; }
  index_t width() const { return width_; }  // of the block to come; 0: V spans everything
  index_t columns() const { return columns_; }
  index_t capacity() const { return capacity_; }
  index_t n() const { return n_; }
  Op op() const { return op_; }

  /// Room for `depth` vectors and a block of `width` after them.
  void reserve(index_t depth, index_t width) {
    depth = std::max(std::min(depth, n_), capacity_);
    if (depth == capacity_ && V_.cols() >= depth + width) return;
    Buffer<T> V(la_, n_, depth + width);
    if (V_.data()) la_.copy(V_.mat().columns(0, d_ + width_), V.mat().columns(0, d_ + width_));
    std::vector<double> H(at(depth * depth));
    for (index_t j = 0; j < d_; ++j) std::copy_n(&H_[at(j * capacity_)], d_, &H[at(j * depth)]);
    V_ = std::move(V);
    H_ = std::move(H);
    capacity_ = depth;
  }

  /// One block through M and back: H grows by width() columns, V gets the next block.
  void expand() {
    const index_t w = width_, known = d_ + w;
    const Mat<T> block = V_.mat().columns(d_, w);
    Buffer<T> Y(la_, m_, w), W(la_, n_, w);
    map_.there_and_back(op_, block, Y, W);
    columns_ += w;
    // the blocks that the recurrence names first, then all: what is left of the others is rounding
    std::vector<double> h(at(known * w));
    project(d_ > restarted_ ? d_ - previous_ : 0, known, W, h);
    const std::vector<double> before = norms(W);
    project(0, known, W, h);
    for (index_t j = 0; j < w; ++j) {
      for (index_t i = 0; i < known; ++i) {
        double v = h[at(i + j * known)];
        if (i >= d_) v = 0.5 * (v + h[at(d_ + j + (i - d_) * known)]);  // within the block both triangles are computed
        H_[at(i + (d_ + j) * capacity_)] = H_[at(d_ + j + i * capacity_)] = v;
      }
    }
    previous_ = w;
    d_ = known;
    next_block(W, before);
  }

  struct Ritz {
    std::vector<double> sigma;  // descending
    std::vector<double> residual;  // ||op(M)^T u - sigma v|| / sigma_1
    Buffer<double> Q;  // H Q = Q diag(sigma^2)
  };

  /// The `count` largest Ritz values, and how far they are from being singular values.
  Ritz ritz(index_t count) {
    count = std::min(count, d_);
    Ritz out;
    Buffer<double> H(ld_, d_, d_);
    std::vector<double> packed(at(d_ * d_));
    for (index_t j = 0; j < d_; ++j) std::copy_n(&H_[at(j * capacity_)], d_, &packed[at(j * d_)]);
    ld_.upload(packed.data(), H);
    out.Q = Buffer<double>(ld_, d_, count);
    out.sigma.resize(at(count));
    ld_.eigen_symmetric_largest(H, count, out.sigma.data(), out.Q);
    for (auto& v : out.sigma) v = std::sqrt(std::max(v, 0.0));
    // op(M)^T op(M) V q - theta V q = W q_last, W the part of the last block's image outside V
    const index_t w = previous_;
    std::vector<double> last(at(w * count));
    ld_.download(out.Q.mat().block(d_ - w, 0, w, count), last.data());
    const double largest = out.sigma[0];
    for (index_t j = 0; j < count; ++j) {
      double square = 0;
      for (index_t a = 0; a < w; ++a) {
        for (index_t b = 0; b < w; ++b) square += last[at(a + j * w)] * outside_[at(a + b * w)] * last[at(b + j * w)];
      }
      const double s = out.sigma[at(j)];
      const bool resolved = s > kUnresolved<T> * largest;
      out.residual.push_back(resolved ? std::sqrt(std::max(square, 0.0)) / (s * largest) : 0);
    }
    return out;
  }

  /// V <- [V Q, the block to come]
  void restart(const Ritz& ritz, index_t keep) {
    const Buffer<T> Q = cast<T>(context_, ritz.Q.mat().columns(0, keep));
    Buffer<T> kept(la_, n_, keep), next(la_, n_, width_);
    la_.multiply(Op::none, Op::none, T(1), V_.mat().columns(0, d_), Q, T(0), kept);
    la_.copy(V_.mat().columns(d_, width_), next);
    // rounding adds up over restarts: 6e-6 off orthogonality after sixty of them in float
    Buffer<double> straight = to_double<T>(context_.backend(), kept);
    orthonormalize_columns(ld_, straight);
    ld_.convert_to(straight, dtype_of<T>(), V_.data(), n_);
    la_.copy(next, V_.mat().columns(keep, width_));
    std::fill(H_.begin(), H_.end(), 0.0);
    for (index_t i = 0; i < keep; ++i) H_[at(i + i * capacity_)] = ritz.sigma[at(i)] * ritz.sigma[at(i)];
    d_ = restarted_ = keep;
  }

  /// The block to come gets as many random columns again: a block of b finds at most b of equal singular values.
  void widen() {
    const index_t extra = std::min(width_, n_ - d_ - width_);
    if (extra <= 0) return;
    const index_t w = width_ + extra;
    reserve(d_ + 4 * w, w);
    const Mat<T> fresh = V_.mat().columns(d_ + width_, extra);
    la_.normals(fresh, refill_seed(params_.seed, ++refills_));
    Buffer<T> W(la_, n_, extra);
    la_.copy(fresh, W);
    normalize(W, d_ + width_, true);
    la_.copy(W, fresh);
    width_ = w;
  }

  /// V Q (n x r) in float64, orthonormal.
  Buffer<double> vectors(const Ritz& ritz, index_t r) {
    const Buffer<T> Q = cast<T>(context_, ritz.Q.mat().columns(0, r));
    Buffer<T> X(la_, n_, r);
    la_.multiply(Op::none, Op::none, T(1), V_.mat().columns(0, d_), Q, T(0), X);
    Buffer<double> out = to_double<T>(context_.backend(), X);
    orthonormalize_columns(ld_, out);
    return out;
  }

 private:
  std::vector<double> norms(Mat<const T> W) {
    std::vector<double> out(at(W.cols));
    la_.column_dots(W, W, out.data());
    for (auto& v : out) v = std::sqrt(v);
    return out;
  }

  /// W <- W - V V^T W over columns first … last of V; the coefficients are added to h (last x w).
  void project(index_t first, index_t last, Mat<T> W, std::vector<double>& h) {
    const index_t count = last - first, w = W.cols;
    const Mat<const T> V = V_.mat().columns(first, count);
    Buffer<T> C(la_, count, w);
    la_.multiply(Op::transpose, Op::none, T(1), V, W, T(0), C);
    la_.multiply(Op::none, Op::none, T(-1), V, C, T(1), W);
    if (h.empty()) return;
    std::vector<T> host(at(count * w));
    la_.download(C, host.data());
    for (index_t j = 0; j < w; ++j) {
      for (index_t i = 0; i < count; ++i) h[at(first + i + j * last)] += static_cast<double>(host[at(i + j * count)]);
    }
  }

  /// W (n x w), already projected, <- an orthonormal basis of its range, orthogonal to the first `known` columns of V.
  void normalize(Mat<T> W, index_t known, bool again) {
    std::vector<double> unused;
    for (int pass = 0;; ++pass) {
      if (pass > 0) {  // unit columns were projected: those that hardly anything is left of are noise, in V's span too
        for (const double length : norms(W)) again = again || length < kIndependent;
      }
      Buffer<double> Wd = to_double<T>(context_.backend(), W);
      const double pivot = orthonormalize_columns(ld_, Wd);
      ld_.convert_to(Wd, dtype_of<T>(), W.data, W.ld);
      if ((pivot >= kIndependent && !again) || pass == kPasses) return;
      project(0, known, W, unused);
      again = false;
    }
  }

  /// V's next block from W = (I - V V^T) op(M)^T op(M) V_j, whose norms were `before` the last projection.
  void next_block(Buffer<T>& W, const std::vector<double>& before) {
    const index_t w = W.cols();
    outside_.assign(at(w * w), 0.0);
    {
      Buffer<double> Wd = to_double<T>(context_.backend(), W), G(ld_, w, w);
      ld_.accumulate_outer(Op::transpose, 1.0, Wd, 0.0, G);
      ld_.mirror_lower(G);
      ld_.download(G, outside_.data());
    }
    width_ = std::min(w, n_ - d_);
    if (width_ == 0) return;
    const std::vector<double> after = norms(W);
    const bool exhausted = width_ < w;
    bool again = false;
    for (index_t j = 0; j < w; ++j) again = again || after[at(j)] < kCancelled * before[at(j)];
    // Where less than a block is left of the space all of it is taken; where a column vanished, its place is free.
    std::vector<index_t> dead;
    for (index_t j = 0; j < w; ++j) {
      const double tiny = static_cast<double>(std::numeric_limits<T>::min()) / std::numeric_limits<T>::epsilon();
      if (exhausted || after[at(j)] <= tiny) dead.push_back(j);
    }
    if (!dead.empty()) {
      Buffer<T> fresh(la_, n_, w);
      la_.normals(fresh, refill_seed(params_.seed, ++refills_));
      for (const index_t j : dead) la_.copy(fresh.mat().columns(j, 1), W.mat().columns(j, 1));
      again = true;
    }
    const Mat<T> block = W.mat().columns(0, width_);
    normalize(block, d_, again);
    la_.copy(block, V_.mat().columns(d_, width_));
  }

  const Context& context_;
  LinAlg<T>& la_;
  LinAlg<double>& ld_;
  const LinearMap<T>& map_;
  Op op_;
  const KrylovParams& params_;
  index_t m_, n_;
  index_t width_ = 0, previous_ = 0, d_ = 0, restarted_ = 0, capacity_ = 0, columns_ = 0;
  std::uint64_t refills_ = 0;
  Buffer<T> V_;
  std::vector<double> H_;  // capacity x capacity, column-major
  std::vector<double> outside_;  // W^T W of the last block
};

/// From V (n x d, orthonormal) to the r largest triplets in its span, with sums in float64: op(M) V = Q R,
/// R = P diag(s) Z^T, U = Q P, V <- V Z.
template <class T>
class Finish {
 public:
  Finish(const Context& context, const LinearMap<T>& map, Op op)
      : context_(context), ld_(context.backend().full()), map_(map), op_(op) {}

  /// The triplets and their residual, measured with the vectors as they are returned; `back` becomes op(M)^T U.
  KrylovTriplets<T> triplets(Mat<const double> V0, index_t r, Buffer<double>& back) {
    const index_t d = V0.cols;
    KrylovTriplets<T> out;
    const Buffer<T> V = cast<T>(context_, V0);
    const Buffer<double> Vd = to_double<T>(context_.backend(), V);
    const Buffer<double> Y = product(op_, V);
    Buffer<double> Q(ld_, Y.rows(), d), R(ld_, d, d), P(ld_, d, d), Zt(ld_, d, d), U(ld_, Y.rows(), r);
    ld_.copy(Y, Q);
    orthonormalize_columns(ld_, Q);
    ld_.multiply(Op::transpose, Op::none, 1.0, Q, Y, 0.0, R);
    out.s.resize(at(d));
    ld_.svd_thin(R, out.s.data(), P, Zt);
    out.s.resize(at(r));
    ld_.multiply(Op::none, Op::none, 1.0, Q, P.mat().columns(0, r), 0.0, U);
    out.U = cast<T>(context_, U);
    const Mat<const double> Z = Zt.mat().block(0, 0, r, d);
    Buffer<double> VZ(ld_, V0.rows, r);
    ld_.multiply(Op::none, Op::transpose, 1.0, Vd, Z, 0.0, VZ);
    out.V = cast<T>(context_, VZ);

    back = product(flip(op_), out.U);
    if (out.s[0] == 0) return out;
    const std::vector<double> right = distances(out.V, out.s, back);
    out.residual = *std::max_element(right.begin(), right.end()) / out.s[0];
    // op(M) V is Y Z but for the rounding of V = V_0 Z to T, at most sigma_1 ||dV||: where that is no more than the other
    // side's residual, which is the one that iterating makes small, a third product would say nothing new
    ld_.multiply(Op::none, Op::transpose, 1.0, Y, Z, 0.0, U);
    const std::vector<double> left = distances(out.U, out.s, U);
    const std::vector<double> rounding = distances(out.V, std::vector<double>(at(r), 1.0), VZ);
    double bound = 0;
    for (index_t i = 0; i < r; ++i) bound = std::max(bound, left[at(i)] / out.s[0] + rounding[at(i)]);
    if (bound > out.residual) {
      const std::vector<double> measured = distances(out.U, out.s, product(op_, out.V));
      out.residual = std::max(out.residual, *std::max_element(measured.begin(), measured.end()) / out.s[0]);
    }
    return out;
  }

 private:
  Buffer<double> product(Op op, Mat<const T> X) {
    Buffer<double> Y(ld_, op == Op::none ? map_.rows() : map_.cols(), X.cols);
    map_.apply_accurately(op, X, Y);
    context_.check_interrupt();
    return Y;
  }
  /// ||X_i s_i - image_i||
  std::vector<double> distances(Mat<const T> X, const std::vector<double>& s, Mat<const double> image) {
    Buffer<double> D = to_double<T>(context_.backend(), X);
    ld_.scale_columns(D, s.data());
    ld_.add(-1.0, image, D);
    std::vector<double> out(s.size());
    ld_.column_dots(D, D, out.data());
    for (auto& v : out) v = std::sqrt(v);
    return out;
  }

  const Context& context_;
  LinAlg<double>& ld_;
  const LinearMap<T>& map_;
  Op op_;
};

/// Smallest r <= cap with ||M||^2 - sum_{i<r} s_i^2 <= tol^2 ||M||^2; 0 where the values do not reach that far.
index_t rank_of_tail(const std::vector<double>& s, const KrylovParams& p, index_t cap) {
  double left = p.squared_norm;
  for (index_t r = 1; r <= static_cast<index_t>(s.size()); ++r) {
    left -= s[at(r - 1)] * s[at(r - 1)];
    if (left <= p.frobenius_tol * p.frobenius_tol * p.squared_norm || r == cap) return r;
  }
  return 0;
}

/// Whether `width` neighbours among the values lie closer together than what was asked for: a block of that width cannot
/// tell whether there are more of them.
bool crowded(const std::vector<double>& s, index_t r, index_t width, double tol) {
  for (index_t i = 0; i + width <= r; ++i) {
    if (s[at(i)] - s[at(i + width - 1)] <= 2 * tol * s[0] && s[at(i)] > 2 * tol * s[0]) return true;
  }
  return false;
}

}  // namespace

namespace {

/// The r leading triplets of the basis. Half steps of orthogonal iteration with float64 sums take the rounding of the
/// Lanczos vectors out, as long as they help and the residual is above tol.
template <class T>
KrylovTriplets<T> refined(const Context& context, Finish<T>& finish, Lanczos<T>& lanczos,
                          const typename Lanczos<T>::Ritz& ritz, index_t r, double tol) {
  // Squares lose half of the digits of small values; a basis of the whole space has them still.
  constexpr double small = std::is_same_v<T, float> ? 0.03 : 1e-5;
  const bool all = lanczos.width() == 0 && ritz.sigma[at(r - 1)] < small * ritz.sigma[0];
  Buffer<double> back;
  KrylovTriplets<T> best = finish.triplets(lanczos.vectors(ritz, all ? lanczos.size() : r), r, back);
  while (best.residual > tol && best.residual < kStagnation<T>) {
    const Buffer<double> V = std::move(back);
    orthonormalize_columns(context.backend().full(), V);
    KrylovTriplets<T> next = finish.triplets(V, r, back);
    const bool helped = next.residual < 0.9 * best.residual;
    if (next.residual < best.residual) best = std::move(next);
    if (!helped) break;
  }
  return best;
}

template <class T>
KrylovTriplets<T> leading_triplets(const Context& context, KrylovTriplets<T> all, index_t r) {
  auto& la = linalg::of<T>(context.backend());
  Buffer<T> U(la, all.U.rows(), r), V(la, all.V.rows(), r);
  la.copy(all.U.mat().columns(0, r), U);
  la.copy(all.V.mat().columns(0, r), V);
  all.U = std::move(U);
  all.V = std::move(V);
  all.s.resize(at(r));
  return all;
}

}  // namespace

template <class T>
KrylovTriplets<T> krylov(const Context& context, const LinearMap<T>& map, const KrylovParams& params) {
  // the basis lies on the smaller side; a square map's on the right
  const Op op = map.rows() >= map.cols() ? Op::none : Op::transpose;
  const index_t n = std::min(map.rows(), map.cols()), cap = std::min(params.rank, n);
  const bool adaptive = params.frobenius_tol > 0;
  const index_t first_guess = adaptive ? std::min<index_t>(cap, 32) : cap;
  KrylovParams p = params;
  p.rank = first_guess;
  // What a budget of columns finds depends on their width: so that is the same everywhere.
  const bool on_device = !params.stop_at_limit && context.backend().batch_size(1) > 1;
  index_t width = krylov_width(on_device, first_guess);
  if (params.widest > 0) width = std::min(width, params.widest);
  Lanczos<T> lanczos(context, map, op, p, width);

  // Estimates leave room for the rounding that the measured residual has beside them.
  const double target = 0.5 * params.tol;
  index_t wanted = first_guess, next_check = wanted + wanted / 2 + 2 * width, restarts = 0;
  double last_error = 0, best_error = std::numeric_limits<double>::infinity();
  int idle = 0;  // restarts since the error was last halved
  index_t last_columns = 0;
  typename Lanczos<T>::Ritz ritz;
  Finish<T> finish(context, map, op);
  KrylovTriplets<T> best;
  for (;;) {
    context.check_interrupt();
    if (lanczos.size() + lanczos.width() <= lanczos.capacity() && lanczos.width() > 0) lanczos.expand();
    const bool full = lanczos.size() + lanczos.width() > lanczos.capacity(), whole = lanczos.width() == 0;
    const bool spent = lanczos.columns() >= params.max_columns && lanczos.size() >= std::min(wanted, n);
    if (!full && !whole && !spent && (params.stop_at_limit || lanczos.size() < next_check)) continue;

    const index_t keep =
        whole ? lanczos.size() : std::min(wanted + std::max(wanted / 4, 2 * lanczos.width()), lanczos.size());
    ritz = lanczos.ritz(keep);
    if (adaptive) {
      const index_t r = rank_of_tail(ritz.sigma, params, cap);
      if (r == 0 && !whole && !spent) {  // not deep enough yet to tell
        wanted = std::min(cap, 2 * wanted);
        lanczos.reserve(krylov_depth(wanted, lanczos.width(), n), lanczos.width());
        next_check = lanczos.size() + wanted / 2 + lanczos.width();
        continue;
      }
      wanted = r > 0 ? r : std::min(cap, keep);
    }
    const auto leading = ritz.residual.begin() + std::min<index_t>(wanted, lanczos.size());
    const double error = ritz.sigma[0] > 0 ? *std::max_element(ritz.residual.begin(), leading) : 0;
    const bool enough = lanczos.size() >= wanted;
    if (whole || (enough && error <= target)) {
      if (whole || ritz.sigma[0] == 0 || spent || !crowded(ritz.sigma, wanted, lanczos.width(), params.tol)) {
        break;
      }
      lanczos.restart(ritz, std::min(keep, lanczos.size() - 1));
      ++restarts;
      lanczos.widen();
      next_check = lanczos.size() + 2 * lanczos.width();
      last_columns = 0;
      continue;
    }
    if (spent) break;
    // Equal singular values, found to rounding, change places with copies that are still being found: their vectors are
    // none the worse for it, and finishing them shows whether they are good enough.
    if (error < 0.5 * best_error) {
      best_error = error;
      idle = 0;
    } else if (full && enough && error < kStagnation<T> && ++idle == 4) {
      best = refined(context, finish, lanczos, ritz, wanted, params.tol);
      if (best.residual <= params.tol) break;
      best = {};
      idle = -12;
    }
    // log(error) falls ever faster: going by its last slope is too far, a fifth of it is not
    index_t more = wanted;
    if (last_columns > 0 && error < last_error) {
      const double slope = std::log(last_error / error) / static_cast<double>(lanczos.columns() - last_columns);
      more = static_cast<index_t>(std::min(0.2 * std::log(error / target) / slope, 1e9));
    }
    last_error = error;
    last_columns = lanczos.columns();
    more = std::max(more, 3 * lanczos.width());
    if (full) {
      lanczos.restart(ritz, std::min(keep, lanczos.size() - 1));
      ++restarts;
    }
    next_check = lanczos.size() + more;
  }

  const index_t r = std::min(wanted, lanczos.size());
  if (best.s.empty()) {
    best = refined(context, finish, lanczos, ritz, r, params.stop_at_limit ? 1.0 : params.tol);
  }
  if (adaptive) {  // the values of the basis were a little too small
    const index_t fewer = rank_of_tail(best.s, params, cap);
    if (fewer > 0 && fewer < r) best = leading_triplets(context, std::move(best), fewer);
  }
  best.converged = best.residual <= params.tol;
  best.columns = lanczos.columns();
  best.restarts = restarts;
  if (op == Op::transpose) std::swap(best.U, best.V);
  return best;
}

#define BROCKETT_INSTANTIATE(T) \
  template KrylovTriplets<T> krylov(const Context&, const LinearMap<T>&, const KrylovParams&);
BROCKETT_INSTANTIATE(float)
BROCKETT_INSTANTIATE(double)

}  // namespace brockett
