// Checks of what callers hand in, and the views that the algorithms work on.
#pragma once

#include <cmath>
#include <cstdio>
#include <limits>
#include <string>
#include <type_traits>

#include "brockett/autocorrelation.hpp"
#include "brockett/error.hpp"
#include "linalg/buffer.hpp"
#include "linalg/linalg.hpp"

namespace brockett {

/// Magnitudes whose squares neither overflow nor vanish in float64 sums: data outside are refused, not rounded away.
inline constexpr double kLargestMagnitude = 1e150;
inline constexpr double kSmallestMagnitude = 1e-150;

/// Equal eigenvalues leave an eigensolver at most this far apart, times the largest of all (2.4 eps measured for null spaces
/// at n = 1024). With n eps instead distinct small variances pass for equal: 2e-4 above the optimum on smooth data (n = 512,
/// 4000 samples, noise 1e-4), where this is 6e-11 above it.
inline constexpr double kTie = 8 * std::numeric_limits<double>::epsilon();

/// The column-major reading of a view: the matrix itself, or, for a row-major view, its transpose.
template <class T>
linalg::Mat<T> columns_of(MatrixView<T> A) {
  return A.order == Order::column_major ? linalg::Mat<T>(A.data, A.rows, A.cols, A.ld)
                                        : linalg::Mat<T>(A.data, A.cols, A.rows, A.ld);
}
/// How columns_of(A) has to enter a product to stand for A.
template <class T>
linalg::Op op_of(MatrixView<T> A) {
  return A.order == Order::column_major ? linalg::Op::none : linalg::Op::transpose;
}
inline linalg::Op flip(linalg::Op op) { return op == linalg::Op::none ? linalg::Op::transpose : linalg::Op::none; }

template <class T>
constexpr DType dtype_of() {
  return std::is_same_v<std::remove_const_t<T>, float> ? DType::float32 : DType::float64;
}

inline std::string shape_text(index_t rows, index_t cols) {
  return "(" + std::to_string(rows) + ", " + std::to_string(cols) + ")";
}

/// Rows, columns, data and leading dimension make sense.
template <class T>
void check_view(const char* name, MatrixView<T> A) {
  if (A.rows < 1 || A.cols < 1 || A.data == nullptr) {
    throw InvalidArgument(name, "must not be empty, has shape " + shape_text(A.rows, A.cols));
  }
  const index_t least = A.order == Order::row_major ? A.cols : A.rows;
  if (A.ld < least) {
    throw InvalidArgument(name, "leading dimension " + std::to_string(A.ld) + " is below " + std::to_string(least));
  }
}

/// No NaN, no Inf; the first one met in memory order is named by its (row, column). Returns the largest magnitude.
template <class T>
double check_finite(linalg::Backend& backend, const char* name, MatrixView<T> A) {
  const auto M = columns_of(A);
  const double magnitude = backend.full().max_abs_of(dtype_of<T>(), M.data, M.rows, M.cols, M.ld);
  if (std::isfinite(magnitude)) return magnitude;
  const index_t at = backend.full().first_nonfinite(dtype_of<T>(), M.data, M.rows, M.cols, M.ld);
  const index_t i = at % M.rows, j = at / M.rows;
  throw A.order == Order::column_major ? NonFinite(name, i, j) : NonFinite(name, j, i);
}

template <class T>
double check_matrix(linalg::Backend& backend, const char* name, MatrixView<T> A) {
  check_view(name, A);
  return check_finite(backend, name, A);
}

inline void check_square(const char* name, index_t rows, index_t cols, index_t n) {
  if (rows != n || cols != n) {
    throw InvalidArgument(name, "must have shape " + shape_text(n, n) + ", has " + shape_text(rows, cols));
  }
}

/// P W of finite W may have left the range of T: refused, named "W".
template <class T>
void check_weights_finite(const Context& context, MatrixView<const T> weights) {
  const auto M = columns_of(weights);
  if (!std::isfinite(context.backend().full().max_abs_of(dtype_of<T>(), M.data, M.rows, M.cols, M.ld))) {
    throw InvalidArgument("W", "P W overflows its own type; rescale the weights");
  }
}

/// max|entry| = `magnitude` may enter float64 sums of squares.
inline void check_magnitude(const char* name, double magnitude) {
  if (magnitude >= kLargestMagnitude || (magnitude > 0 && magnitude < kSmallestMagnitude)) {
    char text[160];
    std::snprintf(text, sizeof text,
                  "largest magnitude %.3g is outside [1e-150, 1e150), its square leaves float64; rescale the data",
                  magnitude);
    throw InvalidArgument(name, text);
  }
}

/// The float64 copy of a column-major matrix of any type.
template <class T>
linalg::Buffer<double> to_double(linalg::Backend& backend, linalg::Mat<const T> A) {
  linalg::Buffer<double> out(backend.full(), A.rows, A.cols);
  backend.full().convert_from(dtype_of<T>(), A.data, A.ld, out);
  return out;
}

/// (A + A^T) / 2 of a square view, as a full column-major matrix; refused when A is not symmetric to 1e-8.
linalg::Buffer<double> symmetric_copy(linalg::Backend& backend, const char* name, MatrixView<const double> A);

/// A result matrix in backend memory, freed with its last owner.
template <class T>
Array<T> make_array(const Context& context, index_t rows, index_t cols, Order order = Order::row_major) {
  auto backend = context.shared_backend();
  T* p = static_cast<T*>(linalg::of<T>(*backend).allocate(sizeof(T) * static_cast<std::size_t>(rows * cols)));
  return {std::shared_ptr<T>(p, [backend](T* q) { linalg::of<T>(*backend).deallocate(q); }), rows, cols, order};
}

/// A float64 column-major matrix cast to T; its columns are the rows of the row-major result (the transpose).
template <class T>
Array<T> row_major_array(const Context& context, linalg::Mat<const double> transposed) {
  auto out = make_array<T>(context, transposed.cols, transposed.rows, Order::row_major);
  context.backend().full().convert_to(transposed, dtype_of<T>(), out.data(), transposed.rows);
  return out;
}

}  // namespace brockett
