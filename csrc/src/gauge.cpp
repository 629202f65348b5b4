#include "gauge.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "check.hpp"
#include "signs.hpp"
#include "varying_polar.hpp"

namespace brockett {

using linalg::Buffer;
using linalg::Mat;
using linalg::Op;

namespace {

constexpr int kMaxSweeps = 200;
// Alternating polar factors that move no further than this have arrived.
constexpr double kSettled = 1e-12;

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
    std::vector<Part> parts;
    for (auto it = std::lower_bound(starts.begin(), starts.end(), lo); *it < hi; ++it)
      parts.push_back({*it, it[1] - *it});
    return parts;
  };
  const auto splits = [](const std::vector<index_t>& starts, Part p) {  // a boundary lies strictly inside p
    const auto it = std::upper_bound(starts.begin(), starts.end(), p.lo);
    return *it < p.lo + p.size;
  };
  index_t lo = 0;
  for (const index_t hi : blocks_) {
    if (hi == 0 || !std::binary_search(clusters_.begin(), clusters_.end(), hi)) continue;
    Component c{{lo, hi - lo}, {}, {}};
    for (const Part& b : inside(blocks_, lo, hi)) {
      if (splits(clusters_, b)) c.crossing_blocks.push_back(b);
    }
    for (const Part& s : inside(clusters_, lo, hi)) {
      if (splits(blocks_, s)) c.crossing_clusters.push_back(s);
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
    const Part p = components_[i].part;
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

// out <- polar factor of K (d x d); its smallest singular value; with `flip` that direction is reversed
double Gauge::polar(Mat<const double> K, Mat<double> out, bool flip) const {
  const index_t d = K.rows;
  Buffer<double> work(la_, d, d), X(la_, d, d), Yt(la_, d, d);
  la_.copy(K, work);
  std::vector<double> s(static_cast<std::size_t>(d));
  la_.svd_thin(work, s.data(), X, Yt);
  if (flip) la_.scale(-1.0, X.mat().columns(d - 1, 1));
  la_.multiply(Op::none, Op::none, 1.0, X, Yt, 0.0, out);
  context_.check_interrupt();
  return s.back();
}

// columns of U times the small polar factors; runs of neighbouring pairs in one batch
void Gauge::rotate_small(const std::vector<Small>& polars, Mat<double> out) const {
  std::vector<double> signs(static_cast<std::size_t>(U_.cols), 1.0);
  for (std::size_t i = 0; i < components_.size(); ++i) {
    const Part p = components_[i].part;
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

// Z <- (G H)^T maximising tr(G H K) over a component whose blocks and clusters overlap, by alternating polar factors
// (each step is the exact maximum given the other factor, so the trace never falls). H first: with rank-deficient data
// the large cluster is the null space, and G touches only the one block that it cuts.
double Gauge::solve_crossing(const Component& c, Mat<const double> K, Mat<double> Z, bool flip) {
  const index_t lo = c.part.lo, d = c.part.size;
  Buffer<double> Gt(la_, d, d), Ht(la_, d, d), product(la_, d, d);
  la_.set_identity(Gt);
  la_.set_identity(Ht);
  const auto step = [&](const std::vector<Part>& parts, Buffer<double>& target, index_t flipped, index_t& weakest) {
    double smallest = std::numeric_limits<double>::infinity();
    for (std::size_t i = 0; i < parts.size(); ++i) {
      const index_t at = parts[i].lo - lo, size = parts[i].size;
      const double s = polar(product.mat().block(at, at, size, size), target.mat().block(at, at, size, size),
                             static_cast<index_t>(i) == flipped);
      if (s < smallest) {
        smallest = s;
        weakest = static_cast<index_t>(i);
      }
    }
    return smallest;
  };
  const auto clusters_step = [&](index_t flipped, index_t& weakest) {  // H_c^T = polar((K G)_cc)
    la_.multiply(Op::none, Op::transpose, 1.0, K, Gt, 0.0, product);
    return step(c.crossing_clusters, Ht, flipped, weakest);
  };
  const auto blocks_step = [&](index_t flipped, index_t& weakest) {  // G_b^T = polar((H K)_bb)
    la_.multiply(Op::transpose, Op::none, 1.0, Ht, K, 0.0, product);
    return step(c.crossing_blocks, Gt, flipped, weakest);
  };
  // all of G that is not the identity, its blocks side by side
  index_t height = 0, columns = 0;
  for (const Part& b : c.crossing_blocks) {
    height = std::max(height, b.size);
    columns += b.size;
  }
  const auto packed = [&] {
    Buffer<double> out(la_, height, columns);
    la_.fill(out, 0.0);
    index_t at = 0;
    for (const Part& b : c.crossing_blocks) {
      la_.copy(Gt.mat().block(b.lo - lo, b.lo - lo, b.size, b.size), out.mat().block(0, at, b.size, b.size));
      at += b.size;
    }
    return out;
  };
  const auto unpack = [&](const Buffer<double>& from, Buffer<double>& to) {
    index_t at = 0;
    for (const Part& b : c.crossing_blocks) {
      la_.copy(from.mat().block(0, at, b.size, b.size), to.mat().block(b.lo - lo, b.lo - lo, b.size, b.size));
      at += b.size;
    }
  };

  index_t weak_cluster = 0, weak_block = 0, ignored = 0;
  double in_clusters = 0, in_blocks = 0;
  // from Gt on, `sweep` taking it to the next and telling the trace there, until that has not risen `patience` times
  const auto climb = [&](int patience, auto&& sweep) {
    double before = -std::numeric_limits<double>::infinity();
    Buffer<double> arrived, moved;  // where the step before ended, and how far it went
    bool extrapolated = false;
    for (int count = 0, still = 0; count < kMaxSweeps; ++count) {
      Buffer<double> step_now = packed();
      const double trace = sweep();
      if (extrapolated && trace < before) {  // too far: on from where the step before ended
        unpack(arrived, Gt);
        moved = {};
        extrapolated = false;
        continue;
      }
      Buffer<double> now = packed();
      la_.scale(-1.0, step_now);
      la_.add(1.0, now, step_now);
      still = trace - before <= 1e-15 * std::abs(trace) ? still + 1 : 0;
      if (la_.norm(step_now) <= kSettled || still == patience) break;
      before = trace;
      // Steps that shrink by a constant factor are followed to where they end (Anderson's method of depth one: the secant
      // method where one angle is all that is free), and back onto the orthogonal matrices.
      extrapolated = false;
      if (moved.data()) {
        la_.add(-1.0, step_now, moved);
        const double change = la_.norm(moved);
        const double share = change > 0 ? la_.dot(step_now, moved) / change / change : 0;
        if (std::isfinite(share) && share > -1) {
          la_.scale(-share, arrived);
          la_.add(1 + share, now, arrived);
          unpack(arrived, product);
          step(c.crossing_blocks, Gt, -1, ignored);
          extrapolated = true;
        }
      }
      arrived = std::move(now);
      moved = std::move(step_now);
    }
  };

  // A wide cluster whose ends are cut by narrow blocks: few columns of what it takes the polar factor of depend on G.
  if (c.crossing_clusters.size() == 1 && VaryingPolar::pays(c.crossing_clusters[0].size, columns)) {
    const Part wide = c.crossing_clusters[0];
    const index_t first = wide.lo - lo, q = wide.size;
    Buffer<double> B(la_, q, q), V(la_, q, columns);
    la_.copy(K.block(first, first, q, q), B);
    std::vector<index_t> positions;  // of the crossing blocks, and those of them that lie in the cluster
    std::vector<index_t> varying;
    for (const Part& b : c.crossing_blocks) {
      for (index_t i = b.lo - lo; i < b.lo - lo + b.size; ++i) {
        la_.copy(K.block(first, i, q, 1), V.mat().columns(static_cast<index_t>(positions.size()), 1));
        if (i >= first && i < first + q) {
          la_.fill(B.mat().columns(i - first, 1), 0.0);
          varying.push_back(static_cast<index_t>(positions.size()));
        }
        positions.push_back(i);
      }
    }
    const VaryingPolar polar_of(la_, B, V);
    const index_t p = static_cast<index_t>(varying.size());
    const auto at = [](index_t i) { return static_cast<std::size_t>(i); };
    std::vector<double> fixed(at(columns * columns));  // K between the crossing blocks
    {
      Buffer<double> between(la_, columns, columns);
      for (index_t a = 0; a < columns; ++a) {
        for (const Part& b : c.crossing_blocks) {
          const auto to = std::lower_bound(positions.begin(), positions.end(), b.lo - lo) - positions.begin();
          la_.copy(K.block(b.lo - lo, positions[at(a)], b.size, 1), between.mat().block(to, a, b.size, 1));
        }
      }
      la_.download(between, fixed.data());
    }
    std::vector<double> packed_now(at(height * columns)), G(at(columns * p)), R, HK;
    climb(10, [&] {  // the angle is known better than the trace tells
      la_.download(packed(), packed_now.data());
      std::fill(G.begin(), G.end(), 0.0);
      const auto gather = [&](auto&& f) {  // f(first position, size) of the crossing blocks, counted through
        index_t from = 0;
        for (const Part& b : c.crossing_blocks) {
          f(from, b.size);
          from += b.size;
        }
      };
      gather([&](index_t from, index_t size) {  // rows of G^T that belong to the cluster
        for (index_t v = 0; v < p; ++v) {
          const index_t row = varying[at(v)] - from;
          if (row < 0 || row >= size) continue;
          for (index_t a = 0; a < size; ++a) G[at(from + a + v * columns)] = packed_now[at(row + (from + a) * height)];
        }
      });
      double trace = polar_of(G, p, R);
      HK = fixed;
      for (index_t v = 0; v < p; ++v) {
        for (index_t a = 0; a < columns; ++a) {
          HK[at(varying[at(v)] + a * columns)] = R[at(v + a * p)];
          trace -= R[at(v + a * p)] * G[at(a + v * columns)];
        }
      }
      Buffer<double> between(la_, columns, columns);
      la_.upload(HK.data(), between);
      for (std::size_t i = 0, from = 0; i < c.crossing_blocks.size(); ++i) {
        const Part& b = c.crossing_blocks[i];
        const auto corner = static_cast<index_t>(from);
        la_.copy(between.mat().block(corner, corner, b.size, b.size),
                 product.mat().block(b.lo - lo, b.lo - lo, b.size, b.size));
        from += at(b.size);
      }
      step(c.crossing_blocks, Gt, -1, ignored);
      la_.download(packed(), packed_now.data());
      gather([&](index_t from, index_t size) {
        for (index_t a = from; a < from + size; ++a) {
          for (index_t row = 0; row < size; ++row) {
            trace += packed_now[at(row + a * height)] * HK[at(from + row + a * columns)];
          }
        }
      });
      return trace;
    });
  }
  climb(2, [&] {
    ++sweeps_;
    in_clusters = clusters_step(-1, weak_cluster);
    in_blocks = blocks_step(-1, weak_block);
    return la_.dot(Gt, product);
  });
  if (flip) {
    if (in_blocks <= in_clusters) {
      blocks_step(weak_block, ignored);
    } else {
      clusters_step(weak_cluster, ignored);
    }
  }
  la_.multiply(Op::none, Op::none, 1.0, Ht, Gt, 0.0, Z);
  return std::min(in_clusters, in_blocks);
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
    const double s = components_[i].crossing() ? solve_crossing(components_[i], Kc, Z, flipped) : polar(Kc, Z, flipped);
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
    polar(U_.block(lo, lo, d, d), V, false);
    la_.multiply(Op::none, Op::transpose, 1.0, U_.columns(lo, d), V, 0.0, out.mat().columns(lo, d));
  }
  if (flip) sign.back() = -sign.back();
  la_.scale_columns(out, sign.data());
  conditioning_ = std::numeric_limits<double>::quiet_NaN();
  return out;
}

}  // namespace brockett
