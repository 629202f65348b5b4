#include "krylov.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "check.hpp"
#include "lanczos.hpp"

namespace brockett {

using linalg::Buffer;
using linalg::LinAlg;
using linalg::Mat;
using linalg::Op;

namespace {

std::size_t at(index_t i) { return static_cast<std::size_t>(i); }

// Residuals below this may be rounding that refinement takes out.
template <class T>
constexpr double kStagnation = 400 * static_cast<double>(std::numeric_limits<T>::epsilon());

// What the images of the Lanczos vectors are off by, over sigma_1: rounding of products in T, and of a few restarts.
template <class T>
constexpr double kRounding = 32 * static_cast<double>(std::numeric_limits<T>::epsilon());

template <class T>
Buffer<T> cast(const Context& context, Mat<const double> A) {
  Buffer<T> out(linalg::of<T>(context.backend()), A.rows, A.cols);
  context.backend().full().convert_to(A, dtype_of<T>(), out.data(), A.rows);
  return out;
}

/// The residual of triplets with values s and vectors V Z, V the r leading Ritz vectors, as the recurrence of the basis tells
/// it; 0 where it does not.
using Recurrence = std::function<double(const std::vector<double>& s, Mat<const double> Zt)>;

/// From V (n x d, orthonormal) to the r largest triplets in its span: op(M) V = Q R, R = P diag(s) Z^T, U = Q P, V <- V Z.
/// The products have sums in float64; or op(M) V is at hand in T, which saves one of them and the precision of the other,
/// or both where the residual is known.
template <class T>
class Finish {
 public:
  Finish(const Context& context, const LinearMap<T>& map, Op op)
      : context_(context), ld_(context.backend().full()), map_(map), op_(op) {}

  /// The triplets and their residual, measured with the vectors as they are returned; `back` becomes op(M)^T U.
  KrylovTriplets<T> triplets(Mat<const double> V0, index_t r, Buffer<double>& back, const Buffer<T>& images = {},
                             const Recurrence& known = {}) {
    const index_t d = V0.cols;
    const bool at_hand = images.cols() > 0;
    KrylovTriplets<T> out;
    const Buffer<T> V = cast<T>(context_, V0);
    const Buffer<double> Vd = to_double<T>(context_.backend(), V);
    const Buffer<double> Y = at_hand ? to_double<T>(context_.backend(), images) : product(op_, V);
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

    if (known) out.residual = known(out.s, Z);
    if (out.residual > 0) return out;
    back = at_hand ? quick_product(flip(op_), out.U) : product(flip(op_), out.U);
    if (out.s[0] == 0) return out;
    const std::vector<double> right = distances(out.V, out.s, back);
    out.residual = *std::max_element(right.begin(), right.end()) / out.s[0];
    // op(M) V is Y Z but for the rounding of V = V_0 Z to T, at most sigma_1 ||dV||, and that of Y: where they are no more
    // than the other side's residual, which is the one that iterating makes small, another product would say nothing new
    ld_.multiply(Op::none, Op::transpose, 1.0, Y, Z, 0.0, U);
    const std::vector<double> left = distances(out.U, out.s, U);
    const std::vector<double> rounding = distances(out.V, std::vector<double>(at(r), 1.0), VZ);
    double bound = 0;
    for (index_t i = 0; i < r; ++i) bound = std::max(bound, left[at(i)] / out.s[0] + rounding[at(i)]);
    if (at_hand) bound += kRounding<T>;
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
  Buffer<double> quick_product(Op op, Mat<const T> X) {
    Buffer<T> Y(linalg::of<T>(context_.backend()), op == Op::none ? map_.rows() : map_.cols(), X.cols);
    map_.apply(op, X, Y);
    context_.check_interrupt();
    return to_double<T>(context_.backend(), Y);
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

/// It tells where the rounding of the basis is no part of the residual, and only of products with M and its transpose: where
/// what was multiplied with on the way back is none, the roots of the eigenvalues of H are not the norms s of the images.
template <class T>
double told_by_recurrence(LinAlg<double>& ld, const Lanczos<T>& lanczos, const typename Lanczos<T>::Ritz& ritz,
                          const std::vector<double>& s, Mat<const double> Zt) {
  if (!(s.back() > 0)) return 0;
  const Mat<const double> last = lanczos.last_rows(ritz).columns(0, Zt.rows);
  Buffer<double> turned(ld, last.rows, Zt.rows);
  ld.multiply(Op::none, Op::transpose, 1.0, last, Zt, 0.0, turned);
  const std::vector<double> distance = lanczos.distances(turned);
  double residual = 0, off = 0;
  for (std::size_t i = 0; i < s.size(); ++i) {
    residual = std::max(residual, distance[i] / (s[i] * s[0]));
    off = std::max(off, std::abs(s[i] - ritz.sigma[i]) * (s[i] + ritz.sigma[i]) / (s[i] * s[0]));
  }
  const bool clear = residual * s.back() > 50 * kRounding<T> * s[0];
  return clear && off <= 0.02 * residual ? residual : 0;
}

/// The r leading triplets of the basis. Half steps of orthogonal iteration with float64 sums take the rounding of the
/// Lanczos vectors out, as long as they help and the residual is above tol. `quick`: the residual is the recurrence's where
/// that is the same to two hundredths.
template <class T>
KrylovTriplets<T> refined(const Context& context, Finish<T>& finish, Lanczos<T>& lanczos,
                          const typename Lanczos<T>::Ritz& ritz, index_t r, double tol, bool quick) {
  // Squares lose half of the digits of small values; the basis has them still, for as many products more.
  constexpr double small = std::is_same_v<T, float> ? 0.03 : 1e-5;
  const bool whole = lanczos.width() == 0, all = whole && ritz.sigma[at(r - 1)] < small * ritz.sigma[0];
  const Buffer<T> images = whole ? Buffer<T>() : lanczos.images(ritz, r);
  Recurrence known;
  if (quick && !whole) {
    known = [&](const std::vector<double>& s, Mat<const double> Zt) {
      return told_by_recurrence<T>(context.backend().full(), lanczos, ritz, s, Zt);
    };
  }
  Buffer<double> back;
  KrylovTriplets<T> best = finish.triplets(lanczos.vectors(ritz, all ? lanczos.size() : r), r, back, images, known);
  while (!quick && best.residual > tol && best.residual < kStagnation<T>) {
    const Buffer<double> V = std::move(back);
    orthonormalize_columns(context.backend().full(), V);
    KrylovTriplets<T> next = finish.triplets(V, r, back);
    const bool helped = next.residual < 0.9 * best.residual;
    if (next.residual < best.residual) best = std::move(next);
    if (!helped) break;
  }
  if (!quick && !all && best.residual > tol) {
    const index_t size = lanczos.size();
    KrylovTriplets<T> next = finish.triplets(lanczos.vectors(lanczos.ritz(size), size), r, back);
    if (next.residual < best.residual) best = std::move(next);
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
  const Op op = basis_side(map.rows(), map.cols(), params.on_the_right);
  const index_t n = std::min(map.rows(), map.cols()), cap = std::min(params.rank, n);
  const bool adaptive = params.frobenius_tol > 0;
  const index_t first_guess = adaptive ? std::min<index_t>(cap, 32) : cap;
  KrylovParams p = params;
  p.rank = first_guess;
  p.keep_images = params.stop_at_limit || params.tol > kStagnation<T>;
  // What a budget of columns finds depends on their width: so that is the same everywhere.
  const bool on_device = !params.stop_at_limit && context.backend().batch_size(1) > 1;
  index_t width = krylov_width(on_device, first_guess);
  if (params.widest > 0) width = std::min(width, params.widest);
  Lanczos<T> lanczos(context, map, op, p, width);

  index_t wanted = first_guess, next_check = wanted + wanted / 2 + 2 * width, restarts = 0;
  double last_error = 0, best_error = std::numeric_limits<double>::infinity();
  int idle = 0;  // restarts since the error was last halved
  double strict = 1;  // less where an estimate was not kept
  index_t last_columns = 0;
  typename Lanczos<T>::Ritz ritz;
  Finish<T> finish(context, map, op);
  KrylovTriplets<T> best;
  auto narrow = map.narrow_scope();  // for blocks; the triplets are many columns at once
  bool finished = false;  // the basis as it is
  const auto done = [&] {  // or not worth going on: no better by half than what there was
    const index_t r = std::min(wanted, lanczos.size());
    narrow.reset();
    KrylovTriplets<T> next = refined(context, finish, lanczos, ritz, r, params.tol, params.stop_at_limit);
    narrow = map.narrow_scope();
    finished = true;
    const bool first = static_cast<index_t>(best.s.size()) != r;
    const bool gained = first || next.residual < 0.5 * best.residual;
    if (first || next.residual < best.residual) best = std::move(next);
    return params.stop_at_limit || best.residual <= params.tol || !gained;
  };
  for (;;) {
    context.check_interrupt();
    if (lanczos.size() + lanczos.width() <= lanczos.capacity() && lanczos.width() > 0) lanczos.expand();
    const bool full = lanczos.size() + lanczos.width() > lanczos.capacity(), whole = lanczos.width() == 0;
    const bool spent = lanczos.columns() >= params.max_columns && lanczos.size() >= std::min(wanted, n);
    if (!full && !whole && !spent && (params.stop_at_limit || lanczos.size() < next_check)) continue;

    const index_t keep =
        whole ? lanczos.size() : std::min(wanted + std::max(wanted / 4, 2 * lanczos.width()), lanczos.size());
    ritz = lanczos.ritz(keep);
    finished = false;
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
    // Estimates leave room for the rounding that the measured residual has beside them: u = op(M) v / s has that of op(M) v.
    const double steep = ritz.sigma[0] / std::max(ritz.sigma[at(std::min(wanted, lanczos.size()) - 1)],
                                                  std::numeric_limits<double>::min());
    const double target = strict * std::max(0.5 * params.tol, params.tol - 2 * kRounding<T> * steep);
    if (whole || ritz.sigma[0] == 0) break;
    const bool near = enough && error <= target;
    if (near && !spent && crowded(ritz.sigma, wanted, lanczos.width(), params.tol)) {
      lanczos.restart(ritz, std::min(keep, lanczos.size() - 1));
      ++restarts;
      lanczos.widen();
      next_check = lanczos.size() + 2 * lanczos.width();
      last_columns = 0;
      continue;
    }
    if (spent) break;
    if (near) {
      if (done()) break;
      strict *= 0.1;
    }
    // Equal singular values, found to rounding, change places with copies that are still being found: their vectors are
    // none the worse for it, and finishing them shows whether they are good enough.
    if (error < 0.5 * best_error) {
      best_error = error;
      idle = 0;
    } else if (full && enough && error < kStagnation<T> && !finished && ++idle == 4) {
      if (done()) break;
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

  if (!finished) done();
  if (adaptive) {  // the values of the basis were a little too small
    const index_t fewer = rank_of_tail(best.s, params, cap), found = static_cast<index_t>(best.s.size());
    if (fewer > 0 && fewer < found) best = leading_triplets(context, std::move(best), fewer);
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
