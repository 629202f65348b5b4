#include "lanczos.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

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
// A block with a column of which the basis leaves less than this share is orthogonalized once more.
constexpr double kCancelled = 0.5;
// A block whose columns depend on each other more than this after they were made orthonormal is projected once more: what
// it loses adds up over the blocks, and in float the last ones of a basis that spans everything would be noise.
constexpr double kIndependent = 0.7;
// Passes that end in a block orthogonal to the basis whatever it was; three were the most that were seen.
constexpr int kPasses = 8;
// A restart keeps a quarter more vectors than are wanted, and three times as many fit in before the next.
constexpr index_t kDepth = 3;

// What rounding leaves of a singular value that is 0, over sigma_1: of products in float; of the eigenvalues of H, which
// are its square, in double.
template <class T>
constexpr double kUnresolved = std::is_same_v<T, float> ? 2e-6 : 1e-7;

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

template <class T>
Lanczos<T>::Lanczos(const Context& context, const LinearMap<T>& map, Op op, const KrylovParams& params, index_t width)
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

template <class T>
void Lanczos<T>::reserve(index_t depth, index_t width) {
  depth = std::max(std::min(depth, n_), capacity_);
  if (depth == capacity_ && V_.cols() >= depth + width) return;
  Buffer<T> V(la_, n_, depth + width);
  if (V_.data()) la_.copy(V_.mat().columns(0, d_ + width_), V.mat().columns(0, d_ + width_));
  std::vector<double> H(at(depth * depth));
  for (index_t j = 0; j < d_; ++j) std::copy_n(&H_[at(j * capacity_)], d_, &H[at(j * depth)]);
  if (params_.keep_images) {
    Buffer<T> images(la_, m_, depth);
    if (d_ > 0) la_.copy(images_.mat().columns(0, d_), images.mat().columns(0, d_));
    images_ = std::move(images);
  }
  V_ = std::move(V);
  H_ = std::move(H);
  capacity_ = depth;
}

template <class T>
void Lanczos<T>::expand() {
  const index_t w = width_, known = d_ + w;
  const Mat<T> block = V_.mat().columns(d_, w);
  Buffer<T> kept, W(la_, n_, w);
  if (!params_.keep_images) kept = Buffer<T>(la_, m_, w);
  const Mat<T> Y = params_.keep_images ? images_.mat().columns(d_, w) : kept.mat();
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

template <class T>
Buffer<double> Lanczos<T>::packed_H() const {
  Buffer<double> H(ld_, d_, d_);
  std::vector<double> packed(at(d_ * d_));
  for (index_t j = 0; j < d_; ++j) std::copy_n(&H_[at(j * capacity_)], d_, &packed[at(j * d_)]);
  ld_.upload(packed.data(), H);
  return H;
}

template <class T>
typename Lanczos<T>::Ritz Lanczos<T>::ritz(index_t count) {
  count = std::min(count, d_);
  Ritz out;
  const Buffer<double> H = packed_H();
  out.Q = Buffer<double>(ld_, d_, count);
  out.sigma.resize(at(count));
  ld_.eigen_symmetric_largest(H, count, out.sigma.data(), out.Q);
  for (auto& v : out.sigma) v = std::sqrt(std::max(v, 0.0));
  out.distance = distances(last_rows(out));
  const double largest = out.sigma[0];
  for (index_t j = 0; j < count; ++j) {
    const double s = out.sigma[at(j)];
    const bool resolved = s > kUnresolved<T> * largest;
    out.residual.push_back(resolved ? out.distance[at(j)] / (s * largest) : 0);
  }
  return out;
}

template <class T>
std::vector<double> Lanczos<T>::distances(Mat<const double> last) const {
  // op(M)^T op(M) V q - theta V q = W q_last, W the part of the last block's image outside V
  const index_t w = previous_;
  std::vector<double> q(at(w * last.cols)), out;
  ld_.download(last, q.data());
  for (index_t j = 0; j < last.cols; ++j) {
    double square = 0;
    for (index_t a = 0; a < w; ++a) {
      for (index_t b = 0; b < w; ++b) square += q[at(a + j * w)] * outside_[at(a + b * w)] * q[at(b + j * w)];
    }
    out.push_back(std::sqrt(std::max(square, 0.0)));
  }
  return out;
}

template <class T>
double Lanczos<T>::smallest() const {
  std::vector<double> values(at(d_));
  ld_.eigen_symmetric(packed_H(), values.data(), false);
  return values[0];
}

template <class T>
void Lanczos<T>::restart(const Ritz& ritz, index_t keep) {
  const Buffer<T> kept = combined(V_, ritz, keep);
  Buffer<T> next(la_, n_, width_);
  if (params_.keep_images) la_.copy(combined(images_, ritz, keep), images_.mat().columns(0, keep));
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

template <class T>
void Lanczos<T>::widen() {
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

template <class T>
Buffer<T> Lanczos<T>::combined(const Buffer<T>& X, const Ritz& ritz, index_t count) {
  const Buffer<T> Q = cast<T>(context_, ritz.Q.mat().columns(0, count));
  Buffer<T> out(la_, X.rows(), count);
  la_.multiply(Op::none, Op::none, T(1), X.mat().columns(0, d_), Q, T(0), out);
  return out;
}

template <class T>
Buffer<double> Lanczos<T>::vectors(const Ritz& ritz, index_t r) {
  Buffer<double> out = to_double<T>(context_.backend(), combined(V_, ritz, r));
  orthonormalize_columns(ld_, out);
  return out;
}

template <class T>
Buffer<T> Lanczos<T>::images(const Ritz& ritz, index_t r) {
  return params_.keep_images ? combined(images_, ritz, r) : Buffer<T>();
}

template <class T>
std::vector<double> Lanczos<T>::norms(Mat<const T> W) {
  std::vector<double> out(at(W.cols));
  la_.column_dots(W, W, out.data());
  for (auto& v : out) v = std::sqrt(v);
  return out;
}

template <class T>
void Lanczos<T>::project(index_t first, index_t last, Mat<T> W, std::vector<double>& h) {
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

template <class T>
void Lanczos<T>::normalize(Mat<T> W, index_t known, bool again) {
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

template <class T>
void Lanczos<T>::next_block(Buffer<T>& W, const std::vector<double>& before) {
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

bool crowded(const std::vector<double>& s, index_t r, index_t width, double tol) {
  for (index_t i = 0; i + width <= r; ++i) {
    if (s[at(i)] - s[at(i + width - 1)] <= 2 * tol * s[0] && s[at(i)] > 2 * tol * s[0]) return true;
  }
  return false;
}

template class Lanczos<float>;
template class Lanczos<double>;

}  // namespace brockett
