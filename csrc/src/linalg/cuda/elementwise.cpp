// What goes over entries, and what reduces them to numbers: partial sums on the device, the last step on the host.
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "linalg/cuda/cuda_linalg.hpp"

namespace brockett::linalg::cuda {
namespace {

// The sum of the partial sums that `queue` writes.
template <class Queue>
double total_of(Device& device, index_t size, const char* what, Queue&& queue) {
  std::vector<double> parts(static_cast<std::size_t>(kernels::partials(size)));
  const Scratch<double> out(device, static_cast<index_t>(parts.size()));
  check(queue(out.data()), what);
  device.download(out.data(), parts.data(), static_cast<index_t>(parts.size()));
  return std::accumulate(parts.begin(), parts.end(), 0.0);
}

// A vector of the host where a kernel can read it.
template <class T>
class OnDevice {
 public:
  OnDevice(Device& device, const T* host, index_t count) : data_(device, count) {
    const std::size_t bytes = sizeof(T) * static_cast<std::size_t>(count);
    device.upload(host, data_.data(), bytes, 1, bytes);
  }
  const T* data() const { return data_.data(); }

 private:
  Scratch<T> data_;
};

}  // namespace

template <class T>
void Elementwise<T>::fill(Mat<T> A, T value) {
  if (A.empty()) return;
  const Call call(this->device());
  check(kernels::fill(this->stream(), A, value), "fill");
}

template <class T>
void Elementwise<T>::set_identity(Mat<T> A) {
  if (A.empty()) return;
  const Call call(this->device());
  check(kernels::set_identity(this->stream(), A), "set_identity");
}

template <class T>
void Elementwise<T>::normals(Mat<T> A, std::uint64_t seed) {
  if (A.empty()) return;
  const Call call(this->device());
  check(kernels::normals(this->stream(), A, seed), "normals");
}

template <class T>
void Elementwise<T>::scale(T alpha, Mat<T> A) {
  if (A.empty()) return;
  const Call call(this->device());
  check(kernels::scale(this->stream(), alpha, A), "scale");
}

template <class T>
void Elementwise<T>::add(T alpha, Mat<const T> X, Mat<T> Y) {
  if (X.empty()) return;
  const Call call(this->device());
  check(kernels::add(this->stream(), alpha, X, Y), "add");
}

template <class T>
void Elementwise<T>::scale_columns(Mat<T> A, const T* host_d) {
  if (A.empty()) return;
  const Call call(this->device());
  const OnDevice<T> d(this->device(), host_d, A.cols);
  check(kernels::scale_columns(this->stream(), A, d.data()), "scale_columns");
}

template <class T>
void Elementwise<T>::scale_rows(Mat<T> A, const T* host_d) {
  if (A.empty()) return;
  const Call call(this->device());
  const OnDevice<T> d(this->device(), host_d, A.rows);
  check(kernels::scale_rows(this->stream(), A, d.data()), "scale_rows");
}

template <class T>
void Elementwise<T>::square(Mat<T> A) {
  if (A.empty()) return;
  const Call call(this->device());
  check(kernels::square(this->stream(), A), "square");
}

template <class T>
double Elementwise<T>::max_abs(Mat<const T> A) {
  return this->max_abs_of(this->dtype, A.data, A.rows, A.cols, A.ld);
}

template <class T>
double Elementwise<T>::norm(Mat<const T> A) {
  if (A.empty()) return 0;
  const Call call(this->device());
  const auto sum_of_squares = [&](double first, double second) {
    return total_of(this->device(), A.rows * A.cols, "norm",
                    [&](double* out) { return kernels::sum_of_squares(this->stream(), A, first, second, out); });
  };
  const double plain = sum_of_squares(1, 1);
  // As on the host: squares of float never leave double; what squares of double lose below 1e-308 matters only to a sum
  // near there.
  if (std::isnan(plain) || (plain > 1e-240 && plain <= std::numeric_limits<double>::max())) return std::sqrt(plain);
  const double largest = max_abs(A);
  if (largest == 0 || std::isinf(largest)) return largest;
  const int exponent = std::ilogb(largest);
  // 2^-exponent may itself leave the range, so in two steps
  const double half = std::ldexp(1.0, -(exponent / 2)), other_half = std::ldexp(1.0, -(exponent - exponent / 2));
  return std::ldexp(std::sqrt(sum_of_squares(half, other_half)), exponent);
}

template <class T>
double Elementwise<T>::dot(Mat<const T> A, Mat<const T> B) {
  if (A.empty()) return 0;
  const Call call(this->device());
  return total_of(this->device(), A.rows * A.cols, "dot",
                  [&](double* out) { return kernels::dot(this->stream(), A, B, out); });
}

template <class T>
void Elementwise<T>::column_dots(Mat<const T> A, Mat<const T> B, double* host_out) {
  if (A.empty()) {
    std::fill_n(host_out, A.cols, 0.0);
    return;
  }
  const Call call(this->device());
  const index_t count = kernels::partials_of_column(A.rows, A.cols);
  std::vector<double> parts(static_cast<std::size_t>(count * A.cols));
  const Scratch<double> out(this->device(), count * A.cols);
  check(kernels::column_dots(this->stream(), A, B, out.data()), "column_dots");
  this->device().download(out.data(), parts.data(), count * A.cols);
  for (index_t j = 0; j < A.cols; ++j) {
    const auto first = parts.begin() + j * count;
    host_out[j] = std::accumulate(first, first + count, 0.0);
  }
}

template <class T>
void Elementwise<T>::column_argmax(Mat<const T> A, index_t* host_row, T* host_value) {
  if (A.empty()) return;
  const Call call(this->device());
  using kernels::Extreme;
  const index_t count = kernels::partials_of_column(A.rows, A.cols);
  std::vector<Extreme<T>> parts(static_cast<std::size_t>(count * A.cols));
  const Scratch<Extreme<T>> out(this->device(), count * A.cols);
  check(kernels::column_extremes(this->stream(), A, out.data()), "column_argmax");
  this->device().download(out.data(), parts.data(), count * A.cols);
  for (index_t j = 0; j < A.cols; ++j) {
    Extreme<T> best = parts[static_cast<std::size_t>(j * count)];
    for (index_t p = 1; p < count; ++p) {
      const Extreme<T>& other = parts[static_cast<std::size_t>(p + j * count)];
      const bool earlier = other.magnitude == best.magnitude && other.row < best.row;
      if (other.magnitude > best.magnitude || earlier) best = other;
    }
    host_row[j] = best.row;
    host_value[j] = best.value;
  }
}

template class Elementwise<float>;
template class Elementwise<double>;

}  // namespace brockett::linalg::cuda
