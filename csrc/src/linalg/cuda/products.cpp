// Matrix products, and the modes as one.
#include <algorithm>

#include "linalg/cuda/blas.hpp"
#include "linalg/cuda/cuda_linalg.hpp"

namespace brockett::linalg::cuda {
namespace {

// Terms that one product sums: with sums of a few hundred terms added up, the rounding of a long one stays near 1e-15.
constexpr index_t kTerms = 256;
// Elements of the workspaces of apply_modes (256 MB).
constexpr index_t kWorkElements = index_t{1} << 25;

}  // namespace

template <class T>
void Products<T>::multiply(Op op_a, Op op_b, T alpha, Mat<const T> A, Mat<const T> B, T beta, Mat<T> C) {
  multiply_batched(op_a, op_b, alpha, A, 0, B, 0, beta, C, 0, 1);
}

template <class T>
void Products<T>::multiply_batched(Op op_a, Op op_b, T alpha, Mat<const T> A, index_t stride_a, Mat<const T> B,
                                   index_t stride_b, T beta, Mat<T> C, index_t stride_c, index_t batch) {
  if (C.empty() || batch == 0) return;
  const Call call(this->device());
  const index_t k = op_a == Op::none ? A.cols : A.rows;
  if (k == 0) {  // an empty sum
    for (index_t b = 0; b < batch; ++b) {
      const Mat<T> each(C.data + b * stride_c, C.rows, C.cols, C.ld);
      if (beta == T(0)) {
        this->fill(each, T(0));
      } else {
        this->scale(beta, each);
      }
    }
    return;
  }
  cublasHandle_t blas = this->device().blas();
  if (batch == 1) {
    check(Blas<T>::gemm(blas, cuda::op_of(op_a), cuda::op_of(op_b), C.rows, C.cols, k, &alpha, A.data, ld_of(A.ld),
                        B.data, ld_of(B.ld), &beta, C.data, ld_of(C.ld)),
          "gemm", C.rows, C.cols);
  } else {
    check(Blas<T>::gemm_batched(blas, cuda::op_of(op_a), cuda::op_of(op_b), C.rows, C.cols, k, &alpha, A.data,
                                ld_of(A.ld), stride_a, B.data, ld_of(B.ld), stride_b, &beta, C.data, ld_of(C.ld),
                                stride_c, batch),
          "gemmStridedBatched", C.rows, C.cols);
  }
}

template <class T>
void Products<T>::accumulate_outer(Op op, T alpha, Mat<const T> A, T beta, Mat<T> C) {
  if (C.empty()) return;
  const Call call(this->device());
  const index_t k = op == Op::none ? A.cols : A.rows;
  if (k == 0 && beta == T(1)) return;
  check(Blas<T>::syrk(this->device().blas(), CUBLAS_FILL_MODE_LOWER, cuda::op_of(op), C.rows, k, &alpha, A.data,
                      ld_of(A.ld), &beta, C.data, ld_of(C.ld)),
        "syrk", C.rows, C.cols);
}

template <class T>
void Products<T>::multiply_reduced(Op op_b, DType type, const void* A, index_t lda, const void* B, index_t ldb,
                                   index_t k, Mat<T> C) {
  if constexpr (std::is_same_v<T, double>) {
    throw Unsupported("multiply_reduced sums in float32");
  } else {
    if (type == DType::float64) throw Unsupported("multiply_reduced: float64 is no reduced precision");
    if (C.empty()) return;
    const Call call(this->device());
    const cudaDataType element = type == DType::float16    ? CUDA_R_16F
                                 : type == DType::bfloat16 ? CUDA_R_16BF
                                                           : CUDA_R_32F;
    const cublasComputeType_t compute = type == DType::float32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
    const float one = 1, zero = 0;
    check(cublasGemmEx_64(this->device().blas(), CUBLAS_OP_N, cuda::op_of(op_b), C.rows, C.cols, k, &one, A, element,
                          ld_of(lda), B, element, ld_of(ldb), &zero, C.data, CUDA_R_32F, ld_of(C.ld), compute,
                          CUBLAS_GEMM_DEFAULT),
          "GemmEx", C.rows, C.cols);
  }
}

template <class T>
void Products<T>::mirror_lower(Mat<T> C) {
  if (C.empty()) return;
  const Call call(this->device());
  check(kernels::mirror_lower(this->stream(), C), "mirror_lower");
}

// A <- A T^T or A T as a product in float64, 2 B n^2 flops: a third or less of what the eigenvectors cost that it goes
// with, and any n alike. T is made of blocks of modes, n^2 cosines; the workspace holds at most 3 x 256 MB.
template <class T>
void Products<T>::apply_modes(Modes modes, Op op, Mat<T> A) {
  if (A.empty()) return;
  const Call call(this->device());
  Device& device = this->device();
  const index_t n = A.cols;
  const index_t width = std::min(n, std::max<index_t>(1, kWorkElements / n));
  const index_t rows = std::min(A.rows, std::max<index_t>(1, kWorkElements / n));
  const Scratch<double> basis(device, n * width), product(device, rows * n);
  const Scratch<double> wide(device, std::is_same_v<T, double> ? 0 : rows * n);
  for (index_t top = 0; top < A.rows; top += rows) {
    const Mat<T> part = A.block(top, 0, std::min(rows, A.rows - top), n);
    const Mat<double> Y(product.data(), part.rows, n);
    Mat<const double> X(Y);
    if constexpr (std::is_same_v<T, double>) {
      X = part;
    } else {
      X = Mat<const double>(wide.data(), part.rows, n);
      check(kernels::convert(device.stream(), DType::float32, part.data, part.ld, DType::float64, wide.data(),
                             part.rows, part.rows, n, false),
            "apply_modes");
    }
    for (index_t first = 0; first < n; first += width) {
      const Mat<double> M(basis.data(), n, std::min(width, n - first));
      if (top == 0 || width < n) check(kernels::modes(device.stream(), modes, op == Op::none, first, M), "apply_modes");
      for (index_t k = 0; k < n; k += kTerms) {
        const index_t terms = std::min(kTerms, n - k);
        const double one = 1, beta = k == 0 ? 0 : 1;
        check(Blas<double>::gemm(device.blas(), CUBLAS_OP_N, CUBLAS_OP_N, part.rows, M.cols, terms, &one,
                                 X.data + k * X.ld, X.ld, M.data + k, M.ld, &beta, Y.data + first * Y.ld, Y.ld),
              "apply_modes", part.rows, n);
      }
    }
    if constexpr (std::is_same_v<T, double>) {
      check(kernels::copy<T>(device.stream(), Y, part), "apply_modes");
    } else {
      check(kernels::convert(device.stream(), DType::float64, Y.data, Y.ld, DType::float32, part.data, part.ld,
                             part.rows, n, false),
            "apply_modes");
    }
  }
}

template class Products<float>;
template class Products<double>;

}  // namespace brockett::linalg::cuda
