// Memory, copies, conversions and the finite check.
#include <algorithm>
#include <vector>

#include "linalg/cuda/blas.hpp"
#include "linalg/cuda/cuda_linalg.hpp"

namespace brockett::linalg::cuda {

template <class T>
void* Memory<T>::allocate(std::size_t bytes) {
  return device_.allocate(bytes);
}

template <class T>
void Memory<T>::deallocate(void* p) noexcept {
  device_.deallocate(p);
}

template <class T>
void Memory<T>::upload(const T* host, Mat<T> A) {
  if (A.empty()) return;
  device_.upload(host, A.data, sizeof(T) * static_cast<std::size_t>(A.rows), static_cast<std::size_t>(A.cols),
                 sizeof(T) * static_cast<std::size_t>(A.ld));
}

template <class T>
void Memory<T>::download(Mat<const T> A, T* host) {
  if (A.empty()) return;
  device_.download(A.data, sizeof(T) * static_cast<std::size_t>(A.ld), host,
                   sizeof(T) * static_cast<std::size_t>(A.rows), static_cast<std::size_t>(A.cols));
}

template <class T>
void Memory<T>::copy(Mat<const T> A, Mat<T> B) {
  if (A.empty()) return;
  const Call call(device_);
  if ((A.ld == A.rows && B.ld == B.rows) || A.cols == 1) {
    check(cudaMemcpyAsync(B.data, A.data, sizeof(T) * static_cast<std::size_t>(A.rows * A.cols),
                          cudaMemcpyDeviceToDevice, stream()),
          "copy");
  } else {
    check(kernels::copy<T>(stream(), A, B), "copy");
  }
}

template <class T>
void Memory<T>::transpose(Mat<const T> A, Mat<T> B) {
  if (A.empty()) return;
  const Call call(device_);
  const T one = 1, zero = 0;
  check(Blas<T>::geam(device_.blas(), CUBLAS_OP_T, CUBLAS_OP_T, B.rows, B.cols, &one, A.data, A.ld, &zero, A.data, A.ld,
                      B.data, B.ld),
        "transpose", A.rows, A.cols);
}

template <class T>
void Memory<T>::convert_from(DType type, const void* source, index_t source_ld, Mat<T> A) {
  if (A.empty()) return;
  const Call call(device_);
  check(kernels::convert(stream(), type, source, source_ld, dtype, A.data, A.ld, A.rows, A.cols, false),
        "convert_from");
}

template <class T>
void Memory<T>::convert_to(Mat<const T> A, DType type, void* target, index_t target_ld) {
  if (A.empty()) return;
  const Call call(device_);
  check(kernels::convert(stream(), dtype, A.data, A.ld, type, target, target_ld, A.rows, A.cols, false), "convert_to");
}

template <class T>
void Memory<T>::add_from(DType type, const void* source, index_t source_ld, Mat<T> Y) {
  if (Y.empty()) return;
  const Call call(device_);
  check(kernels::convert(stream(), type, source, source_ld, dtype, Y.data, Y.ld, Y.rows, Y.cols, true), "add_from");
}

template <class T>
index_t Memory<T>::first_nonfinite(DType type, const void* A, index_t rows, index_t cols, index_t ld) {
  if (rows == 0 || cols == 0) return -1;
  const Call call(device_);
  std::vector<index_t> parts(static_cast<std::size_t>(kernels::partials(rows * cols)));
  const Scratch<index_t> out(device_, static_cast<index_t>(parts.size()));
  check(kernels::first_nonfinite(stream(), type, A, rows, cols, ld, out.data()), "first_nonfinite");
  device_.download(out.data(), parts.data(), static_cast<index_t>(parts.size()));
  const index_t first = *std::min_element(parts.begin(), parts.end());
  return first < rows * cols ? first : -1;
}

template <class T>
double Memory<T>::max_abs_of(DType type, const void* A, index_t rows, index_t cols, index_t ld) {
  if (rows == 0 || cols == 0) return 0;
  const Call call(device_);
  std::vector<double> parts(static_cast<std::size_t>(kernels::partials(rows * cols)));
  const Scratch<double> out(device_, static_cast<index_t>(parts.size()));
  check(kernels::max_abs(stream(), type, A, rows, cols, ld, out.data()), "max_abs");
  device_.download(out.data(), parts.data(), static_cast<index_t>(parts.size()));
  return *std::max_element(parts.begin(), parts.end());
}

template class Memory<float>;
template class Memory<double>;

}  // namespace brockett::linalg::cuda
