// LinAlg<T>: the primitives that every algorithm of brockett is written over, and the whole contract of a backend.
//
// Matrices here are column-major with a leading dimension; pointers are in the memory space of the backend and only the
// backend may follow them. Scalars and std::vector arguments are on the host. Calls that return a number or fill host
// memory wait for the result; all others may run later, in order. Unless a line says otherwise outputs must not overlap
// inputs, and nothing else is written. Every call throws Error kinds: NotConverged, OutOfMemory, Unsupported.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "brockett/error.hpp"
#include "brockett/matrix_view.hpp"

namespace brockett::linalg {

/// Column-major rows x cols matrix in backend memory.
template <class T>
struct Mat {
  T* data = nullptr;
  index_t rows = 0;
  index_t cols = 0;
  index_t ld = 0;

  Mat() = default;
  Mat(T* data_, index_t rows_, index_t cols_) : Mat(data_, rows_, cols_, rows_) {}
  Mat(T* data_, index_t rows_, index_t cols_, index_t ld_) : data(data_), rows(rows_), cols(cols_), ld(ld_) {}
  template <class U>
    requires std::is_same_v<const U, T>
  Mat(const Mat<U>& o) : data(o.data), rows(o.rows), cols(o.cols), ld(o.ld) {}  // NOLINT: implicit on purpose

  Mat block(index_t row, index_t col, index_t n_rows, index_t n_cols) const {
    return {data + row + col * ld, n_rows, n_cols, ld};
  }
  Mat columns(index_t first, index_t count) const { return block(0, first, rows, count); }
  bool empty() const { return rows == 0 || cols == 0; }
};

enum class Op { none, transpose };
enum class Side { left, right };
enum class Modes { fourier, dct };  // real Fourier modes (k = 0, 1, 1, 2, 2, …; cosine before sine); DCT-II

template <class T>
class LinAlg {
 public:
  virtual ~LinAlg() = default;

  // --- memory -------------------------------------------------------------------------------------------------------
  virtual void* allocate(std::size_t bytes) = 0;  // OutOfMemory names the size; 0 bytes give null
  virtual void deallocate(void* p) noexcept = 0;
  virtual void upload(const T* host, Mat<T> A) = 0;  // A <- host, packed column-major
  virtual void download(Mat<const T> A, T* host) = 0;  // host (packed column-major) <- A
  virtual void copy(Mat<const T> A, Mat<T> B) = 0;  // B <- A
  virtual void transpose(Mat<const T> A, Mat<T> B) = 0;  // B <- A^T
  // A <- elements of another type (rows x cols column-major, ld `source_ld`), widened or rounded to nearest
  virtual void convert_from(DType type, const void* source, index_t source_ld, Mat<T> A) = 0;
  // elements of another type (column-major, ld `target_ld`) <- A, rounded to nearest (float64 to half types: by way of float32)
  virtual void convert_to(Mat<const T> A, DType type, void* target, index_t target_ld) = 0;
  // Y <- Y + elements of another type
  virtual void add_from(DType type, const void* source, index_t source_ld, Mat<T> Y) = 0;
  // linear index i + j rows of the first NaN or Inf in memory order, or -1
  virtual index_t first_nonfinite(DType type, const void* A, index_t rows, index_t cols, index_t ld) = 0;
  // as max_abs; Inf or NaN where an element is: both questions in one pass
  virtual double max_abs_of(DType type, const void* A, index_t rows, index_t cols, index_t ld) = 0;

  // --- elementwise --------------------------------------------------------------------------------------------------
  virtual void fill(Mat<T> A, T value) = 0;  // A_ij <- value
  virtual void set_identity(Mat<T> A) = 0;  // A_ij <- [i == j]
  // A_ij <- standard normal number i + j rows of the Philox4x32-10 stream `seed` (philox.hpp)
  virtual void normals(Mat<T> A, std::uint64_t seed) = 0;
  virtual void scale(T alpha, Mat<T> A) = 0;  // A <- alpha A
  virtual void add(T alpha, Mat<const T> X, Mat<T> Y) = 0;  // Y <- Y + alpha X
  virtual void scale_columns(Mat<T> A, const T* host_d) = 0;  // A <- A diag(d)
  virtual void scale_rows(Mat<T> A, const T* host_d) = 0;  // A <- diag(d) A
  virtual void square(Mat<T> A) = 0;  // A_ij <- A_ij^2
  virtual double max_abs(Mat<const T> A) = 0;  // max_ij |A_ij|, 0 if empty; NaN is not looked for
  virtual double norm(Mat<const T> A) = 0;  // ||A||_F, without overflow or harmful underflow
  virtual double dot(Mat<const T> A, Mat<const T> B) = 0;  // sum_ij A_ij B_ij, float64 sum
  // out_j <- sum_i A_ij B_ij, float64 sums; A and B may be the same
  virtual void column_dots(Mat<const T> A, Mat<const T> B, double* host_out) = 0;
  // host row index of the entry of largest magnitude of each column (the first of equals), and its value
  virtual void column_argmax(Mat<const T> A, index_t* host_row, T* host_value) = 0;

  // --- products -----------------------------------------------------------------------------------------------------
  // C <- alpha op(A) op(B) + beta C; beta = 0 ignores what C held
  virtual void multiply(Op op_a, Op op_b, T alpha, Mat<const T> A, Mat<const T> B, T beta, Mat<T> C) = 0;
  // Y <- op(A) X and Z <- op(A)^T Y; X of few columns, so that reading A twice is what is to be saved
  virtual void multiply_there_and_back(Op op, Mat<const T> A, Mat<const T> X, Mat<T> Y, Mat<T> Z) {
    multiply(op, Op::none, T{1}, A, X, T{0}, Y);
    multiply(op == Op::none ? Op::transpose : Op::none, Op::none, T{1}, A, Y, T{0}, Z);
  }
  // C_k <- alpha op(A_k) op(B_k) + beta C_k, k < batch; A_k = A shifted by k stride_a elements, and so on
  virtual void multiply_batched(Op op_a, Op op_b, T alpha, Mat<const T> A, index_t stride_a, Mat<const T> B,
                                index_t stride_b, T beta, Mat<T> C, index_t stride_c, index_t batch) = 0;
  // lower triangle of C <- alpha op(A) op(A)^T + beta C; the strict upper triangle is left alone
  virtual void accumulate_outer(Op op, T alpha, Mat<const T> A, T beta, Mat<T> C) = 0;
  // C (m x n) <- A op(B), A (m x k) and B of `type`: float16, bfloat16, or float32 read to 10 bits of mantissa (tf32);
  // products exact, sums in float32. For T = float; Unsupported where there are no units for it, the host among them
  virtual void multiply_reduced(Op op_b, DType type, const void* A, index_t lda, const void* B, index_t ldb, index_t k,
                                Mat<T> C) = 0;
  virtual void mirror_lower(Mat<T> C) = 0;  // strict upper triangle <- transpose of the lower
  // A (B x n) <- A T^T (none) or A T (transpose), T the n x n matrix of modes in columns; by FFT, O(B n log n), or as a
  // product, 2 B n^2, where products are all but free. A row of A, a_b, becomes T a_b or T^T a_b.
  virtual void apply_modes(Modes modes, Op op, Mat<T> A) = 0;

  // --- factorizations; the input is destroyed where it is not the output ------------------------------------------------
  // lower triangle of A (n x m, m >= n) <- L of A = L Q, strict upper triangle of the leading n x n block <- 0
  virtual void lq_factor(Mat<T> A) = 0;
  virtual void qr_factor(Mat<T> A) = 0;  // A (m x n, m >= n): R in its upper triangle, 0 below it
  virtual void orthonormalize(Mat<T> A) = 0;  // A (m x n, m >= n) <- Q of A = Q R; rank deficiency is filled up
  // A <- Cholesky factor L (lower; strict upper <- 0). 0, or the order of the first minor that is not positive
  virtual index_t cholesky(Mat<T> A) = 0;
  // B <- op(L)^-1 B (left) or B op(L)^-1 (right), L lower triangular
  virtual void triangular_solve(Side side, Op op, Mat<const T> L, Mat<T> B) = 0;
  virtual int determinant_sign(Mat<T> A) = 0;  // sign of det A by LU: -1, 0, 1; A destroyed
  // lower triangle of A -> eigenvalues ascending (host); with vectors A <- V in columns, else A is destroyed
  virtual void eigen_symmetric(Mat<T> A, T* host_values, bool vectors) = 0;
  // the `count` largest eigenvalues, descending (host), and their vectors V (n x count) in columns; A destroyed
  virtual void eigen_symmetric_largest(Mat<T> A, index_t count, T* host_values, Mat<T> V) = 0;
  // all eigenvalues, descending (host), and the vectors V (n x count) of the `count` largest; A destroyed
  virtual void eigen_symmetric_leading(Mat<T> A, index_t count, T* host_values, Mat<T> V) {
    const index_t n = A.cols;
    eigen_symmetric(A, host_values, count > 0);
    std::reverse(host_values, host_values + n);
    for (index_t j = 0; j < count; ++j) copy(A.columns(n - 1 - j, 1), V.columns(j, 1));
  }
  // A_k (n x n, k < batch, `stride` elements apart), lower triangle -> eigenvalues ascending, n a matrix (host); A destroyed
  virtual void eigenvalues_batched(Mat<T> A, index_t stride, index_t batch, T* host_values) = 0;
  // the same of the Hermitian A_k + i B_k, of which the lower triangles are read; A and B destroyed
  virtual void eigenvalues_hermitian_batched(Mat<T> A, Mat<T> B, index_t stride, index_t batch, T* host_values) = 0;
  // A (m x n) = U diag(s) Vt, s descending (host), U (m x k), Vt (k x n), k = min(m, n); both empty: values only
  virtual void svd_thin(Mat<T> A, T* host_s, Mat<T> U, Mat<T> Vt) = 0;
};

/// A place where work can be done: the two precisions, and its workers.
class Backend {
 public:
  virtual ~Backend() = default;
  virtual std::string name() const = 0;
  virtual LinAlg<float>& single() = 0;
  virtual LinAlg<double>& full() = 0;
  /// Run f(0) … f(count-1), independent, on the backend's workers (each with one BLAS thread). `poll` is called on the
  /// calling thread now and then; the exception of the lowest failing index, or poll's own, is rethrown after all stop.
  virtual void for_each(index_t count, const std::function<void(index_t)>& f, const std::function<void()>& poll) = 0;
  /// How many matrices of `bytes` bytes a batched primitive should be given at once: 1 where for_each has the parallelism.
  virtual index_t batch_size(std::size_t bytes) const = 0;
  /// How many matrices of order n eigenvalues_batched should be given at once, where there are as many.
  virtual index_t eigen_batch(index_t n) const { return batch_size(sizeof(double) * static_cast<std::size_t>(n * n)); }
  /// How many elements a block of converted data should have: enough for the units, few enough for the memory.
  virtual index_t block_elements() const { return index_t{1} << 22; }
  /// Host memory in pieces of at most `step` rows (each of `row_bytes` bytes, `pitch` bytes apart): f(first, count, data,
  /// data_pitch) sees rows first … first + count - 1 in the memory of the backend, until it returns; where that is not the
  /// host's, the next piece is on its way meanwhile. Here the memory is the host's, and one piece holds all.
  using HostPieces = std::function<void(index_t first, index_t count, const void* data, std::size_t data_pitch)>;
  virtual void stream_from_host(const void* host, std::size_t /*row_bytes*/, std::size_t pitch, index_t rows,
                                index_t /*step*/, const HostPieces& f) {
    if (rows > 0) f(0, rows, host, pitch);
  }
  /// While the returned token lives, primitives on matrices of order n use the threads that pay at that size.
  virtual std::shared_ptr<void> thread_scope(index_t n) = 0;
  /// While the returned token lives, in this thread: products of large matrices, with few columns as a rule, for which gemm's
  /// own threads do not pay, are divided among workers, and all else keeps to one thread.
  virtual std::shared_ptr<void> narrow_scope() { return nullptr; }
};

template <class T>
LinAlg<T>& of(Backend& backend) {
  if constexpr (std::is_same_v<T, float>) {
    return backend.single();
  } else {
    return backend.full();
  }
}

/// The host backend (linalg/lapack). One for the process.
std::shared_ptr<Backend> lapack_backend();

}  // namespace brockett::linalg
