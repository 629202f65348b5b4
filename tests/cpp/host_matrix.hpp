// Matrices of the tests: on the host, column-major, with the plain textbook loops that results are compared to.
#pragma once

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <random>
#include <vector>

#include "brockett/matrix_view.hpp"

namespace brockett::test {

template <class T>
struct HostMatrix {
  index_t rows = 0;
  index_t cols = 0;
  std::vector<T> data;

  HostMatrix() = default;
  HostMatrix(index_t rows_, index_t cols_, T value = T{0})
      : rows(rows_), cols(cols_), data(static_cast<std::size_t>(rows_ * cols_), value) {}
  /// Row by row, as one writes it down.
  HostMatrix(std::initializer_list<std::initializer_list<T>> lines)
      : HostMatrix(static_cast<index_t>(lines.size()),
                   lines.size() == 0 ? 0 : static_cast<index_t>(lines.begin()->size())) {
    index_t i = 0;
    for (const auto& line : lines) {
      index_t j = 0;
      for (const T x : line) (*this)(i, j++) = x;
      ++i;
    }
  }
  T& operator()(index_t i, index_t j) { return data[static_cast<std::size_t>(i + j * rows)]; }
  T operator()(index_t i, index_t j) const { return data[static_cast<std::size_t>(i + j * rows)]; }

  MatrixView<T> view() { return {data.data(), rows, cols, Order::column_major}; }
  MatrixView<const T> view() const { return {data.data(), rows, cols, Order::column_major}; }

  HostMatrix transposed() const {
    HostMatrix t(cols, rows);
    for (index_t i = 0; i < rows; ++i) {
      for (index_t j = 0; j < cols; ++j) t(j, i) = (*this)(i, j);
    }
    return t;
  }
  HostMatrix block(index_t row, index_t col, index_t n_rows, index_t n_cols) const {
    HostMatrix b(n_rows, n_cols);
    for (index_t j = 0; j < n_cols; ++j) {
      for (index_t i = 0; i < n_rows; ++i) b(i, j) = (*this)(row + i, col + j);
    }
    return b;
  }
  template <class U>
  HostMatrix<U> as() const {
    HostMatrix<U> out(rows, cols);
    std::transform(data.begin(), data.end(), out.data.begin(), [](T x) { return static_cast<U>(x); });
    return out;
  }

  static HostMatrix identity(index_t n) {
    HostMatrix out(n, n);
    for (index_t i = 0; i < n; ++i) out(i, i) = T{1};
    return out;
  }
  static HostMatrix diagonal(const std::vector<T>& d) {
    HostMatrix out(static_cast<index_t>(d.size()), static_cast<index_t>(d.size()));
    for (index_t i = 0; i < out.rows; ++i) out(i, i) = d[static_cast<std::size_t>(i)];
    return out;
  }
  /// Independent standard normal entries; not from Philox, which is under test itself.
  static HostMatrix random(index_t rows, index_t cols, unsigned seed) {
    std::mt19937_64 bits(seed);
    std::normal_distribution<double> normal;
    HostMatrix out(rows, cols);
    for (T& x : out.data) x = static_cast<T>(normal(bits));
    return out;
  }
};

/// A B in double.
template <class T, class U>
HostMatrix<double> product(const HostMatrix<T>& A, const HostMatrix<U>& B) {
  HostMatrix<double> C(A.rows, B.cols);
  for (index_t j = 0; j < B.cols; ++j) {
    for (index_t k = 0; k < A.cols; ++k) {
      const auto b = static_cast<double>(B(k, j));
      for (index_t i = 0; i < A.rows; ++i) C(i, j) += static_cast<double>(A(i, k)) * b;
    }
  }
  return C;
}

/// max_ij |A_ij - B_ij|; infinite where the shapes differ or a difference is NaN.
template <class T, class U>
double difference(const HostMatrix<T>& A, const HostMatrix<U>& B) {
  if (A.rows != B.rows || A.cols != B.cols) return INFINITY;
  double largest = 0;
  for (std::size_t i = 0; i < A.data.size(); ++i) {
    const double d = std::abs(static_cast<double>(A.data[i]) - static_cast<double>(B.data[i]));
    if (!(d <= largest)) largest = std::isnan(d) ? INFINITY : d;
  }
  return largest;
}

/// max |Q^T Q - I|
template <class T>
double orthogonality_error(const HostMatrix<T>& Q) {
  return difference(product(Q.transposed(), Q), HostMatrix<double>::identity(Q.cols));
}

template <class T>
double largest_entry(const HostMatrix<T>& A) {
  return difference(A, HostMatrix<T>(A.rows, A.cols));
}

}  // namespace brockett::test
