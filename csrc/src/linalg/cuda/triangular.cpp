// Factorizations with a triangular factor: QR, LQ, Cholesky, LU.
#include <vector>

#include "linalg/cuda/blas.hpp"
#include "linalg/cuda/cuda_linalg.hpp"
#include "linalg/cuda/solver.hpp"

namespace brockett::linalg::cuda {

template <class T>
void Triangular<T>::geqrf(Mat<T> A, T* tau) {
  Device& device = this->device();
  constexpr cudaDataType type = Blas<T>::type;
  std::size_t on_device = 0, on_host = 0;
  check(cusolverDnXgeqrf_bufferSize(device.solver(), device.params(), A.rows, A.cols, type, A.data, A.ld, type, tau,
                                    type, &on_device, &on_host),
        "Xgeqrf", A.rows, A.cols);
  const SolverWork work(device, on_device, on_host);
  check(cusolverDnXgeqrf(device.solver(), device.params(), A.rows, A.cols, type, A.data, A.ld, type, tau, type,
                         work.on_device(), on_device, work.on_host(), on_host, work.info()),
        "Xgeqrf", A.rows, A.cols);
}

// A = L Q, as A^T = Q^T L^T by Householder reflections.
template <class T>
void Triangular<T>::lq_factor(Mat<T> A) {
  if (A.empty()) return;
  const Call call(this->device());
  const index_t n = A.rows, m = A.cols;
  const Scratch<T> turned(this->device(), m * n), tau(this->device(), n);
  const Mat<T> At(turned.data(), m, n);
  this->transpose(A, At);
  geqrf(At, tau.data());
  check(kernels::zero_below_diagonal(this->stream(), At.block(0, 0, n, n)), "lq_factor");
  this->transpose(At.block(0, 0, n, n), A.columns(0, n));
}

// A = Q R by Householder reflections.
template <class T>
void Triangular<T>::qr_factor(Mat<T> A) {
  if (A.empty()) return;
  const Call call(this->device());
  const Scratch<T> tau(this->device(), A.cols);
  geqrf(A, tau.data());
  check(kernels::zero_below_diagonal(this->stream(), A), "qr_factor");
}

// Q = H_1 … H_n applied to the first n columns of the identity: orthonormal whatever the rank of A.
template <class T>
void Triangular<T>::orgqr(Mat<T> A, const T* tau) {
  Device& device = this->device();
  const int m = to_int(A.rows, "rows"), n = to_int(A.cols, "columns"), ld = to_int(A.ld, "leading dimension");
  int size = 0;
  check(Blas<T>::orgqr_size(device.solver(), m, n, n, A.data, ld, tau, &size), "orgqr", A.rows, A.cols);
  const SolverWork work(device, sizeof(T) * static_cast<std::size_t>(size), 0);
  check(Blas<T>::orgqr(device.solver(), m, n, n, A.data, ld, tau, static_cast<T*>(work.on_device()), size, work.info()),
        "orgqr", A.rows, A.cols);
}

template <class T>
void Triangular<T>::orthonormalize(Mat<T> A) {
  if (A.empty()) return;
  const Call call(this->device());
  const Scratch<T> tau(this->device(), A.cols);
  geqrf(A, tau.data());
  orgqr(A, tau.data());
}

// A = L L^T
template <class T>
index_t Triangular<T>::cholesky(Mat<T> A) {
  if (A.empty()) return 0;
  const Call call(this->device());
  Device& device = this->device();
  constexpr cudaDataType type = Blas<T>::type;
  std::size_t on_device = 0, on_host = 0;
  check(cusolverDnXpotrf_bufferSize(device.solver(), device.params(), CUBLAS_FILL_MODE_LOWER, A.cols, type, A.data,
                                    A.ld, type, &on_device, &on_host),
        "Xpotrf", A.rows, A.cols);
  const SolverWork work(device, on_device, on_host);
  check(cusolverDnXpotrf(device.solver(), device.params(), CUBLAS_FILL_MODE_LOWER, A.cols, type, A.data, A.ld, type,
                         work.on_device(), on_device, work.on_host(), on_host, work.info()),
        "Xpotrf", A.rows, A.cols);
  check(kernels::zero_above_diagonal(this->stream(), A), "cholesky");
  return work.result("Xpotrf");
}

// B <- op(L)^-1 B or B op(L)^-1
template <class T>
void Triangular<T>::triangular_solve(Side side, Op op, Mat<const T> L, Mat<T> B) {
  if (B.empty()) return;
  const Call call(this->device());
  const T one = 1;
  check(Blas<T>::trsm(this->device().blas(), side == Side::left ? CUBLAS_SIDE_LEFT : CUBLAS_SIDE_RIGHT,
                      CUBLAS_FILL_MODE_LOWER, cuda::op_of(op), CUBLAS_DIAG_NON_UNIT, B.rows, B.cols, &one, L.data, L.ld,
                      B.data, B.ld),
        "trsm", B.rows, B.cols);
}

// det A = (sign of the row permutation) prod_i U_ii, A = P L U
template <class T>
int Triangular<T>::determinant_sign(Mat<T> A) {
  if (A.empty()) return 1;
  const Call call(this->device());
  Device& device = this->device();
  constexpr cudaDataType type = Blas<T>::type;
  const index_t n = A.cols;
  std::size_t on_device = 0, on_host = 0;
  check(cusolverDnXgetrf_bufferSize(device.solver(), device.params(), n, n, type, A.data, A.ld, type, &on_device,
                                    &on_host),
        "Xgetrf", n, n);
  const SolverWork work(device, on_device, on_host);
  const Scratch<std::int64_t> pivots(device, n);
  check(cusolverDnXgetrf(device.solver(), device.params(), n, n, type, A.data, A.ld, pivots.data(), type,
                         work.on_device(), on_device, work.on_host(), on_host, work.info()),
        "Xgetrf", n, n);
  if (work.result("Xgetrf") > 0) return 0;
  std::vector<std::int64_t> swapped(static_cast<std::size_t>(n));
  std::vector<T> diagonal(swapped.size());
  device.download(pivots.data(), swapped.data(), n);
  this->download(Mat<const T>(A.data, 1, n, A.ld + 1), diagonal.data());
  int sign = 1;
  for (index_t i = 0; i < n; ++i) {
    const T u = diagonal[static_cast<std::size_t>(i)];
    if (u == T(0)) return 0;
    if ((swapped[static_cast<std::size_t>(i)] != i + 1) != (u < T(0))) sign = -sign;
  }
  return sign;
}

template class Triangular<float>;
template class Triangular<double>;

}  // namespace brockett::linalg::cuda
