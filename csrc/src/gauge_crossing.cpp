#include "gauge_crossing.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "varying_polar.hpp"

namespace brockett {

using linalg::Buffer;
using linalg::Mat;
using linalg::Op;

namespace {

constexpr int kMaxSweeps = 200;
// Alternating polar factors that move no further than this have arrived.
constexpr double kSettled = 1e-12;

std::size_t at(index_t i) { return static_cast<std::size_t>(i); }

// f(block, positions of the blocks before it)
template <class F>
void for_each_block(const std::vector<Stretch>& blocks, F&& f) {
  index_t before = 0;
  for (const Stretch& b : blocks) {
    f(b, before);
    before += b.size;
  }
}

}  // namespace

double polar_factor(const Context& context, Mat<const double> K, Mat<double> out, bool flip) {
  auto& la = context.backend().full();
  const index_t d = K.rows;
  Buffer<double> work(la, d, d), X(la, d, d), Yt(la, d, d);
  la.copy(K, work);
  std::vector<double> s(at(d));
  la.svd_thin(work, s.data(), X, Yt);
  if (flip) la.scale(-1.0, X.mat().columns(d - 1, 1));
  la.multiply(Op::none, Op::none, 1.0, X, Yt, 0.0, out);
  context.check_interrupt();
  return s.back();
}

CrossingGauge::CrossingGauge(const Context& context, Mat<const double> K, const std::vector<Stretch>& blocks,
                             const std::vector<Stretch>& clusters)
    : context_(context),
      la_(context.backend().full()),
      K_(K),
      blocks_(blocks),
      clusters_(clusters),
      Gt_(la_, K.rows, K.rows),
      Ht_(la_, K.rows, K.rows),
      product_(la_, K.rows, K.rows) {
  for (const Stretch& b : blocks) {
    height_ = std::max(height_, b.size);
    columns_ += b.size;
  }
}

// H first: with rank-deficient data the large cluster is the null space, and G touches only the one block that it cuts.
void CrossingGauge::solve(bool flip, Mat<double> Z) {
  la_.set_identity(Gt_);
  la_.set_identity(Ht_);
  sweeps_ = 0;
  // A wide cluster whose ends are cut by narrow blocks: few columns of what it takes the polar factor of depend on G.
  if (clusters_.size() == 1 && VaryingPolar::pays(clusters_[0].size, columns_)) climb_by_few_columns();
  Buffer<double> of_clusters;  // the G that H is the answer to
  climb(2, [&] {
    ++sweeps_;
    of_clusters = packed();
    in_clusters_ = turn_clusters();
    in_blocks_ = turn_blocks();
    return la_.dot(Gt_, product_);
  });
  if (flip) {  // from the same products: of a singular one the polar factor, and its determinant, are any
    if (in_blocks_.value <= in_clusters_.value) {
      turn_blocks(in_blocks_.part);
    } else {
      const Buffer<double> last = packed();
      unpack(of_clusters, Gt_);
      turn_clusters(in_clusters_.part);
      unpack(last, Gt_);
    }
  }
  la_.multiply(Op::none, Op::none, 1.0, Ht_, Gt_, 0.0, Z);
}

double CrossingGauge::conditioning() const { return std::min(in_clusters_.value, in_blocks_.value); }

// the parts of target <- polar factors of those of product_
CrossingGauge::Weakest CrossingGauge::polars(const std::vector<Stretch>& parts, Mat<double> target, index_t flipped) {
  Weakest weakest{std::numeric_limits<double>::infinity(), 0};
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const auto [lo, size] = parts[i];
    const auto number = static_cast<index_t>(i);
    const double s = polar_factor(context_, product_.mat().block(lo, lo, size, size), target.block(lo, lo, size, size),
                                  number == flipped);
    if (s < weakest.value) weakest = {s, number};
  }
  return weakest;
}

CrossingGauge::Weakest CrossingGauge::turn_clusters(index_t flipped) {  // H_c^T = polar((K G)_cc)
  la_.multiply(Op::none, Op::transpose, 1.0, K_, Gt_, 0.0, product_);
  return polars(clusters_, Ht_, flipped);
}

CrossingGauge::Weakest CrossingGauge::turn_blocks(index_t flipped) {  // G_b^T = polar((H K)_bb)
  la_.multiply(Op::transpose, Op::none, 1.0, Ht_, K_, 0.0, product_);
  return polars(blocks_, Gt_, flipped);
}

// all of G^T that is not the identity, its blocks side by side
Buffer<double> CrossingGauge::packed() const {
  Buffer<double> out(la_, height_, columns_);
  la_.fill(out, 0.0);
  for_each_block(blocks_, [&](const Stretch& b, index_t before) {
    la_.copy(Gt_.mat().block(b.lo, b.lo, b.size, b.size), out.mat().block(0, before, b.size, b.size));
  });
  return out;
}

void CrossingGauge::unpack(const Buffer<double>& from, Mat<double> to) const {
  for_each_block(blocks_, [&](const Stretch& b, index_t before) {
    la_.copy(from.mat().block(0, before, b.size, b.size), to.block(b.lo, b.lo, b.size, b.size));
  });
}

// From G on, `sweep` taking it to the next and telling the trace there, until that has not risen `patience` times.
void CrossingGauge::climb(int patience, const std::function<double()>& sweep) {
  double before = -std::numeric_limits<double>::infinity();
  Buffer<double> arrived, moved;  // where the step before ended, and how far it went
  bool extrapolated = false;
  for (int count = 0, still = 0; count < kMaxSweeps; ++count) {
    Buffer<double> step = packed();
    const double trace = sweep();
    if (extrapolated && trace < before) {  // too far: on from where the step before ended
      unpack(arrived, Gt_);
      moved = {};
      extrapolated = false;
      continue;
    }
    Buffer<double> now = packed();
    la_.scale(-1.0, step);
    la_.add(1.0, now, step);
    still = trace - before <= 1e-15 * std::abs(trace) ? still + 1 : 0;
    if (la_.norm(step) <= kSettled || still == patience) break;
    before = trace;
    // Steps that shrink by a constant factor are followed to where they end (Anderson's method of depth one: the secant
    // method where one angle is all that is free), and back onto the orthogonal matrices. Not so late that no sweep would be
    // left to judge it, and one to go back.
    extrapolated = false;
    if (moved.data() && count + 2 < kMaxSweeps) {
      la_.add(-1.0, step, moved);
      const double change = la_.norm(moved);
      const double share = change > 0 ? la_.dot(step, moved) / change / change : 0;
      if (std::isfinite(share) && share > -1) {
        la_.scale(-share, arrived);
        la_.add(1 + share, now, arrived);
        unpack(arrived, product_);
        polars(blocks_, Gt_);
        extrapolated = true;
      }
    }
    arrived = std::move(now);
    moved = std::move(step);
  }
}

// The one cluster is wide and the blocks are narrow. With V = the columns of K that belong to the blocks, within the cluster,
// its polar factor is that of [V G, B]; the blocks see of H K only the rows and columns that are their own.
void CrossingGauge::climb_by_few_columns() {
  const index_t first = clusters_[0].lo, q = clusters_[0].size, j = columns_;
  Buffer<double> B(la_, q, q), V(la_, q, j), between(la_, j, j);
  la_.copy(K_.block(first, first, q, q), B);
  std::vector<index_t> varying;  // positions of the blocks, counted through, that lie in the cluster
  for_each_block(blocks_, [&](const Stretch& b, index_t before) {
    la_.copy(K_.block(first, b.lo, q, b.size), V.mat().columns(before, b.size));
    for_each_block(blocks_, [&](const Stretch& row, index_t above) {
      la_.copy(K_.block(row.lo, b.lo, row.size, b.size), between.mat().block(above, before, row.size, b.size));
    });
    for (index_t i = std::max(b.lo, first); i < std::min(b.lo + b.size, first + q); ++i) {
      la_.fill(B.mat().columns(i - first, 1), 0.0);
      varying.push_back(before + i - b.lo);
    }
  });
  const VaryingPolar polar_of(la_, B, V);
  const index_t p = static_cast<index_t>(varying.size());
  std::vector<double> fixed(at(j * j)), Gt(at(height_ * j)), G(at(j * p)), R, HK;
  la_.download(between, fixed.data());

  climb(10, [&] {  // the angle is known better than the trace tells
    la_.download(packed(), Gt.data());
    std::fill(G.begin(), G.end(), 0.0);
    for_each_block(blocks_, [&](const Stretch& b, index_t before) {
      for (index_t v = 0; v < p; ++v) {
        const index_t row = varying[at(v)] - before;
        if (row < 0 || row >= b.size) continue;
        for (index_t a = before; a < before + b.size; ++a) G[at(a + v * j)] = Gt[at(row + a * height_)];
      }
    });
    double trace = polar_of(G, p, R);
    HK = fixed;
    for (index_t v = 0; v < p; ++v) {
      for (index_t a = 0; a < j; ++a) {
        HK[at(varying[at(v)] + a * j)] = R[at(v + a * p)];
        trace -= R[at(v + a * p)] * G[at(a + v * j)];
      }
    }
    la_.upload(HK.data(), between);
    for_each_block(blocks_, [&](const Stretch& b, index_t before) {
      la_.copy(between.mat().block(before, before, b.size, b.size), product_.mat().block(b.lo, b.lo, b.size, b.size));
    });
    polars(blocks_, Gt_);
    for (const Stretch& b : blocks_) {
      trace += la_.dot(Gt_.mat().block(b.lo, b.lo, b.size, b.size), product_.mat().block(b.lo, b.lo, b.size, b.size));
    }
    return trace;
  });
}

}  // namespace brockett
