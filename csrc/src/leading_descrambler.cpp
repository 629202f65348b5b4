#include "leading_descrambler.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "check.hpp"
#include "gauge.hpp"

namespace brockett {

using linalg::Buffer;
using linalg::Mat;
using linalg::Op;

namespace {

std::size_t at(index_t i) { return static_cast<std::size_t>(i); }

/// The modes that the reduced problem needs: all up to the end of the block that r cuts, or up to its start where it is the
/// last one, for then the tail lies within the block and is solved with it.
index_t modes_needed(const PenaltyBasis& basis, index_t r) {
  const auto& blocks = basis.blocks();
  const auto end = std::lower_bound(blocks.begin(), blocks.end(), r);
  return *end < basis.n() ? *end : *(end - 1);
}

/// The first `count` modes, in columns.
Buffer<double> leading_modes(const Context& context, const PenaltyBasis& basis, index_t count) {
  auto& la = context.backend().full();
  Buffer<double> rows(la, count, basis.n()), T(la, basis.n(), count);
  la.fill(rows, 0.0);
  la.set_identity(rows.mat().columns(0, count));
  basis.apply(Op::none, rows);
  la.transpose(rows, T);
  return T;
}

/// Starts below `end`, and `end`.
std::vector<index_t> starts_until(std::vector<index_t> starts, index_t end) {
  starts.erase(std::lower_bound(starts.begin(), starts.end(), end), starts.end());
  starts.push_back(end);
  return starts;
}

int determinant_sign(linalg::LinAlg<double>& la, Mat<const double> A) {
  Buffer<double> work(la, A.rows, A.cols);
  la.copy(A, work);
  return la.determinant_sign(work);
}

}  // namespace

index_t reduced_order(const PenaltyBasis& basis, index_t r) { return r + modes_needed(basis, r); }

LeadingDescrambler nearest_leading(const Context& context, const PenaltyBasis& basis, Mat<const double> U,
                                   const std::vector<index_t>& clusters, Buffer<double> P0, bool special) {
  auto& la = context.backend().full();
  const index_t n = basis.n(), r = U.cols, q = modes_needed(basis, r), z = r + q;
  LeadingDescrambler out;
  out.base = P0.data() ? LeadingDescrambler::Base::reference : LeadingDescrambler::Base::identity;
  out.conditioning = 1;
  out.P0 = std::move(P0);
  out.F = Buffer<double>(la, n, z);
  out.G = Buffer<double>(la, n, z);
  if (r == 0) {
    if (special && out.P0.data() && determinant_sign(la, out.P0) < 0) {
      // every reversal is as near as another: the last mode's, as in the canonical gauge
      Buffer<double> row(la, 1, n), mode(la, n, 1);
      la.fill(row, 0.0);
      la.set_identity(row.mat().columns(n - 1, 1));
      basis.apply(Op::none, row);
      la.transpose(row, mode);
      out.F = Buffer<double>(la, n, 1);
      out.G = Buffer<double>(la, n, 1);
      la.multiply(Op::transpose, Op::none, 1.0, out.P0, mode, 0.0, out.G);
      la.copy(out.G, out.F);
      la.scale(-2.0, out.F);
    }
    return out;
  }

  // modes as P0 sees them; then Q, of which U is the beginning, signs apart: those are the gauge's anyway
  Buffer<double> T(la, n, q);
  if (q > 0) T = leading_modes(context, basis, q);
  if (q > 0 && out.P0.data()) {
    Buffer<double> turned(la, n, q);
    la.multiply(Op::transpose, Op::none, 1.0, out.P0, T, 0.0, turned);
    T = std::move(turned);
  }
  const Mat<double> Q = out.G;
  la.copy(U, Q.columns(0, r));
  if (q > 0) la.copy(T, Q.columns(r, q));
  la.orthonormalize(Q);
  context.check_interrupt();

  Buffer<double> Tz(la, z, z), Iz(la, z, z);
  la.fill(Tz, 0.0);
  if (q > 0) la.multiply(Op::transpose, Op::none, 1.0, Q, T, 0.0, Tz.mat().columns(0, q));
  la.orthonormalize(Tz);
  la.set_identity(Iz);
  // in the basis Q the eigenvectors are I, and their overlap with the modes is the modes
  std::vector<index_t> blocks{0}, tails = clusters;
  if (q > 0) blocks = starts_until(basis.blocks(), q);
  blocks.push_back(z);
  if (r < z) tails.push_back(z);
  Gauge reduced(context, std::move(blocks), std::move(tails), Iz);
  Buffer<double> Pz(la, z, z);  // its transpose
  const auto build = [&](bool flip) {
    const Buffer<double> Y = reduced.nearest(Tz, flip);
    la.multiply(Op::none, Op::transpose, 1.0, Y, Tz, 0.0, Pz);
  };
  build(false);
  if (special) {
    int sign = determinant_sign(la, Pz);
    if (out.P0.data()) sign *= determinant_sign(la, out.P0);
    if (sign < 0) build(true);
  }
  out.conditioning = reduced.conditioning();
  context.check_interrupt();
  la.add(-1.0, Iz, Pz);
  la.multiply(Op::none, Op::none, 1.0, Q, Pz, 0.0, out.F);
  return out;
}

LeadingDescrambler canonical_leading(const Context& context, const PenaltyBasis& basis, Mat<const double> U,
                                     const std::vector<index_t>& clusters, bool special) {
  auto& la = context.backend().full();
  const index_t n = basis.n(), r = U.cols;
  LeadingDescrambler out;
  out.base = LeadingDescrambler::Base::modes;
  out.conditioning = std::numeric_limits<double>::quiet_NaN();
  // U_canonical = (I - (E + A) (1 + c)^-1 (E + A)^T + A E^T) + U_h I_r^T, U_h the leading vectors as the gauge fixes them
  const index_t extra = special ? 1 : 0;
  out.F = Buffer<double>(la, n, 2 * r + extra);
  out.G = Buffer<double>(la, n, 2 * r + extra);
  la.fill(out.G, 0.0);
  if (r > 0) {
    const Buffer<double> fixed = Gauge(context, {0, r}, clusters, U).canonical(false);
    Buffer<double> overlap(la, r, r), X(la, r, r), Yt(la, r, r), A(la, n, r);
    la.copy(fixed.mat().block(0, 0, r, r), overlap);
    std::vector<double> cosines(at(r));
    la.svd_thin(overlap, cosines.data(), X, Yt);
    la.multiply(Op::none, Op::transpose, 1.0, fixed, Yt, 0.0, A);
    const Mat<double> sums = out.G.mat().columns(0, r), axes = out.G.mat().columns(r, r);
    la.copy(X, axes.block(0, 0, r, r));  // E
    la.copy(axes, sums);
    la.add(1.0, A, sums);
    std::vector<double> scale;
    for (const double c : cosines) scale.push_back(-1 / (1 + c));
    la.copy(sums, out.F.mat().columns(0, r));
    la.scale_columns(out.F.mat().columns(0, r), scale.data());
    // A E^T + U_h I_r^T = (A + U_h X) E^T
    const Mat<double> images = out.F.mat().columns(r, r);
    la.copy(A, images);
    la.multiply(Op::none, Op::none, 1.0, fixed, X, 1.0, images);
  }
  if (special) {
    la.fill(out.F.mat().columns(2 * r, 1), 0.0);
    Buffer<double> Pt = transposed(context, basis, out);
    if (la.determinant_sign(Pt) < 0) {
      // U -> U (I - 2 e e^T), e the last axis: F gets -2 U e, G gets e
      Buffer<double> e(la, n, 1), row(la, 2 * r + 1, 1);
      la.fill(e, 0.0);
      la.set_identity(e.mat().block(n - 1, 0, 1, 1));
      la.transpose(out.G.mat().block(n - 1, 0, 1, 2 * r + 1), row);
      const Mat<double> last = out.F.mat().columns(2 * r, 1);
      Buffer<double> image(la, n, 1);
      la.copy(e, image);
      if (r > 0) {
        la.multiply(Op::none, Op::none, 1.0, out.F.mat().columns(0, 2 * r), row.mat().block(0, 0, 2 * r, 1), 1.0,
                    image);
      }
      la.scale(-2.0, image);
      la.copy(image, last);
      la.copy(e, out.G.mat().columns(2 * r, 1));
    }
  }
  return out;
}

Buffer<double> transposed(const Context& context, const PenaltyBasis& basis, const LeadingDescrambler& P) {
  auto& la = context.backend().full();
  const index_t n = basis.n(), z = P.F.cols();
  Buffer<double> Pt(la, n, n);
  if (P.base == LeadingDescrambler::Base::reference) {
    la.transpose(P.P0, Pt);
    if (z == 0) return Pt;
    Buffer<double> PG(la, n, z);
    la.multiply(Op::none, Op::none, 1.0, P.P0, P.G, 0.0, PG);
    la.multiply(Op::none, Op::transpose, 1.0, P.F, PG, 1.0, Pt);
    return Pt;
  }
  la.set_identity(Pt);
  if (z > 0) la.multiply(Op::none, Op::transpose, 1.0, P.F, P.G, 1.0, Pt);
  if (P.base == LeadingDescrambler::Base::modes) basis.apply(Op::none, Pt);
  return Pt;
}

Buffer<double> orthogonal_reference(const Context& context, MatrixView<const double> P0) {
  auto& la = context.backend().full();
  const index_t n = P0.rows;
  Buffer<double> P(la, n, n), E(la, n, n), I(la, n, n);
  if (P0.order == Order::column_major) {
    la.copy(columns_of(P0), P);
  } else {
    la.transpose(columns_of(P0), P);
  }
  la.set_identity(I);
  const double rounding = 8 * std::sqrt(static_cast<double>(n)) * std::numeric_limits<double>::epsilon();
  for (int step = 0; step < 4; ++step) {
    la.multiply(Op::transpose, Op::none, 1.0, P, P, 0.0, E);
    la.add(-1.0, I, E);
    if (la.max_abs(E) <= rounding) break;
    // P <- P (I - E / 2) takes a departure E from orthogonality to 3/4 E^2
    Buffer<double> next(la, n, n);
    la.copy(P, next);
    la.multiply(Op::none, Op::none, -0.5, P, E, 1.0, next);
    P = std::move(next);
    context.check_interrupt();
  }
  return P;
}

}  // namespace brockett
