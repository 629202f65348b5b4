// What the Krylov methods iterate on: a matrix, or an operator of the caller.
#pragma once

#include <cmath>

#include "brockett/operator.hpp"
#include "check.hpp"
#include "krylov.hpp"
#include "scaled_copy.hpp"

namespace brockett {

/// A = op_a(M) of a column-major M. Blocks go there and back through the columns of M at twice the speed of its rows (a
/// column stays in the cache between the two products), so an M whose rows are what the basis needs is turned once.
template <class T>
class DenseMap final : public LinearMap<T> {
 public:
  DenseMap(const Context& context, linalg::Mat<const T> M, linalg::Op op_a, bool on_the_right = false)
      : backend_(context.backend()), la_(linalg::of<T>(backend_)), ld_(backend_.full()), M_(M), op_a_(op_a) {
    if (of_M(basis_side(rows(), cols(), on_the_right)) == linalg::Op::none) {
      turned_ = linalg::Buffer<T>(la_, M.cols, M.rows);
      la_.transpose(M, turned_);
      M_ = turned_;
      op_a_ = flip(op_a);
    }
  }
  index_t rows() const override { return op_a_ == linalg::Op::none ? M_.rows : M_.cols; }
  index_t cols() const override { return op_a_ == linalg::Op::none ? M_.cols : M_.rows; }
  void apply(linalg::Op op, linalg::Mat<const T> X, linalg::Mat<T> Y) const override {
    la_.multiply(of_M(op), linalg::Op::none, T(1), M_, X, T(0), Y);
  }
  void there_and_back(linalg::Op op, linalg::Mat<const T> X, linalg::Mat<T> Y, linalg::Mat<T> Z) const override {
    la_.multiply_there_and_back(of_M(op), M_, X, Y, Z);
  }
  /// float: products of 128 terms in float, added up in float64: relative errors of 3e-8 for 4096 terms, where sums in
  /// float alone have 5e-7 and hide what is to be measured, at two thirds of the speed of float.
  void apply_accurately(linalg::Op op, linalg::Mat<const T> X, linalg::Mat<double> Y) const override {
    using linalg::Mat;
    using linalg::Op;
    const Op turned = of_M(op);
    if constexpr (std::is_same_v<T, double>) {
      la_.multiply(turned, Op::none, 1.0, M_, X, 0.0, Y);
    } else {
      constexpr index_t step = 128;
      linalg::Buffer<float> part(la_, Y.rows, Y.cols);
      linalg::Buffer<double> wide(ld_, Y.rows, Y.cols);
      for (index_t first = 0; first < X.rows; first += step) {
        const index_t count = std::min(step, X.rows - first);
        const Mat<const float> piece =
            turned == Op::none ? M_.columns(first, count) : M_.block(first, 0, count, M_.cols);
        la_.multiply(turned, Op::none, 1.0F, piece, X.block(first, 0, count, X.cols), 0.0F, part);
        ld_.convert_from(DType::float32, part.data(), part.rows(), first == 0 ? Y : wide.mat());
        if (first > 0) ld_.add(1.0, wide, Y);
      }
    }
  }
  std::shared_ptr<void> narrow_scope() const override { return backend_.narrow_scope(); }

 private:
  linalg::Op of_M(linalg::Op op) const { return op_a_ == linalg::Op::none ? op : flip(op); }
  linalg::Backend& backend_;
  linalg::LinAlg<T>& la_;
  linalg::LinAlg<double>& ld_;
  linalg::Mat<const T> M_;
  linalg::Op op_a_;
  linalg::Buffer<T> turned_;
};

/// An operator of the caller, scaled by a power of two so that squares fit into T; what it returns is looked at.
template <class T>
class OperatorMap final : public LinearMap<T> {
 public:
  OperatorMap(const Context& context, const Operator<T>& A) : context_(context), A_(A) {
    // the scale from one image of a random vector: within a few orders of magnitude of the norm is enough
    auto& la = linalg::of<T>(context.backend());
    linalg::Buffer<T> x(la, A.cols(), 1), y(la, A.rows(), 1), back(la, A.cols(), 1);
    la.normals(x, 0x5ca1e);
    apply(linalg::Op::none, x, y);
    const double largest = la.max_abs(y);
    scale_ = safe_scale<T>(largest, std::is_same_v<T, float> ? 1e12 : 1e100);
  }
  index_t rows() const override { return A_.rows(); }
  index_t cols() const override { return A_.cols(); }
  double scale() const { return scale_; }
  void apply(linalg::Op op, linalg::Mat<const T> X, linalg::Mat<T> Y) const override {
    const MatrixView<const T> x(X.data, X.rows, X.cols, X.ld, Order::column_major);
    const MatrixView<T> y(Y.data, Y.rows, Y.cols, Y.ld, Order::column_major);
    if (op == linalg::Op::none) {
      A_.apply(context_, x, y);
    } else {
      A_.apply_transposed(context_, x, y);
    }
    if (!std::isfinite(context_.backend().full().max_abs_of(dtype_of<T>(), Y.data, Y.rows, Y.cols, Y.ld))) {
      throw InvalidArgument("A", op == linalg::Op::none ? "the operator's product holds NaN or Inf"
                                                        : "the transposed operator's product holds NaN or Inf");
    }
    if (scale_ != 1) scale_exactly(linalg::of<T>(context_.backend()), scale_, Y);
  }
  void there_and_back(linalg::Op op, linalg::Mat<const T> X, linalg::Mat<T> Y, linalg::Mat<T> Z) const override {
    apply(op, X, Y);
    apply(flip(op), Y, Z);
  }
  void apply_accurately(linalg::Op op, linalg::Mat<const T> X, linalg::Mat<double> Y) const override {
    linalg::Buffer<T> image(linalg::of<T>(context_.backend()), Y.rows, Y.cols);
    apply(op, X, image);
    context_.backend().full().convert_from(dtype_of<T>(), image.data(), image.rows(), Y);
  }
  std::shared_ptr<void> narrow_scope() const override {
    const bool ours = dynamic_cast<const Product<T>*>(&A_) != nullptr;
    return ours ? context_.backend().narrow_scope() : nullptr;
  }

 private:
  const Context& context_;
  const Operator<T>& A_;
  double scale_ = 1;
};

}  // namespace brockett
