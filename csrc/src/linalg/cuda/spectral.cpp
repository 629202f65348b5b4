// Singular values and vectors. A rectangular matrix is reduced to the triangle of its QR decomposition. Of a square one the
// polar decomposition (Xgesvdp) runs first. A nearly singular matrix has none: it then solves for a matrix beside, by up to
// the shift that it tells, and what the vectors are worth is checked. Where they are not good enough, or nothing converged,
// implicit QR (Xgesvd) is tried on a copy before an error is raised.
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

// A (n x n) = U diag(s) V^T, V not transposed: info, and the shift. U and V are needed also where their contents are not:
// CUDA.jl's issue 2761 has INVALID_VALUE for null. For square matrices alone, because how many columns of them are written
// for others is told in no document.
template <class T>
int gesvdp(Device& device, bool vectors, Mat<T> A, T* s, Mat<T> U, Mat<T> V, double& shift) {
  constexpr cudaDataType type = Blas<T>::type;
  const cusolverEigMode_t job = vectors ? CUSOLVER_EIG_MODE_VECTOR : CUSOLVER_EIG_MODE_NOVECTOR;
  const int economy = 1;
  const index_t n = A.cols;
  std::size_t on_device = 0, on_host = 0;
  check(cusolverDnXgesvdp_bufferSize(device.solver(), device.params(), job, economy, n, n, type, A.data, A.ld, type, s,
                                     type, U.data, U.ld, type, V.data, V.ld, type, &on_device, &on_host),
        "Xgesvdp", n, n);
  const SolverWork work(device, on_device, on_host);
  check(cusolverDnXgesvdp(device.solver(), device.params(), job, economy, n, n, type, A.data, A.ld, type, s, type,
                          U.data, U.ld, type, V.data, V.ld, type, work.on_device(), on_device, work.on_host(), on_host,
                          work.info(), &shift),
        "Xgesvdp", n, n);
  return work.result("Xgesvdp");
}

// The same with V^T: info. (The routine takes no matrix that is wider than tall.)
template <class T>
int gesvd(Device& device, Mat<T> A, T* s, Mat<T> U, Mat<T> Vt) {
  constexpr cudaDataType type = Blas<T>::type;
  const signed char job = U.data ? 'S' : 'N';
  const index_t n = A.cols, ldu = std::max(U.ld, n), ldvt = std::max(Vt.ld, n);
  std::size_t on_device = 0, on_host = 0;
  check(cusolverDnXgesvd_bufferSize(device.solver(), device.params(), job, job, n, n, type, A.data, A.ld, type, s, type,
                                    U.data, ldu, type, Vt.data, ldvt, type, &on_device, &on_host),
        "Xgesvd", n, n);
  const SolverWork work(device, on_device, on_host);
  check(
      cusolverDnXgesvd(device.solver(), device.params(), job, job, n, n, type, A.data, A.ld, type, s, type, U.data, ldu,
                       type, Vt.data, ldvt, type, work.on_device(), on_device, work.on_host(), on_host, work.info()),
      "Xgesvd", n, n);
  return work.result("Xgesvd");
}

// What rounding leaves of values of a matrix of order n whose largest is s_1.
template <class T>
double rounding(index_t n, double largest) {
  return 4 * std::sqrt(static_cast<double>(n)) * static_cast<double>(std::numeric_limits<T>::epsilon()) *
         std::abs(largest);
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
  if (!(residual <= rounding<T>(A.cols, values[0]))) return false;
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

// A = U diag(s) Vt of a square A
template <class T>
void Spectral<T>::svd_square(Mat<T> A, T* host_s, Mat<T> U, Mat<T> Vt) {
  Device& device = this->device();
  const index_t n = A.cols;
  const bool vectors = !U.empty();
  const Scratch<T> s(device, n);
  const Kept<T> kept(*this, device, A);
  double shift = 0;
  int info = 0;
  {
    const Scratch<T> left(device, vectors ? 0 : n * n), right(device, n * n);
    const Mat<T> V(right.data(), n, n);
    info = gesvdp(device, vectors, A, s.data(), vectors ? U : Mat<T>(left.data(), n, n), V, shift);
    device.download(s.data(), host_s, n);
    const auto good_beside = [&] {
      if (n <= kSmall) return false;
      if (!vectors) return shift <= rounding<T>(n, static_cast<double>(host_s[0]));
      return kept.there() && settle<T>(*this, device, kept.mat(), host_s, U, V);
    };
    if (info == 0 && all_finite(host_s, n) && (shift == 0 || good_beside())) {
      if (vectors) this->transpose(V, Vt);
      return;
    }
  }
  const std::string size = " on a " + std::to_string(n) + " x " + std::to_string(n) + " matrix";
  if (!kept.restore()) {
    throw NotConverged("cuSOLVER's Xgesvdp did not converge" + size + " (and no memory for a second attempt): info " +
                       std::to_string(info) + ", shift " + std::to_string(shift));
  }
  const int again = gesvd(device, A, s.data(), vectors ? U : Mat<T>(), vectors ? Vt : Mat<T>());
  device.download(s.data(), host_s, n);
  if (again != 0 || !all_finite(host_s, n)) {
    throw NotConverged("cuSOLVER's Xgesvdp and then Xgesvd did not converge" + size + ": info " + std::to_string(info) +
                       " and " + std::to_string(again));
  }
}

// A = U diag(s) Vt; of a tall A = Q R by way of R, of a wide one by way of A^T = V diag(s) U^T
template <class T>
void Spectral<T>::svd_thin(Mat<T> A, T* host_s, Mat<T> U, Mat<T> Vt) {
  if (A.empty()) return;
  const Call call(this->device());
  Device& device = this->device();
  const index_t m = A.rows, n = A.cols;
  const bool vectors = !U.empty() || !Vt.empty();
  if (m == n) return svd_square(A, host_s, U, Vt);
  if (m < n) {
    const Scratch<T> turned(device, n * m), right(device, vectors ? n * m : 0), left(device, vectors ? m * m : 0);
    const Mat<T> At(turned.data(), n, m);
    this->transpose(A, At);
    if (!vectors) return svd_thin(At, host_s, {}, {});
    const Mat<T> V(right.data(), n, m), Ut(left.data(), m, m);
    svd_thin(At, host_s, V, Ut);
    this->transpose(V, Vt);
    this->transpose(Ut, U);
    return;
  }
  const Scratch<T> tau(device, n), triangle(device, n * n), small(device, vectors ? n * n : 0);
  const Mat<T> R(triangle.data(), n, n);
  this->geqrf(A, tau.data());
  this->copy(A.block(0, 0, n, n), R);
  check(kernels::zero_below_diagonal(this->stream(), R), "svd_thin");
  if (!vectors) return svd_square(R, host_s, {}, {});
  const Mat<T> inner(small.data(), n, n);
  svd_square(R, host_s, inner, Vt);
  this->orgqr(A, tau.data());
  this->multiply(Op::none, Op::none, T(1), A, inner, T(0), U);
}

template class Spectral<float>;
template class Spectral<double>;

}  // namespace brockett::linalg::cuda
