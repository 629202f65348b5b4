// Singular values and vectors. The polar decomposition (Xgesvdp) runs first. A nearly singular matrix has none: it then
// solves for a matrix beside, by up to the shift that it tells, and what the vectors are worth is checked. Where they are not
// good enough, or nothing converged, implicit QR (Xgesvd) is tried on a copy before an error is raised.
#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "linalg/cuda/blas.hpp"
#include "linalg/cuda/cuda_linalg.hpp"
#include "linalg/cuda/solver.hpp"

namespace brockett::linalg::cuda {
namespace {

// Up to this order implicit QR costs next to nothing, and vanishing values come out as zeros.
constexpr index_t kSmall = 256;

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
        "Xgesvdp", A.rows, A.cols);
  const SolverWork work(device, on_device, on_host);
  check(cusolverDnXgesvdp(device.solver(), device.params(), job, economy, A.rows, A.cols, type, A.data, A.ld, type, s,
                          type, U.data, ldu, type, V.data, ldv, type, work.on_device(), on_device, work.on_host(),
                          on_host, work.info(), &shift),
        "Xgesvdp", A.rows, A.cols);
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
        "Xgesvd", A.rows, A.cols);
  const SolverWork work(device, on_device, on_host);
  check(cusolverDnXgesvd(device.solver(), device.params(), job, job, A.rows, A.cols, type, A.data, A.ld, type, s, type,
                         U.data, ldu, type, Vt.data, ldvt, type, work.on_device(), on_device, work.on_host(), on_host,
                         work.info()),
        "Xgesvd", A.rows, A.cols);
  return work.result("Xgesvd");
}

// The values that belong to vectors of a matrix beside A, s_i = u_i^T A v_i; are they, at rounding, the singular values?
// ||A v_i - s_i u_i|| tells. What is left below zero or out of order by rounding is set right.
template <class T>
bool settle(LinAlg<T>& la, Device& device, Mat<const T> A, T* host_s, Mat<T> U, Mat<const T> V) {
  const index_t k = U.cols;
  const Scratch<T> product(device, A.rows * k), scaled(device, A.rows * k);
  const Mat<T> R(product.data(), A.rows, k), S(scaled.data(), A.rows, k);
  la.multiply(Op::none, Op::none, T(1), A, V, T(0), R);
  std::vector<double> values(static_cast<std::size_t>(k)), squares(values.size());
  la.column_dots(U, R, values.data());
  std::vector<T> s(values.begin(), values.end());
  la.copy(U, S);
  la.scale_columns(S, s.data());
  la.add(T(-1), S, R);
  la.column_dots(R, R, squares.data());
  const double residual = std::sqrt(*std::max_element(squares.begin(), squares.end()));
  const double rounding = 4 * std::sqrt(static_cast<double>(std::max(A.rows, A.cols))) *
                          static_cast<double>(std::numeric_limits<T>::epsilon()) * std::abs(values[0]);
  if (!(residual <= rounding)) return false;
  std::vector<T> signs(s.size(), T(1));
  for (std::size_t i = 0; i < s.size(); ++i) {
    if (s[i] < T(0)) signs[i] = T(-1);
    s[i] = std::abs(s[i]);
    if (i > 0) s[i] = std::min(s[i], s[i - 1]);
  }
  la.scale_columns(U, signs.data());
  std::copy(s.begin(), s.end(), host_s);
  return true;
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
    const bool good =
        info == 0 &&
        (shift == 0 || (vectors && k > kSmall && kept.there() && settle<T>(*this, device, kept.mat(), host_s, U, V)));
    if (good) {
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
