// Symmetric and Hermitian eigenvalues. Divide and conquer (Xsyevd) runs first; where it does not converge, by its own word
// or because NaN comes out (CUDA.jl's issue 2186 has one with info = 0), Jacobi's method (syevj) is tried on a copy of the
// matrix before an error is raised.
#include <algorithm>
#include <limits>
#include <string>
#include <vector>

#include "linalg/cuda/blas.hpp"
#include "linalg/cuda/cuda_linalg.hpp"
#include "linalg/cuda/solver.hpp"

namespace brockett::linalg::cuda {
namespace {

// A range of eigenvectors instead of all: the back transformation shrinks with the share, the reduction to tridiagonal
// form does not. Up to a half, as syevr pays on the host at large orders.
constexpr index_t kRangeShare = 2;

// XsyevBatched refuses 40,000 matrices of 3 x 3 and takes 16,000 (mujocolab/mjlab, pull request 732); no document says why.
constexpr index_t kLargestBatch = 16384;
// info of values that are no numbers
constexpr int kNotFinite = 1;

std::string order_text(index_t n, const char* kind) {
  return " on a " + std::to_string(n) + " x " + std::to_string(n) + kind;
}

[[noreturn]] void throw_not_converged(const std::string& what, index_t n, int info) {
  throw NotConverged(what + " did not converge" + order_text(n, " matrix: ") + std::to_string(info) +
                     " off-diagonal entries did not vanish");
}

// The eigenvalues of A (of `type`, n x n) into the device memory `values`, the vectors into A: info.
int syevd(Device& device, cudaDataType type, cudaDataType value_type, bool vectors, index_t n, void* A, index_t ld,
          void* values) {
  const cusolverEigMode_t job = vectors ? CUSOLVER_EIG_MODE_VECTOR : CUSOLVER_EIG_MODE_NOVECTOR;
  std::size_t on_device = 0, on_host = 0;
  check(cusolverDnXsyevd_bufferSize(device.solver(), device.params(), job, CUBLAS_FILL_MODE_LOWER, n, type, A, ld,
                                    value_type, values, type, &on_device, &on_host),
        "Xsyevd", n, n);
  const SolverWork work(device, on_device, on_host);
  check(cusolverDnXsyevd(device.solver(), device.params(), job, CUBLAS_FILL_MODE_LOWER, n, type, A, ld, value_type,
                         values, type, work.on_device(), on_device, work.on_host(), on_host, work.info()),
        "Xsyevd", n, n);
  return work.result("Xsyevd");
}

// Jacobi's rotations: slow and all but sure.
template <class T>
int syevj(Device& device, bool vectors, Mat<T> A, T* values) {
  const cusolverEigMode_t job = vectors ? CUSOLVER_EIG_MODE_VECTOR : CUSOLVER_EIG_MODE_NOVECTOR;
  const int n = to_int(A.cols, "order"), ld = to_int(A.ld, "leading dimension");
  struct Options {
    syevjInfo_t handle = nullptr;
    Options() { check(cusolverDnCreateSyevjInfo(&handle), "syevj", 0, 0); }
    ~Options() { cusolverDnDestroySyevjInfo(handle); }
  } options;
  int size = 0;
  check(Blas<T>::syevj_size(device.solver(), job, CUBLAS_FILL_MODE_LOWER, n, A.data, ld, values, &size, options.handle),
        "syevj", A.rows, A.cols);
  const SolverWork work(device, sizeof(T) * static_cast<std::size_t>(size), 0);
  check(Blas<T>::syevj(device.solver(), job, CUBLAS_FILL_MODE_LOWER, n, A.data, ld, values,
                       static_cast<T*>(work.on_device()), size, work.info(), options.handle),
        "syevj", A.rows, A.cols);
  return work.result("syevj");
}

// syevd and then, on what was kept, syevj. Values ascending, on the host.
template <class T>
void eigen(LinAlg<T>& la, Device& device, Mat<T> A, T* host_values, bool vectors) {
  const Kept<T> kept(la, device, A);
  const Scratch<T> values(device, A.cols);
  const auto arrived = [&](int info) {
    if (info != 0) return info;
    device.download(values.data(), host_values, A.cols);
    return all_finite(host_values, A.cols) ? 0 : kNotFinite;
  };
  const int info = arrived(syevd(device, Blas<T>::type, Blas<T>::type, vectors, A.cols, A.data, A.ld, values.data()));
  if (info == 0) return;
  if (!kept.restore()) throw_not_converged("cuSOLVER's Xsyevd (and no memory for a second attempt)", A.cols, info);
  if (const int again = arrived(syevj(device, vectors, A, values.data()))) {
    throw_not_converged("cuSOLVER's Xsyevd and then syevj", A.cols, again);
  }
}

// Eigenvalues of `batch` packed n x n matrices, n each, on the host; info of each. n^2 batch must stay within the 31 bits that
// cuSOLVER counts with, so parts of the batch go one by one.
template <class T>
std::vector<int> syev_batched(Device& device, cudaDataType type, std::size_t element, index_t n, char* A, index_t batch,
                              T* host_values) {
  constexpr cudaDataType value_type = Blas<T>::type;
  const Scratch<T> values(device, n * batch);
  std::vector<int> infos(static_cast<std::size_t>(batch), 0);
  const index_t most = std::min<index_t>(kLargestBatch, std::numeric_limits<int>::max() / (n * n));
  for (index_t first = 0; first < batch; first += most) {
    const index_t count = std::min(most, batch - first);
    void* a = A + element * static_cast<std::size_t>(first * n * n);
    T* w = values.data() + first * n;
    std::size_t on_device = 0, on_host = 0;
    check(cusolverDnXsyevBatched_bufferSize(device.solver(), device.params(), CUSOLVER_EIG_MODE_NOVECTOR,
                                            CUBLAS_FILL_MODE_LOWER, n, type, a, n, value_type, w, type, &on_device,
                                            &on_host, count),
          "XsyevBatched", n, n);
    const SolverWork work(device, on_device, on_host, count);
    check(cusolverDnXsyevBatched(device.solver(), device.params(), CUSOLVER_EIG_MODE_NOVECTOR, CUBLAS_FILL_MODE_LOWER,
                                 n, type, a, n, value_type, w, type, work.on_device(), on_device, work.on_host(),
                                 on_host, work.info(), count),
          "XsyevBatched", n, n);
    device.download(work.info(), infos.data() + first, count);
  }
  for (const int info : infos) SolverWork::check_arguments(info, "XsyevBatched");
  device.download(values.data(), host_values, n * batch);
  for (index_t k = 0; k < batch; ++k) {
    if (!all_finite(host_values + k * n, n)) infos[static_cast<std::size_t>(k)] = kNotFinite;
  }
  return infos;
}

// One matrix after the other where there is one, or where it alone is more than cuSOLVER can count to.
bool one_by_one(index_t n, index_t batch) { return batch == 1 || n * n > std::numeric_limits<int>::max(); }

}  // namespace

// A = V diag(values) V^T
template <class T>
void Eigenvalues<T>::eigen_symmetric(Mat<T> A, T* host_values, bool vectors) {
  if (A.empty()) return;
  const Call call(this->device());
  eigen<T>(*this, this->device(), A, host_values, vectors);
}

// A V = V diag(values), the `count` largest
template <class T>
void Eigenvalues<T>::eigen_symmetric_largest(Mat<T> A, index_t count, T* host_values, Mat<T> V) {
  if (A.empty() || count == 0) return;
  const Call call(this->device());
  Device& device = this->device();
  constexpr cudaDataType type = Blas<T>::type;
  const index_t n = A.cols;
  std::vector<T> ascending(static_cast<std::size_t>(n));
  const auto take = [&](Mat<const T> vectors, index_t have) {  // the last `count` of them, the largest first
    for (index_t j = 0; j < count; ++j) host_values[j] = ascending[static_cast<std::size_t>(have - 1 - j)];
    check(kernels::reverse_columns(this->stream(), vectors.columns(have - count, count), V), "eigen_symmetric_largest");
  };
  if (count <= n / kRangeShare) {
    const Kept<T> kept(*this, device, A);
    const Scratch<T> values(device, n);
    std::size_t on_device = 0, on_host = 0;
    T none = 0;
    std::int64_t found = 0;
    check(cusolverDnXsyevdx_bufferSize(device.solver(), device.params(), CUSOLVER_EIG_MODE_VECTOR, CUSOLVER_EIG_RANGE_I,
                                       CUBLAS_FILL_MODE_LOWER, n, type, A.data, A.ld, &none, &none, n - count + 1, n,
                                       &found, type, values.data(), type, &on_device, &on_host),
          "Xsyevdx", n, n);
    const SolverWork work(device, on_device, on_host);
    check(cusolverDnXsyevdx(device.solver(), device.params(), CUSOLVER_EIG_MODE_VECTOR, CUSOLVER_EIG_RANGE_I,
                            CUBLAS_FILL_MODE_LOWER, n, type, A.data, A.ld, &none, &none, n - count + 1, n, &found, type,
                            values.data(), type, work.on_device(), on_device, work.on_host(), on_host, work.info()),
          "Xsyevdx", n, n);
    const int info = work.result("Xsyevdx");
    if (info == 0 && found == count) {
      device.download(values.data(), ascending.data(), count);
      if (all_finite(ascending.data(), count)) return take(A, count);
    }
    if (!kept.restore()) throw_not_converged("cuSOLVER's Xsyevdx (and no memory for a second attempt)", n, info);
  }
  eigen<T>(*this, device, A, ascending.data(), true);
  take(A, n);
}

// A_k = V_k diag(values_k) V_k^T
template <class T>
void Eigenvalues<T>::eigenvalues_batched(Mat<T> A, index_t stride, index_t batch, T* host_values) {
  if (A.empty() || batch == 0) return;
  const Call call(this->device());
  Device& device = this->device();
  const index_t n = A.cols;
  const auto matrix = [&](index_t k) { return Mat<T>(A.data + k * stride, n, n, A.ld); };
  if (one_by_one(n, batch)) {
    for (index_t k = 0; k < batch; ++k) eigen_symmetric(matrix(k), host_values + k * n, false);
    return;
  }
  // the solver works on a packed copy, so that what does not converge can be tried again
  const Scratch<T> packed(device, n * n * batch);
  if (stride == A.ld * n) {
    this->copy(Mat<const T>(A.data, n, n * batch, A.ld), Mat<T>(packed.data(), n, n * batch));
  } else {
    for (index_t k = 0; k < batch; ++k) this->copy(matrix(k), Mat<T>(packed.data() + k * n * n, n, n));
  }
  const std::vector<int> infos =
      syev_batched(device, Blas<T>::type, sizeof(T), n, reinterpret_cast<char*>(packed.data()), batch, host_values);
  for (index_t k = 0; k < batch; ++k) {
    if (infos[static_cast<std::size_t>(k)] != 0) eigen_symmetric(matrix(k), host_values + k * n, false);
  }
}

// A_k + i B_k = V_k diag(values_k) V_k^*
template <class T>
void Eigenvalues<T>::eigenvalues_hermitian_batched(Mat<T> A, Mat<T> B, index_t stride, index_t batch, T* host_values) {
  if (A.empty() || batch == 0) return;
  const Call call(this->device());
  Device& device = this->device();
  const index_t n = A.cols;
  constexpr cudaDataType type = Blas<T>::complex_type, value_type = Blas<T>::type;
  const auto gather = [&](index_t first, index_t count, T* Z) {
    check(kernels::interleave<T>(this->stream(), Mat<const T>(A.data + first * stride, n, n, A.ld),
                                 Mat<const T>(B.data + first * stride, n, n, B.ld), stride, count, Z),
          "eigenvalues_hermitian_batched");
  };
  const auto single = [&](index_t k) {
    const Scratch<T> Z(device, 2 * n * n), values(device, n);
    gather(k, 1, Z.data());
    const int info = syevd(device, type, value_type, false, n, Z.data(), n, values.data());
    device.download(values.data(), host_values + k * n, n);
    if (info != 0 || !all_finite(host_values + k * n, n)) {
      throw_not_converged("cuSOLVER's Xsyevd (complex)", n, info);
    }
  };
  if (one_by_one(n, batch)) {
    for (index_t k = 0; k < batch; ++k) single(k);
    return;
  }
  const Scratch<T> Z(device, 2 * n * n * batch);
  gather(0, batch, Z.data());
  const std::vector<int> infos =
      syev_batched(device, type, 2 * sizeof(T), n, reinterpret_cast<char*>(Z.data()), batch, host_values);
  for (index_t k = 0; k < batch; ++k) {
    if (infos[static_cast<std::size_t>(k)] != 0) single(k);
  }
}

template class Eigenvalues<float>;
template class Eigenvalues<double>;

}  // namespace brockett::linalg::cuda
