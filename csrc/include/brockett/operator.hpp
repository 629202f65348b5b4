// Matrices that are known by their products with blocks of vectors, and are never formed.
#pragma once

#include <vector>

#include "brockett/context.hpp"
#include "brockett/matrix_view.hpp"

namespace brockett {

/// A linear map of rows() x cols(). Blocks are column-major views in the memory of the Context, none of them empty.
template <class T>
class BROCKETT_EXPORT Operator {
 public:
  virtual ~Operator() = default;
  virtual index_t rows() const = 0;
  virtual index_t cols() const = 0;
  /// Y (rows, b) <- A X, X (cols, b).
  virtual void apply(const Context& context, MatrixView<const T> X, MatrixView<T> Y) const = 0;
  /// X (cols, b) <- A^T Y, Y (rows, b).
  virtual void apply_transposed(const Context& context, MatrixView<const T> Y, MatrixView<T> X) const = 0;
};

/// The product F_1 F_2 … of matrices, multiplied one after the other: P W, W R^(1/2) given a factor of R, layers in a row.
///
/// The views are kept, not copied: their memory must outlive the Product. Cost of a block of b columns: 2 b times the
/// number of entries of all factors.
template <class T>
class BROCKETT_EXPORT Product final : public Operator<T> {
 public:
  /// InvalidArgument "factors" where there is none, one is empty, or neighbours do not fit.
  explicit Product(std::vector<MatrixView<const T>> factors);
  index_t rows() const override { return factors_.front().rows; }
  index_t cols() const override { return factors_.back().cols; }
  void apply(const Context& context, MatrixView<const T> X, MatrixView<T> Y) const override;
  void apply_transposed(const Context& context, MatrixView<const T> Y, MatrixView<T> X) const override;
  const std::vector<MatrixView<const T>>& factors() const { return factors_; }

 private:
  std::vector<MatrixView<const T>> factors_;
};

extern template class Product<float>;
extern template class Product<double>;

}  // namespace brockett
