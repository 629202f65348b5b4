// Factorizations with a triangular factor: QR, LQ, Cholesky, LU.
#include <algorithm>

#include "linalg/lapack/blas.hpp"
#include "linalg/lapack/lapack_linalg.hpp"
#include "linalg/lapack/memory.hpp"
#include "linalg/lapack/workspace.hpp"

namespace brockett::linalg::lapack {
namespace {

// R in the upper triangle of A, Householder vectors below it, their scalars in tau.
template <class T>
void geqrf(Mat<T> A, T* tau) {
  const blas_int m = to_blas(A.rows, "rows"), n = to_blas(A.cols, "columns"), ld = to_blas(A.ld, "leading dimension");
  blas_int info = 0;
  with_workspace<T>("geqrf", [&](T* work, blas_int lwork) {
    Fortran<T>::geqrf(&m, &n, A.data, &ld, tau, work, &lwork, &info);
    check_arguments(info, "geqrf");
  });
}

// The first n columns of the product of the reflections.
template <class T>
void orgqr(Mat<T> A, const T* tau) {
  const blas_int m = to_blas(A.rows, "rows"), n = to_blas(A.cols, "columns"), ld = to_blas(A.ld, "leading dimension");
  blas_int info = 0;
  with_workspace<T>("orgqr", [&](T* work, blas_int lwork) {
    Fortran<T>::orgqr(&m, &n, &n, A.data, &ld, tau, work, &lwork, &info);
    check_arguments(info, "orgqr");
  });
}

template <class T>
void zero_above_diagonal(Mat<T> A) {
  for (index_t j = 1; j < A.cols; ++j) std::fill_n(A.data + j * A.ld, std::min(j, A.rows), T{0});
}

template <class T>
void zero_below_diagonal(Mat<T> A) {
  for (index_t j = 0; j < std::min(A.rows - 1, A.cols); ++j)
    std::fill_n(A.data + j * A.ld + j + 1, A.rows - j - 1, T{0});
}

}  // namespace

// A = L Q, as A^T = Q^T L^T by Householder reflections: geqrf and two transpositions take two thirds of the time of
// gelqf, whose panels run along rows (n = 256 … 2048, m = 2 n, both precisions, OpenBLAS 0.3.34).
template <class T>
void Triangular<T>::lq_factor(Mat<T> A) {
  if (A.empty()) return;
  const index_t n = A.rows, m = A.cols;
  Scratch<T> turned(m * n), tau(n);
  const Mat<T> At(turned.data(), m, n);
  this->transpose(A, At);
  geqrf(At, tau.data());
  zero_below_diagonal(At.block(0, 0, n, n));
  this->transpose(At.block(0, 0, n, n), A.columns(0, n));
}

// A = Q R by Householder reflections.
template <class T>
void Triangular<T>::qr_factor(Mat<T> A) {
  if (A.empty()) return;
  Scratch<T> tau(A.cols);
  geqrf(A, tau.data());
  zero_below_diagonal(A);
}

// Q = H_1 … H_n applied to the first n columns of the identity: orthonormal whatever the rank of A.
template <class T>
void Triangular<T>::orthonormalize(Mat<T> A) {
  if (A.empty()) return;
  Scratch<T> tau(A.cols);
  geqrf(A, tau.data());
  orgqr(A, tau.data());
}

// A = L L^T
template <class T>
index_t Triangular<T>::cholesky(Mat<T> A) {
  if (A.empty()) return 0;
  const char uplo = 'L';
  const blas_int n = to_blas(A.cols, "columns"), ld = to_blas(A.ld, "leading dimension");
  blas_int info = 0;
  Fortran<T>::potrf(&uplo, &n, A.data, &ld, &info, 1);
  check_arguments(info, "potrf");
  zero_above_diagonal(A);
  return info;
}

// B <- op(L)^-1 B or B op(L)^-1
template <class T>
void Triangular<T>::triangular_solve(Side side, Op op, Mat<const T> L, Mat<T> B) {
  if (B.empty()) return;
  const char at = side == Side::left ? 'L' : 'R', uplo = 'L', trans = op == Op::none ? 'N' : 'T', diag = 'N';
  const blas_int m = to_blas(B.rows, "rows"), n = to_blas(B.cols, "columns");
  const blas_int ldl = to_blas(L.ld, "leading dimension"), ldb = to_blas(B.ld, "leading dimension");
  const T one = 1;
  Fortran<T>::trsm(&at, &uplo, &trans, &diag, &m, &n, &one, L.data, &ldl, B.data, &ldb, 1, 1, 1, 1);
}

// det A = (sign of the row permutation) prod_i U_ii, A = P L U
template <class T>
int Triangular<T>::determinant_sign(Mat<T> A) {
  if (A.empty()) return 1;
  const blas_int n = to_blas(A.cols, "columns"), ld = to_blas(A.ld, "leading dimension");
  Scratch<blas_int> pivots(n);
  blas_int info = 0;
  Fortran<T>::getrf(&n, &n, A.data, &ld, pivots.data(), &info);
  check_arguments(info, "getrf");
  int sign = 1;
  for (index_t i = 0; i < n; ++i) {
    if (pivots[i] != i + 1) sign = -sign;
    const T u = A.data[i + i * A.ld];
    if (u == T{0}) return 0;
    if (u < T{0}) sign = -sign;
  }
  return sign;
}

template class Triangular<float>;
template class Triangular<double>;

}  // namespace brockett::linalg::lapack
