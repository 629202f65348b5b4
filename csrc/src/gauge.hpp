// Which of the equally good descramblers: all minimisers are P = T G H U^T with G orthogonal in the blocks of equal
// penalty and H orthogonal in the clusters of equal variance.
#pragma once

#include <vector>

#include "gauge_crossing.hpp"
#include "linalg/buffer.hpp"
#include "penalty_basis.hpp"

namespace brockett {

/// Starts of the runs of equal values (descending; of what was decomposed: the variances, or the deviations of a square
/// root), and their number at the end: neighbours within kTie of the largest are one cluster.
std::vector<index_t> equal_clusters(const std::vector<double>& values);

/// K = U^T P0^T T, by which a gauge is judged: tr(P0^T P) = tr(G H K). U (n x n); an empty P0 stands for I.
linalg::Buffer<double> gauge_overlap(const Context& context, const PenaltyBasis& basis, linalg::Mat<const double> U,
                                     MatrixView<const double> P0);

class Gauge {
 public:
  /// Starts of the blocks and of the clusters of the same positions, their number at the end of both. U: eigenvectors in
  /// columns, descending, one a position; it must outlive the Gauge.
  Gauge(const Context& context, std::vector<index_t> blocks, std::vector<index_t> clusters,
        linalg::Mat<const double> U);

  /// U (G H)^T for which P = T (U (G H)^T)^T is nearest to P0 in the Frobenius norm, K being their overlap. With `flip`,
  /// nearest among those of the other determinant: the least certain direction of all blocks is reversed.
  linalg::Buffer<double> nearest(linalg::Mat<const double> K, bool flip);
  /// Single columns: largest entry positive; clusters: nearest to the coordinate axes of their own positions. `flip`
  /// reverses the last column.
  linalg::Buffer<double> canonical(bool flip);

  /// Smallest singular value of the block overlaps that the last nearest() used.
  double conditioning() const { return conditioning_; }
  /// Alternations of whole polar factors that the last nearest() took where blocks and clusters cross.
  int sweeps() const { return sweeps_; }

 private:
  // positions of the spectrum that are solved together
  struct Component {
    Stretch part;
    // blocks of lambda that lie in more than one cluster, and clusters that lie in more than one block, counted from part.lo
    std::vector<Stretch> crossing_blocks, crossing_clusters;
    bool crossing() const { return !crossing_blocks.empty() && !crossing_clusters.empty(); }
  };
  struct Small {  // polar factor of a 1 x 1 or 2 x 2 overlap, column-major
    double g[4] = {1, 0, 0, 1};
    double smallest = 0;
  };

  void find_components();
  void small_polars(linalg::Mat<const double> K, std::vector<Small>& out, index_t flipped) const;
  void rotate_small(const std::vector<Small>& polars, linalg::Mat<double> out) const;

  const Context& context_;
  linalg::LinAlg<double>& la_;
  std::vector<index_t> blocks_, clusters_;
  linalg::Mat<const double> U_;
  std::vector<Component> components_;
  double conditioning_ = 0;
  int sweeps_ = 0;
};

}  // namespace brockett
