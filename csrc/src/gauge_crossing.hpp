// The gauge where blocks of equal penalty and clusters of equal variance cut each other.
#pragma once

#include <functional>
#include <vector>

#include "brockett/context.hpp"
#include "linalg/buffer.hpp"

namespace brockett {

/// Positions [lo, lo + size).
struct Stretch {
  index_t lo = 0, size = 0;
};

/// out <- polar factor of K (d x d); returns its smallest singular value. With `flip` that direction is reversed.
double polar_factor(const Context& context, linalg::Mat<const double> K, linalg::Mat<double> out, bool flip = false);

/// G, orthogonal in the blocks, and H, orthogonal in the clusters, that maximise tr(G H K), by alternating polar factors: each
/// step is the exact maximum given the other factor, so the trace never falls. From G = I, to a maximum beside which there is
/// no larger one.
class CrossingGauge {
 public:
  /// K (d x d); the blocks and clusters in it that a boundary of the other kind cuts. G and H are I outside of them.
  CrossingGauge(const Context& context, linalg::Mat<const double> K, const std::vector<Stretch>& blocks,
                const std::vector<Stretch>& clusters);

  /// Z <- (G H)^T. With `flip` the least certain direction of all the polar factors is reversed at the end.
  void solve(bool flip, linalg::Mat<double> Z);

  /// Smallest singular value of what the last polar factors were taken of.
  double conditioning() const;
  /// Alternations of whole polar factors that solve() took.
  int sweeps() const { return sweeps_; }

 private:
  struct Weakest {  // the smallest singular value, and the part that has it
    double value = 0;
    index_t part = 0;
  };

  Weakest polars(const std::vector<Stretch>& parts, linalg::Mat<double> target, index_t flipped = -1);
  Weakest turn_clusters(index_t flipped = -1);
  Weakest turn_blocks(index_t flipped = -1);
  linalg::Buffer<double> packed() const;
  void unpack(const linalg::Buffer<double>& from, linalg::Mat<double> to) const;
  void climb(int patience, const std::function<double()>& sweep);
  void climb_by_few_columns();

  const Context& context_;
  linalg::LinAlg<double>& la_;
  linalg::Mat<const double> K_;
  const std::vector<Stretch>& blocks_;
  const std::vector<Stretch>& clusters_;
  index_t height_ = 0, columns_ = 0;  // of all blocks side by side
  linalg::Buffer<double> Gt_, Ht_, product_;
  Weakest in_blocks_, in_clusters_;
  int sweeps_ = 0;
};

}  // namespace brockett
