#include "brockett/operator.hpp"

#include <utility>

#include "check.hpp"

namespace brockett {

using linalg::Buffer;
using linalg::Mat;
using linalg::Op;

template <class T>
Product<T>::Product(std::vector<MatrixView<const T>> factors) : factors_(std::move(factors)) {
  if (factors_.empty()) throw InvalidArgument("factors", "must be at least one matrix");
  for (std::size_t i = 0; i < factors_.size(); ++i) {
    check_view("factors", factors_[i]);
    if (i > 0 && factors_[i - 1].cols != factors_[i].rows) {
      throw InvalidArgument("factors", "factor " + std::to_string(i) + " of shape " +
                                           shape_text(factors_[i].rows, factors_[i].cols) +
                                           " does not fit the one before it, of shape " +
                                           shape_text(factors_[i - 1].rows, factors_[i - 1].cols));
    }
  }
}

namespace {

/// Y <- F_1 F_2 … X, or the product of the transposes in reverse order.
template <class T>
void chain(const Context& context, const std::vector<MatrixView<const T>>& factors, bool transposed, Mat<const T> X,
           Mat<T> Y) {
  auto& la = linalg::of<T>(context.backend());
  const std::size_t n = factors.size();
  Buffer<T> held;
  Mat<const T> from = X;
  for (std::size_t i = 0; i < n; ++i) {
    const MatrixView<const T>& F = factors[transposed ? i : n - 1 - i];
    const Op op = transposed ? flip(op_of(F)) : op_of(F);
    Buffer<T> next;
    Mat<T> to = Y;
    if (i + 1 < n) {
      next = Buffer<T>(la, transposed ? F.cols : F.rows, X.cols);
      to = next;
    }
    la.multiply(op, Op::none, T(1), columns_of(F), from, T(0), to);
    held = std::move(next);
    from = held;
  }
}

}  // namespace

template <class T>
void Product<T>::apply(const Context& context, MatrixView<const T> X, MatrixView<T> Y) const {
  chain<T>(context, factors_, false, columns_of(X), columns_of(Y));
}

template <class T>
void Product<T>::apply_transposed(const Context& context, MatrixView<const T> Y, MatrixView<T> X) const {
  chain<T>(context, factors_, true, columns_of(Y), columns_of(X));
}

template class Product<float>;
template class Product<double>;

}  // namespace brockett
