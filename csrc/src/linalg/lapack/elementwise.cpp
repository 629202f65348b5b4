// Loops over the entries, column by column. Sums run in float64 over eight lanes, so that they vectorize without
// leave to reorder additions, and chunk by chunk, so that rounding grows with the number of chunks and not of
// entries.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "linalg/lapack/lapack_linalg.hpp"
#include "philox.hpp"

namespace brockett::linalg::lapack {
namespace {

constexpr int kLanes = 8;
constexpr index_t kChunk = 1024;

// sum_i term(i), i < n
template <class Term>
inline double lane_sum(index_t n, Term&& term) {
  double total = 0;
  for (index_t start = 0; start < n; start += kChunk) {
    const index_t stop = std::min(n, start + kChunk);
    std::array<double, kLanes> lanes{};
    index_t i = start;
    for (; i + kLanes <= stop; i += kLanes) {
      for (int l = 0; l < kLanes; ++l) lanes[l] += term(i + l);
    }
    for (; i < stop; ++i) lanes[0] += term(i);
    total += ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
  }
  return total;
}

// f(column of A as pointer, length); a packed matrix is one long column.
template <class T, class F>
inline void for_each_column(Mat<T> A, F&& f) {
  if (A.empty()) return;
  if (A.ld == A.rows) return f(A.data, A.rows * A.cols);
  for (index_t j = 0; j < A.cols; ++j) f(A.data + j * A.ld, A.rows);
}

template <class T>
T largest_magnitude(const T* a, index_t n) {
  std::array<T, kLanes> lanes{};
  index_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int l = 0; l < kLanes; ++l) {
      const T x = std::abs(a[i + l]);
      lanes[l] = x > lanes[l] ? x : lanes[l];
    }
  }
  for (; i < n; ++i) lanes[0] = std::max(lanes[0], std::abs(a[i]));
  return *std::max_element(lanes.begin(), lanes.end());
}

}  // namespace

template <class T>
void Elementwise<T>::fill(Mat<T> A, T value) {
  for_each_column(A, [value](T* a, index_t n) { std::fill_n(a, n, value); });
}

template <class T>
void Elementwise<T>::set_identity(Mat<T> A) {
  fill(A, T{0});
  for (index_t i = 0; i < std::min(A.rows, A.cols); ++i) A.data[i + i * A.ld] = T{1};
}

template <class T>
void Elementwise<T>::normals(Mat<T> A, std::uint64_t seed) {
  // Numbers 2p and 2p + 1 share a counter, a logarithm and an angle.
  index_t i = 0, j = 0;
  const auto put = [&](double value) {
    A.data[i + j * A.ld] = static_cast<T>(value);
    if (++i == A.rows) i = 0, ++j;
  };
  const index_t count = A.rows * A.cols;
  for (index_t k = 0; k < count; k += 2) {
    const auto pair = philox::normal_pair(seed, static_cast<std::uint64_t>(k / 2));
    put(pair[0]);
    if (k + 1 < count) put(pair[1]);
  }
}

template <class T>
void Elementwise<T>::scale(T alpha, Mat<T> A) {
  for_each_column(A, [alpha](T* a, index_t n) {
    for (index_t i = 0; i < n; ++i) a[i] *= alpha;
  });
}

template <class T>
void Elementwise<T>::add(T alpha, Mat<const T> X, Mat<T> Y) {
  for (index_t j = 0; j < X.cols; ++j) {
    const T* __restrict x = X.data + j * X.ld;
    T* __restrict y = Y.data + j * Y.ld;
    for (index_t i = 0; i < X.rows; ++i) y[i] += alpha * x[i];
  }
}

template <class T>
void Elementwise<T>::scale_columns(Mat<T> A, const T* host_d) {
  for (index_t j = 0; j < A.cols; ++j) {
    T* a = A.data + j * A.ld;
    const T d = host_d[j];
    for (index_t i = 0; i < A.rows; ++i) a[i] *= d;
  }
}

template <class T>
void Elementwise<T>::scale_rows(Mat<T> A, const T* host_d) {
  for (index_t j = 0; j < A.cols; ++j) {
    T* __restrict a = A.data + j * A.ld;
    for (index_t i = 0; i < A.rows; ++i) a[i] *= host_d[i];
  }
}

template <class T>
void Elementwise<T>::square(Mat<T> A) {
  for_each_column(A, [](T* a, index_t n) {
    for (index_t i = 0; i < n; ++i) a[i] *= a[i];
  });
}

template <class T>
double Elementwise<T>::max_abs(Mat<const T> A) {
  double largest = 0;
  for_each_column(A, [&](const T* a, index_t n) { largest = std::max<double>(largest, largest_magnitude(a, n)); });
  return largest;
}

template <class T>
double Elementwise<T>::norm(Mat<const T> A) {
  const auto sum_of_squares = [&](double scale) {
    double total = 0;
    for_each_column(A, [&](const T* a, index_t n) {
      total += lane_sum(n, [a, scale](index_t i) {
        const double x = static_cast<double>(a[i]) * scale;
        return x * x;
      });
    });
    return total;
  };
  const double plain = sum_of_squares(1);
  // Squares of float never leave the range of double. Squares of double below 1e-308 are lost, which matters only to
  // a sum that is itself near there: the margin covers 1e50 such entries.
  if (std::isnan(plain) || (plain > 1e-240 && plain <= std::numeric_limits<double>::max())) return std::sqrt(plain);
  const double largest = max_abs(A);
  if (largest == 0 || std::isinf(largest)) return largest;
  const int exponent = std::ilogb(largest);
  // 2^-exponent may itself leave the range, so in two steps: entries end up between 2^-k and 2^1.
  const double half_scale = std::ldexp(1.0, -(exponent / 2)), other_half = std::ldexp(1.0, -(exponent - exponent / 2));
  double total = 0;
  for_each_column(A, [&](const T* a, index_t n) {
    total += lane_sum(n, [&](index_t i) {
      const double x = static_cast<double>(a[i]) * half_scale * other_half;
      return x * x;
    });
  });
  return std::ldexp(std::sqrt(total), exponent);
}

template <class T>
double Elementwise<T>::dot(Mat<const T> A, Mat<const T> B) {
  double total = 0;
  for (index_t j = 0; j < A.cols; ++j) {
    const T* a = A.data + j * A.ld;
    const T* b = B.data + j * B.ld;
    total += lane_sum(A.rows, [a, b](index_t i) { return static_cast<double>(a[i]) * static_cast<double>(b[i]); });
  }
  return total;
}

template <class T>
void Elementwise<T>::column_dots(Mat<const T> A, Mat<const T> B, double* host_out) {
  for (index_t j = 0; j < A.cols; ++j) host_out[j] = dot(A.columns(j, 1), B.columns(j, 1));
}

template <class T>
void Elementwise<T>::column_argmax(Mat<const T> A, index_t* host_row, T* host_value) {
  for (index_t j = 0; j < A.cols; ++j) {
    const T* a = A.data + j * A.ld;
    // The maximum vectorizes, a search that carries its position does not.
    const T largest = largest_magnitude(a, A.rows);
    index_t row = 0;
    while (row + 1 < A.rows && std::abs(a[row]) != largest) ++row;
    host_row[j] = row;
    host_value[j] = a[row];
  }
}

template class Elementwise<float>;
template class Elementwise<double>;

}  // namespace brockett::linalg::lapack
