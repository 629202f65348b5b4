// Matrix products.
#include <algorithm>

#include "linalg/lapack/blas.hpp"
#include "linalg/lapack/lapack_linalg.hpp"
#include "linalg/lapack/tiles.hpp"

namespace brockett::linalg::lapack {
namespace {

char letter(Op op) { return op == Op::none ? 'N' : 'T'; }

// BLAS wants a leading dimension of at least 1, also of a matrix without rows.
blas_int ld_of(index_t ld) { return to_blas(std::max<index_t>(1, ld), "leading dimension"); }

template <class T>
void gemm(Op op_a, Op op_b, T alpha, Mat<const T> A, Mat<const T> B, T beta, Mat<T> C) {
  const char ta = letter(op_a), tb = letter(op_b);
  const blas_int m = to_blas(C.rows, "rows"), n = to_blas(C.cols, "columns");
  const blas_int k = to_blas(op_a == Op::none ? A.cols : A.rows, "inner dimension");
  const blas_int lda = ld_of(A.ld), ldb = ld_of(B.ld), ldc = ld_of(C.ld);
  Fortran<T>::gemm(&ta, &tb, &m, &n, &k, &alpha, A.data, &lda, B.data, &ldb, &beta, C.data, &ldc, 1, 1);
}

// C <- alpha op(A) op(B) + beta C for a handful of entries, where a call into BLAS costs more than the product.
template <class T>
void small_product(Op op_a, Op op_b, T alpha, Mat<const T> A, Mat<const T> B, T beta, Mat<T> C) {
  const index_t k = op_a == Op::none ? A.cols : A.rows;
  const index_t a_i = op_a == Op::none ? 1 : A.ld, a_l = op_a == Op::none ? A.ld : 1;
  const index_t b_l = op_b == Op::none ? 1 : B.ld, b_j = op_b == Op::none ? B.ld : 1;
  for (index_t j = 0; j < C.cols; ++j) {
    for (index_t i = 0; i < C.rows; ++i) {
      T sum = 0;
      for (index_t l = 0; l < k; ++l) sum += A.data[i * a_i + l * a_l] * B.data[l * b_l + j * b_j];
      T& c = C.data[i + j * C.ld];
      c = beta == T{0} ? alpha * sum : alpha * sum + beta * c;
    }
  }
}

// n = 3: 27 ns against 37 for gemm; n = 4: 46 against 35 (Zen 4, OpenBLAS 0.3.34 with its kernels for small matrices).
constexpr index_t kSmall = 3;

}  // namespace

template <class T>
void Products<T>::multiply(Op op_a, Op op_b, T alpha, Mat<const T> A, Mat<const T> B, T beta, Mat<T> C) {
  if (C.empty()) return;
  gemm(op_a, op_b, alpha, A, B, beta, C);
}

template <class T>
void Products<T>::multiply_batched(Op op_a, Op op_b, T alpha, Mat<const T> A, index_t stride_a, Mat<const T> B,
                                   index_t stride_b, T beta, Mat<T> C, index_t stride_c, index_t batch) {
  if (C.empty()) return;
  const bool small = C.rows <= kSmall && C.cols <= kSmall && A.rows <= kSmall && A.cols <= kSmall;
  for (index_t k = 0; k < batch; ++k) {
    (small ? small_product<T> : gemm<T>)(op_a, op_b, alpha, A, B, beta, C);
    A.data += stride_a;
    B.data += stride_b;
    C.data += stride_c;
  }
}

template <class T>
void Products<T>::accumulate_outer(Op op, T alpha, Mat<const T> A, T beta, Mat<T> C) {
  if (C.empty()) return;
  const char uplo = 'L', trans = letter(op);
  const blas_int n = to_blas(C.rows, "rows"), k = to_blas(op == Op::none ? A.cols : A.rows, "inner dimension");
  const blas_int lda = ld_of(A.ld), ldc = ld_of(C.ld);
  Fortran<T>::syrk(&uplo, &trans, &n, &k, &alpha, A.data, &lda, &beta, C.data, &ldc, 1, 1);
}

template <class T>
void Products<T>::multiply_reduced(Op, DType, const void*, index_t, const void*, index_t, index_t, Mat<T>) {
  throw Unsupported("products of reduced precision (tf32, bf16, fp16) need the tensor units of a GPU");
}

template <class T>
void Products<T>::mirror_lower(Mat<T> C) {
  for (index_t j = 0; j < C.cols; j += kTile) {
    const int width = tile_size(j, C.cols);
    T* diagonal = C.data + j + j * C.ld;
    for (int c = 0; c < width; ++c) {
      for (int r = c + 1; r < width; ++r) diagonal[c + r * C.ld] = diagonal[r + c * C.ld];
    }
    for (index_t i = j + kTile; i < C.rows; i += kTile) {
      transpose_tile<T>(C.data + i + j * C.ld, C.ld, C.data + j + i * C.ld, C.ld, tile_size(i, C.rows), width);
    }
  }
}

template class Products<float>;
template class Products<double>;

}  // namespace brockett::linalg::lapack
