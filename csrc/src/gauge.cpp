#include "gauge.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "check.hpp"
#include "signs.hpp"

namespace brockett {

using linalg::Buffer;
using linalg::Mat;
using linalg::Op;

namespace {

// polar factor (column-major) of [[a, b], [c, d]]: the better of the nearest rotation and the nearest reflection
void polar2(double a, double b, double c, double d, bool flip, double* g, double& smallest) {
  const double rotation = std::hypot(a + d, c - b), reflection = std::hypot(a - d, b + c);
  smallest = 0.5 * std::abs(rotation - reflection);
  if ((rotation >= reflection) != flip) {
    const double x = rotation > 0 ? (a + d) / rotation : 1, y = rotation > 0 ? (c - b) / rotation : 0;
    g[0] = x, g[1] = y, g[2] = -y, g[3] = x;
  } else {
    const double x = reflection > 0 ? (a - d) / reflection : 1, y = reflection > 0 ? (b + c) / reflection : 0;
    g[0] = x, g[1] = y, g[2] = y, g[3] = -x;
  }
}

}  // namespace

std::vector<index_t> equal_clusters(const std::vector<double>& values) {
  const index_t n = static_cast<index_t>(values.size());
  const double tolerance = n > 0 ? kTie * values[0] : 0;
  std::vector<index_t> starts{0};
  for (index_t i = 1; i < n; ++i) {
    if (values[static_cast<std::size_t>(i - 1)] - values[static_cast<std::size_t>(i)] > tolerance) starts.push_back(i);
  }
  if (n > 0) starts.push_back(n);
  return starts;
}

Buffer<double> gauge_overlap(const Context& context, const PenaltyBasis& basis, Mat<const double> U,
                             MatrixView<const double> P0) {
  auto& la = context.backend().full();
  Buffer<double> K(la, basis.n(), basis.n());
  if (P0.data) {
    la.multiply(Op::transpose, flip(op_of(P0)), 1.0, U, columns_of(P0), 0.0, K);
  } else {
    la.transpose(U, K);
  }
  basis.apply(Op::transpose, K);
  return K;
}

Gauge::Gauge(const Context& context, std::vector<index_t> blocks, std::vector<index_t> clusters, Mat<const double> U)
    : context_(context),
      la_(context.backend().full()),
      blocks_(std::move(blocks)),
      clusters_(std::move(clusters)),
      U_(U) {
  find_components();
}

// cut where a block and a cluster end together; what lies between two cuts is solved together
void Gauge::find_components() {
  const auto inside = [](const std::vector<index_t>& starts, index_t lo, index_t hi) {  // parts within [lo, hi)
    std::vector<Stretch> parts;
    for (auto it = std::lower_bound(starts.begin(), starts.end(), lo); *it < hi; ++it)
      parts.push_back({*it, it[1] - *it});
    return parts;
  };
  const auto splits = [](const std::vector<index_t>& starts, Stretch p) {  // a boundary lies strictly inside p
    const auto it = std::upper_bound(starts.begin(), starts.end(), p.lo);
    return *it < p.lo + p.size;
  };
  index_t lo = 0;
  for (const index_t hi : blocks_) {
    if (hi == 0 || !std::binary_search(clusters_.begin(), clusters_.end(), hi)) continue;
    Component c{{lo, hi - lo}, {}, {}};
    for (const Stretch& b : inside(blocks_, lo, hi)) {
      if (splits(clusters_, b)) c.crossing_blocks.push_back({b.lo - lo, b.size});
    }
    for (const Stretch& s : inside(clusters_, lo, hi)) {
      if (splits(blocks_, s)) c.crossing_clusters.push_back({s.lo - lo, s.size});
    }
    components_.push_back(std::move(c));
    lo = hi;
  }
}

// polar factors of all components of size 1 and 2, from the three diagonals of K
void Gauge::small_polars(Mat<const double> K, std::vector<Small>& out, index_t flipped) const {
  const index_t n = K.rows;
  std::vector<double> diagonal(static_cast<std::size_t>(n)), upper(diagonal.size()), lower(diagonal.size());
  la_.download(Mat<const double>(K.data, 1, n, K.ld + 1), diagonal.data());
  if (n > 1) {
    la_.download(Mat<const double>(K.data + K.ld, 1, n - 1, K.ld + 1), upper.data());
    la_.download(Mat<const double>(K.data + 1, 1, n - 1, K.ld + 1), lower.data());
  }
  out.assign(components_.size(), {});
  for (std::size_t i = 0; i < components_.size(); ++i) {
    const Stretch p = components_[i].part;
    const auto at = static_cast<std::size_t>(p.lo);
    const bool flip = static_cast<index_t>(i) == flipped;
    if (p.size == 1) {
      out[i].g[0] = (diagonal[at] < 0) != flip ? -1 : 1;
      out[i].smallest = std::abs(diagonal[at]);
    } else if (p.size == 2) {
      polar2(diagonal[at], upper[at], lower[at], diagonal[at + 1], flip, out[i].g, out[i].smallest);
    }
  }
}

// columns of U times the small polar factors; runs of neighbouring pairs in one batch
void Gauge::rotate_small(const std::vector<Small>& polars, Mat<double> out) const {
  std::vector<double> signs(static_cast<std::size_t>(U_.cols), 1.0);
  for (std::size_t i = 0; i < components_.size(); ++i) {
    const Stretch p = components_[i].part;
    if (p.size == 1) {
      la_.copy(U_.columns(p.lo, 1), out.columns(p.lo, 1));
      signs[static_cast<std::size_t>(p.lo)] = polars[i].g[0];
    }
    if (p.size != 2) continue;
    std::vector<double> g;
    std::size_t end = i;
    while (end < components_.size() && components_[end].part.size == 2) {
      g.insert(g.end(), polars[end].g, polars[end].g + 4);
      ++end;
    }
    const index_t count = static_cast<index_t>(end - i);
    Buffer<double> G(la_, 2, 2 * count);
    la_.upload(g.data(), G);
    la_.multiply_batched(Op::none, Op::none, 1.0, U_.columns(p.lo, 2), 2 * U_.ld, G.mat().columns(0, 2), 4, 0.0,
                         out.columns(p.lo, 2), 2 * out.ld, count);
    i = end - 1;
  }
  la_.scale_columns(out, signs.data());
}

Buffer<double> Gauge::nearest(Mat<const double> K, bool flip) {
  Buffer<double> out(la_, U_.rows, U_.cols);
  std::vector<Small> small;
  sweeps_ = 0;
  small_polars(K, small, -1);

  std::vector<double> smallest(components_.size());
  const auto solve = [&](std::size_t i, bool flipped) {  // a component of size >= 3, into the columns of out
    const auto [lo, d] = components_[i].part;
    const auto Kc = K.block(lo, lo, d, d);
    Buffer<double> Z(la_, d, d);
    double s = 0;
    if (components_[i].crossing()) {
      CrossingGauge crossing(context_, Kc, components_[i].crossing_blocks, components_[i].crossing_clusters);
      crossing.solve(flipped, Z);
      sweeps_ += crossing.sweeps();
      s = crossing.conditioning();
    } else {
      s = polar_factor(context_, Kc, Z, flipped);
    }
    la_.multiply(Op::none, Op::none, 1.0, U_.columns(lo, d), Z, 0.0, out.mat().columns(lo, d));
    return s;
  };
  for (std::size_t i = 0; i < components_.size(); ++i) {
    smallest[i] = components_[i].part.size <= 2 ? small[i].smallest : solve(i, false);
  }
  const auto weakest = static_cast<std::size_t>(std::min_element(smallest.begin(), smallest.end()) - smallest.begin());
  conditioning_ = smallest[weakest];
  if (flip) {
    if (components_[weakest].part.size <= 2) {
      small_polars(K, small, static_cast<index_t>(weakest));
    } else {
      solve(weakest, true);
    }
  }
  // scale_columns in rotate_small leaves the larger components, already in place, as they are
  rotate_small(small, out);
  return out;
}

Buffer<double> Gauge::canonical(bool flip) {
  Buffer<double> out(la_, U_.rows, U_.cols);
  la_.copy(U_, out);
  std::vector<double> sign = column_signs<double>(la_, U_);
  for (std::size_t i = 0; i + 1 < clusters_.size(); ++i) {
    const index_t lo = clusters_[i], d = clusters_[i + 1] - lo;
    if (d == 1) continue;
    std::fill_n(sign.begin() + lo, d, 1.0);
    Buffer<double> V(la_, d, d);
    polar_factor(context_, U_.block(lo, lo, d, d), V);
    la_.multiply(Op::none, Op::transpose, 1.0, U_.columns(lo, d), V, 0.0, out.mat().columns(lo, d));
  }
  if (flip) sign.back() = -sign.back();
  la_.scale_columns(out, sign.data());
  conditioning_ = std::numeric_limits<double>::quiet_NaN();
  return out;
}

}  // namespace brockett
