// Singular values and vectors. The polar decomposition (Xgesvdp) runs first; where it does not converge, or has moved a
// nearly singular matrix by more than rounding, implicit QR (Xgesvd) is tried on a copy before an error is raised.
#include <algorithm>
#include <limits>
#include <string>

#include "linalg/cuda/blas.hpp"
#include "linalg/cuda/cuda_linalg.hpp"
#include "linalg/cuda/solver.hpp"

namespace brockett::linalg::cuda {
namespace {

// Xgesvdp shifts singular values near zero and tells by how much; this many eps of the largest is rounding.
constexpr double kShift = 8;

// A = U diag(s) V^T, V (n x k) not transposed: info, and the shift.
template <class T>
int gesvdp(Device& device, Mat<T> A, T* s, Mat<T> U, Mat<T> V, double& shift) {
  constexpr cudaDataType type = Blas<T>::type;
  const cusolverEigMode_t job = U.data ? CUSOLVER_EIG_MODE_VECTOR : CUSOLVER_EIG_MODE_NOVECTOR;
  const int economy = 1;
  const index_t ldu = std::max(U.ld, A.rows), ldv = std::max(V.ld, A.cols);
  std::size_t on_device = 0, on_host = 0;
  check(cusolverDnXgesvdp_bufferSize(device.solver(), device.params(), job, economy, A.rows, A.cols, type, A.data, A.ld,
                                     type, s, type, U.data, ldu, type, V.data, ldv, type, &on_device, &on_host),
        "Xgesvdp");
  const SolverWork work(device, on_device, on_host);
  check(cusolverDnXgesvdp(device.solver(), device.params(), job, economy, A.rows, A.cols, type, A.data, A.ld, type, s,
                          type, U.data, ldu, type, V.data, ldv, type, work.on_device(), on_device, work.on_host(),
                          on_host, work.info(), &shift),
        "Xgesvdp");
  return work.result("Xgesvdp");
}

// The same of a tall A (m >= n) with V^T: info.
template <class T>
int gesvd(Device& device, Mat<T> A, T* s, Mat<T> U, Mat<T> Vt) {
  constexpr cudaDataType type = Blas<T>::type;
  const signed char job = U.data ? 'S' : 'N';
  const index_t ldu = std::max(U.ld, A.rows), ldvt = std::max(Vt.ld, A.cols);
  std::size_t on_device = 0, on_host = 0;
  check(cusolverDnXgesvd_bufferSize(device.solver(), device.params(), job, job, A.rows, A.cols, type, A.data, A.ld,
                                    type, s, type, U.data, ldu, type, Vt.data, ldvt, type, &on_device, &on_host),
        "Xgesvd");
  const SolverWork work(device, on_device, on_host);
  check(cusolverDnXgesvd(device.solver(), device.params(), job, job, A.rows, A.cols, type, A.data, A.ld, type, s, type,
                         U.data, ldu, type, Vt.data, ldvt, type, work.on_device(), on_device, work.on_host(), on_host,
                         work.info()),
        "Xgesvd");
  return work.result("Xgesvd");
}

}  // namespace

// A = U diag(s) Vt
template <class T>
void Spectral<T>::svd_thin(Mat<T> A, T* host_s, Mat<T> U, Mat<T> Vt) {
  if (A.empty()) return;
  const Call call(this->device());
  Device& device = this->device();
  const index_t m = A.rows, n = A.cols, k = std::min(m, n);
  const bool vectors = !U.empty() || !Vt.empty();
  const Scratch<T> s(device, k);
  const Kept<T> kept(*this, device, A);
  double shift = 0;
  int info = 0;
  {
    const Scratch<T> turned(device, vectors ? n * k : 0);
    const Mat<T> V(turned.data(), n, k);
    info = gesvdp(device, A, s.data(), vectors ? U : Mat<T>(), vectors ? V : Mat<T>(), shift);
    device.download(s.data(), host_s, k);
    const double eps = static_cast<double>(std::numeric_limits<T>::epsilon());
    if (info == 0 && shift <= kShift * eps * static_cast<double>(host_s[0])) {
      if (vectors) this->transpose(V, Vt);
      return;
    }
  }
  const std::string size = " on a " + std::to_string(m) + " x " + std::to_string(n) + " matrix";
  if (!kept.restore()) {
    throw NotConverged("cuSOLVER's Xgesvdp did not converge" + size + " (and no memory for a second attempt): info " +
                       std::to_string(info) + ", shift " + std::to_string(shift));
  }
  int again = 0;
  if (m >= n) {
    again = gesvd(device, A, s.data(), vectors ? U : Mat<T>(), vectors ? Vt : Mat<T>());
  } else {  // A^T = V diag(s) U^T
    const Scratch<T> turned(device, m * n), right(device, vectors ? n * k : 0), left(device, vectors ? k * k : 0);
    const Mat<T> At(turned.data(), n, m), V(right.data(), n, k), Ut(left.data(), k, k);
    this->transpose(A, At);
    again = gesvd(device, At, s.data(), vectors ? V : Mat<T>(), vectors ? Ut : Mat<T>());
    if (vectors && again == 0) {
      this->transpose(V, Vt);
      this->transpose(Ut, U);
    }
  }
  if (again != 0) {
    throw NotConverged("cuSOLVER's Xgesvdp and then Xgesvd did not converge" + size + ": info " + std::to_string(info) +
                       " and " + std::to_string(again));
  }
  device.download(s.data(), host_s, k);
}

template class Spectral<float>;
template class Spectral<double>;

}  // namespace brockett::linalg::cuda
