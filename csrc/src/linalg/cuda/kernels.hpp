// The kernels of the backend, as functions that queue one on a stream. kernels.cu, which defines them, is the only file
// that needs nvcc; without it (over the stand-in for CUDA that the tests have) it compiles as plain C++, with the same
// functors.
//
// All pointers are to device memory, matrices column-major. Reductions write partial results, which the host combines in
// a fixed order: the same bits on every run.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "linalg/linalg.hpp"

namespace brockett::linalg::cuda::kernels {

/// Largest magnitude of a column and the first row that has it.
template <class T>
struct Extreme {
  T magnitude;
  T value;
  index_t row;
};

// --- copies and conversions ---------------------------------------------------------------------------------------------
template <class T>
cudaError_t copy(cudaStream_t s, Mat<const T> A, Mat<T> B);
cudaError_t copy_bytes(cudaStream_t s, const void* from, index_t pitch_from, void* to, index_t pitch_to, index_t width,
                       index_t count);
// Y <- X or (add) Y + X, rounded to nearest where Y is narrower
cudaError_t convert(cudaStream_t s, DType from, const void* X, index_t ldx, DType to, void* Y, index_t ldy,
                    index_t rows, index_t cols, bool add);
// B_:j <- A_:(cols-1-j)
template <class T>
cudaError_t reverse_columns(cudaStream_t s, Mat<const T> A, Mat<T> B);
// Z_k <- A_k + i B_k, interleaved and packed, Hermitian by their lower triangles; the diagonal of B counts as zero
template <class T>
cudaError_t interleave(cudaStream_t s, Mat<const T> A, Mat<const T> B, index_t stride, index_t batch, T* Z);

// --- elementwise --------------------------------------------------------------------------------------------------------
template <class T>
cudaError_t fill(cudaStream_t s, Mat<T> A, T value);
template <class T>
cudaError_t set_identity(cudaStream_t s, Mat<T> A);
template <class T>
cudaError_t normals(cudaStream_t s, Mat<T> A, std::uint64_t seed);
template <class T>
cudaError_t scale(cudaStream_t s, T alpha, Mat<T> A);
template <class T>
cudaError_t add(cudaStream_t s, T alpha, Mat<const T> X, Mat<T> Y);
template <class T>
cudaError_t scale_columns(cudaStream_t s, Mat<T> A, const T* d);
template <class T>
cudaError_t scale_rows(cudaStream_t s, Mat<T> A, const T* d);
template <class T>
cudaError_t square(cudaStream_t s, Mat<T> A);
template <class T>
cudaError_t mirror_lower(cudaStream_t s, Mat<T> C);
template <class T>
cudaError_t zero_above_diagonal(cudaStream_t s, Mat<T> A);
template <class T>
cudaError_t zero_below_diagonal(cudaStream_t s, Mat<T> A);
// M_io <- T_i,(first+o), or (transposed) T_(first+o),i, of the n x n matrix T of modes, n = M.rows
cudaError_t modes(cudaStream_t s, Modes modes, bool transposed, index_t first, Mat<double> M);

// --- reductions ---------------------------------------------------------------------------------------------------------
/// How many partial results a reduction over a matrix of this size writes, and over each of `cols` columns of `rows`.
index_t partials(index_t size);
index_t partials_of_column(index_t rows, index_t cols);

// max |A_ij|, Inf where one of them is Inf or NaN
cudaError_t max_abs(cudaStream_t s, DType type, const void* A, index_t rows, index_t cols, index_t ld, double* out);
// sum (A_ij first second)^2
template <class T>
cudaError_t sum_of_squares(cudaStream_t s, Mat<const T> A, double first, double second, double* out);
template <class T>
cudaError_t dot(cudaStream_t s, Mat<const T> A, Mat<const T> B, double* out);
// least i + j rows of a NaN or Inf; rows cols where there is none
cudaError_t first_nonfinite(cudaStream_t s, DType type, const void* A, index_t rows, index_t cols, index_t ld,
                            index_t* out);
// partials_of_column(…) for each column, a column's together
template <class T>
cudaError_t column_dots(cudaStream_t s, Mat<const T> A, Mat<const T> B, double* out);
template <class T>
cudaError_t column_extremes(cudaStream_t s, Mat<const T> A, Extreme<T>* out);

}  // namespace brockett::linalg::cuda::kernels
