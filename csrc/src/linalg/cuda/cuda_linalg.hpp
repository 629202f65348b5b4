// LinAlg<T> on one stream of one GPU. A chain of classes, one .cpp each, that share the device and have no other state;
// every primitive holds the device's lock, so a backend may be used from several threads, in an order of their own making.
#pragma once

#include "linalg/cuda/device.hpp"
#include "linalg/cuda/kernels.hpp"
#include "linalg/linalg.hpp"

namespace brockett::linalg::cuda {

template <class T>
class Memory : public LinAlg<T> {
 public:
  explicit Memory(Device& device) : device_(device) {}
  void* allocate(std::size_t bytes) override;
  void deallocate(void* p) noexcept override;
  void upload(const T* host, Mat<T> A) override;
  void download(Mat<const T> A, T* host) override;
  void copy(Mat<const T> A, Mat<T> B) override;
  void transpose(Mat<const T> A, Mat<T> B) override;
  void convert_from(DType type, const void* source, index_t source_ld, Mat<T> A) override;
  void convert_to(Mat<const T> A, DType type, void* target, index_t target_ld) override;
  void add_from(DType type, const void* source, index_t source_ld, Mat<T> Y) override;
  index_t first_nonfinite(DType type, const void* A, index_t rows, index_t cols, index_t ld) override;
  double max_abs_of(DType type, const void* A, index_t rows, index_t cols, index_t ld) override;

 protected:
  Device& device() const { return device_; }
  cudaStream_t stream() const { return device_.stream(); }
  static constexpr DType dtype = std::is_same_v<T, float> ? DType::float32 : DType::float64;

 private:
  Device& device_;
};

template <class T>
class Elementwise : public Memory<T> {
 public:
  using Memory<T>::Memory;
  void fill(Mat<T> A, T value) override;
  void set_identity(Mat<T> A) override;
  void normals(Mat<T> A, std::uint64_t seed) override;
  void scale(T alpha, Mat<T> A) override;
  void add(T alpha, Mat<const T> X, Mat<T> Y) override;
  void scale_columns(Mat<T> A, const T* host_d) override;
  void scale_rows(Mat<T> A, const T* host_d) override;
  void square(Mat<T> A) override;
  double max_abs(Mat<const T> A) override;
  double norm(Mat<const T> A) override;
  double dot(Mat<const T> A, Mat<const T> B) override;
  void column_dots(Mat<const T> A, Mat<const T> B, double* host_out) override;
  void column_argmax(Mat<const T> A, index_t* host_row, T* host_value) override;
};

template <class T>
class Products : public Elementwise<T> {
 public:
  using Elementwise<T>::Elementwise;
  void multiply(Op op_a, Op op_b, T alpha, Mat<const T> A, Mat<const T> B, T beta, Mat<T> C) override;
  void multiply_batched(Op op_a, Op op_b, T alpha, Mat<const T> A, index_t stride_a, Mat<const T> B, index_t stride_b,
                        T beta, Mat<T> C, index_t stride_c, index_t batch) override;
  void accumulate_outer(Op op, T alpha, Mat<const T> A, T beta, Mat<T> C) override;
  void multiply_reduced(Op op_b, DType type, const void* A, index_t lda, const void* B, index_t ldb, index_t k,
                        Mat<T> C) override;
  void mirror_lower(Mat<T> C) override;
  void apply_modes(Modes modes, Op op, Mat<T> A) override;
};

template <class T>
class Triangular : public Products<T> {
 public:
  using Products<T>::Products;
  void lq_factor(Mat<T> A) override;
  void qr_factor(Mat<T> A) override;
  void orthonormalize(Mat<T> A) override;
  index_t cholesky(Mat<T> A) override;
  void triangular_solve(Side side, Op op, Mat<const T> L, Mat<T> B) override;
  int determinant_sign(Mat<T> A) override;

 protected:
  void geqrf(Mat<T> A, T* tau);  // R in the upper triangle of A, Householder vectors below it, their scalars in tau
  void orgqr(Mat<T> A, const T* tau);  // Q of these in the place of the vectors
};

template <class T>
class Eigenvalues : public Triangular<T> {
 public:
  using Triangular<T>::Triangular;
  void eigen_symmetric(Mat<T> A, T* host_values, bool vectors) override;
  void eigen_symmetric_largest(Mat<T> A, index_t count, T* host_values, Mat<T> V) override;
  void eigenvalues_batched(Mat<T> A, index_t stride, index_t batch, T* host_values) override;
  void eigenvalues_hermitian_batched(Mat<T> A, Mat<T> B, index_t stride, index_t batch, T* host_values) override;
};

template <class T>
class Spectral final : public Eigenvalues<T> {
 public:
  using Eigenvalues<T>::Eigenvalues;
  void svd_thin(Mat<T> A, T* host_s, Mat<T> U, Mat<T> Vt) override;

 private:
  void svd_square(Mat<T> A, T* host_s, Mat<T> U, Mat<T> Vt);
};

extern template class Memory<float>;
extern template class Memory<double>;
extern template class Elementwise<float>;
extern template class Elementwise<double>;
extern template class Products<float>;
extern template class Products<double>;
extern template class Triangular<float>;
extern template class Triangular<double>;
extern template class Eigenvalues<float>;
extern template class Eigenvalues<double>;
extern template class Spectral<float>;
extern template class Spectral<double>;

}  // namespace brockett::linalg::cuda
