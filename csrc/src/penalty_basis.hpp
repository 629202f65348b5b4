// A penalty at a given n, ready to be applied: A = T diag(lambda) T^T with blocks of equal lambda.
#pragma once

#include <vector>

#include "brockett/penalty.hpp"
#include "linalg/buffer.hpp"

namespace brockett {

class PenaltyBasis {
 public:
  /// InvalidArgument "penalty" when n or a parameter does not fit.
  PenaltyBasis(const Context& context, const Penalty& penalty, index_t n);

  index_t n() const { return n_; }
  const std::vector<double>& lambda() const { return lambda_; }  ///< ascending
  const std::vector<index_t>& blocks() const { return blocks_; } ///< starts of the blocks of equal lambda, and n
  /// Shifts of the neurons leave A as it is (so orders are only fixed up to rotation and reflection).
  bool circulant() const;

  /// X <- X T^T (none: a row of coefficients becomes one of values) or X T (transpose: values to coefficients).
  void apply(linalg::Op op, linalg::Mat<double> X) const;
  /// A as a full matrix (n x n).
  linalg::Buffer<double> matrix() const;

 private:
  void set_modes(linalg::Modes modes);
  void set_grid();
  void set_matrix();
  void apply_axes(linalg::Op op, linalg::Mat<double> X) const;

  const Context& context_;
  const Penalty& penalty_;
  index_t n_;
  linalg::Modes modes_ = linalg::Modes::fourier;
  std::vector<double> lambda_;
  std::vector<index_t> blocks_;
  std::vector<index_t> order_;     // grid: flat index of each mode, sorted by lambda
  linalg::Buffer<double> T_;       // matrix: eigenvectors in columns
};

}  // namespace brockett
