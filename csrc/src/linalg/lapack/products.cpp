// Matrix products.
#include <algorithm>

#include "linalg/buffer.hpp"
#include "linalg/lapack/blas.hpp"
#include "linalg/lapack/lapack_linalg.hpp"
#include "linalg/lapack/threads.hpp"
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

// A large A times a few columns. gemm packs all of A first, which takes longer than the product itself; OpenBLAS takes
// products below 1e6 multiplications without packing (SkylakeX kernels), and pieces of A that stay in the L2 cache are
// also read faster by kernels that pack. 4096 x 4096 float32, 16 columns, both directions, one thread of a Zen 4: 13.2 ms
// against 28.7 (AVX-512 kernels), 16.9 against 20.3 (AVX2 kernels); from about 40 columns on gemm is as fast.
constexpr index_t kFewColumns = 32;
constexpr index_t kLargeBytes = index_t{1} << 20;
constexpr index_t kUnpacked = 1000000;

index_t piece_cols(index_t columns) { return columns <= 8 ? 128 : columns <= 16 ? 64 : 32; }
index_t piece_rows(index_t columns) {
  return std::max<index_t>(64, kUnpacked / (columns * piece_cols(columns)) / 16 * 16);
}

template <class T>
bool few_columns(Mat<const T> A, index_t columns) {
  // more threads of BLAS than one share gemm's work, not that of pieces
  return columns <= kFewColumns && A.rows * A.cols * static_cast<index_t>(sizeof(T)) >= kLargeBytes &&
         A.cols >= piece_cols(columns) && blas_threads_in_force() <= 1;
}

// A worker is started in some 20 us, and takes 400 for this much of A with 16 columns. More than a few wait for memory.
constexpr index_t kBytesOfWorker = index_t{2} << 20;
constexpr index_t kMostWorkers = 16;
constexpr index_t kShareStep = 128;  // rows or columns, whole pieces

// How many of `count` rows or columns of A each worker takes.
template <class T>
index_t share_of(Mat<const T> A, index_t count) {
  const index_t bytes = A.rows * A.cols * static_cast<index_t>(sizeof(T));
  const index_t workers =
      std::clamp<index_t>(bytes / kBytesOfWorker, 1, std::min<index_t>(kMostWorkers, narrow_workers()));
  const index_t step = workers * kShareStep;
  return (count + step - 1) / step * kShareStep;
}

// f(share, first, count) of `count` rows or columns in all, each share by a worker of its own
template <class F>
void for_each_share(index_t count, index_t share, F&& f) {
  run_on_workers((count + share - 1) / share, [&](index_t k) { f(k, k * share, std::min(share, count - k * share)); },
                 {});
}

// C += alpha op(A) B, A rows x cols
template <class T>
void add_by_pieces(Op op, T alpha, Mat<const T> A, Mat<const T> B, Mat<T> C) {
  const index_t width = piece_cols(B.cols), height = piece_rows(B.cols);
  for (index_t i = 0; i < A.rows; i += height) {
    const index_t h = std::min(height, A.rows - i);
    for (index_t j = 0; j < A.cols; j += width) {
      const index_t w = std::min(width, A.cols - j);
      const Mat<const T> piece = A.block(i, j, h, w);
      if (op == Op::none) {
        gemm<T>(op, Op::none, alpha, piece, B.block(j, 0, w, B.cols), T{1}, C.block(i, 0, h, B.cols));
      } else {
        gemm<T>(op, Op::none, alpha, piece, B.block(i, 0, h, B.cols), T{1}, C.block(j, 0, w, B.cols));
      }
    }
  }
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
  const bool few = few_columns(A, C.cols);
  const index_t share = share_of(A, C.rows);
  if (op_b == Op::none && (few || share < C.rows)) {
    if (beta == T{0}) {
      this->fill(C, T{0});
    } else if (beta != T{1}) {
      this->scale(beta, C);
    }
    const bool by_rows = op_a == Op::none;
    return for_each_share(C.rows, share, [&](index_t, index_t first, index_t count) {
      const Mat<const T> part = by_rows ? A.block(first, 0, count, A.cols) : A.columns(first, count);
      const Mat<T> out = C.block(first, 0, count, C.cols);
      if (few) {
        add_by_pieces(op_a, alpha, part, B, out);
      } else {
        gemm(op_a, Op::none, alpha, part, B, T{1}, out);
      }
    });
  }
  gemm(op_a, op_b, alpha, A, B, beta, C);
}

// Columns of A stay in the cache between the two products where op(A) is A^T; the rows of a column-major matrix do not.
template <class T>
void Products<T>::multiply_there_and_back(Op op, Mat<const T> A, Mat<const T> X, Mat<T> Y, Mat<T> Z) {
  if (op == Op::none || !few_columns(A, X.cols)) {
    LinAlg<T>::multiply_there_and_back(op, A, X, Y, Z);
    return;
  }
  this->fill(Y, T{0});
  const index_t width = piece_cols(X.cols), share = share_of(A, A.cols);
  const index_t others = (A.cols + share - 1) / share - 1;
  Buffer<T> sums(*this, Z.rows, others * Z.cols);  // the first share has Z itself
  const auto sum_of = [&](index_t k) { return k == 0 ? Z : sums.mat().columns((k - 1) * Z.cols, Z.cols); };
  for_each_share(A.cols, share, [&](index_t k, index_t first, index_t count) {
    const Mat<T> sum = sum_of(k);
    this->fill(sum, T{0});
    for (index_t j = first; j < first + count; j += width) {
      const index_t w = std::min(width, first + count - j);
      const Mat<T> y = Y.block(j, 0, w, X.cols);
      add_by_pieces<T>(Op::transpose, T{1}, A.columns(j, w), X, y);
      add_by_pieces<T>(Op::none, T{1}, A.columns(j, w), y, sum);
    }
  });
  if (others == 0) return;
  for_each_share(Z.rows, share_of(A, Z.rows), [&](index_t, index_t first, index_t count) {
    for (index_t k = 1; k <= others; ++k) {
      this->add(T{1}, sum_of(k).block(first, 0, count, Z.cols), Z.block(first, 0, count, Z.cols));
    }
  });
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
