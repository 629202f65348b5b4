// cuSOLVER's handles, singular values and factorizations on LAPACK.
#include <cmath>
#include <limits>

#include "solver.hpp"

using namespace cuda_shim;

EXPORT cusolverStatus_t cusolverGetVersion(int* version) {
  *version = 12004;
  return CUSOLVER_STATUS_SUCCESS;
}
EXPORT cusolverStatus_t cusolverDnCreate(cusolverDnHandle_t* handle) {
  const Lock guard(lock());
  if (const int injected = enter(__func__)) return static_cast<cusolverStatus_t>(injected);
  if (driver_state() != cudaSuccess) return CUSOLVER_STATUS_NOT_INITIALIZED;
  if (!may_allocate()) return CUSOLVER_STATUS_ALLOC_FAILED;
  *handle = SolverHandles::get().create({current_device()});
  return CUSOLVER_STATUS_SUCCESS;
}
EXPORT cusolverStatus_t cusolverDnDestroy(cusolverDnHandle_t handle) {
  const Lock guard(lock());
  SolverHandles::get().destroy(handle, __func__);
  return CUSOLVER_STATUS_SUCCESS;
}
EXPORT cusolverStatus_t cusolverDnSetStream(cusolverDnHandle_t handle, cudaStream_t stream) {
  const Lock guard(lock());
  if (const int injected = enter(__func__)) return static_cast<cusolverStatus_t>(injected);
  stream_of(stream, __func__);
  SolverHandles::get().of(handle, __func__).stream = stream;
  return CUSOLVER_STATUS_SUCCESS;
}
EXPORT cusolverStatus_t cusolverDnCreateParams(cusolverDnParams_t* params) {
  const Lock guard(lock());
  if (const int injected = enter(__func__)) return static_cast<cusolverStatus_t>(injected);
  if (!may_allocate()) return CUSOLVER_STATUS_ALLOC_FAILED;
  *params = SolverParamsHandles::get().create({});
  return CUSOLVER_STATUS_SUCCESS;
}
EXPORT cusolverStatus_t cusolverDnDestroyParams(cusolverDnParams_t params) {
  const Lock guard(lock());
  SolverParamsHandles::get().destroy(params, __func__);
  return CUSOLVER_STATUS_SUCCESS;
}

// --- singular values ----------------------------------------------------------------------------------------------------

namespace cuda_shim {
namespace {

bool is_real(cudaDataType a, cudaDataType s, cudaDataType u, cudaDataType v, cudaDataType compute) {
  return (a == CUDA_R_32F || a == CUDA_R_64F) && a == s && a == u && a == v && a == compute;
}

template <class T>
int gesvd(char jobu, char jobvt, Index m, Index n, T* a, Index lda, T* s, T* u, Index ldu, T* vt, Index ldvt) {
  const blas_int bm = narrow(m), bn = narrow(n), la = narrow(lda);
  const blas_int lu = narrow(std::max<Index>(1, ldu)), lv = narrow(std::max<Index>(1, ldvt));
  return with_workspace<T>([&](T* work, blas_int lwork, blas_int& result) {
    Fortran<T>::gesvd(&jobu, &jobvt, &bm, &bn, a, &la, s, u, &lu, vt, &lv, work, &lwork, &result, 1, 1);
  });
}

template <class T>
int gesdd(char job, Index m, Index n, T* a, Index lda, T* s, T* u, Index ldu, T* vt, Index ldvt) {
  const blas_int bm = narrow(m), bn = narrow(n), la = narrow(lda);
  const blas_int lu = narrow(std::max<Index>(1, ldu)), lv = narrow(std::max<Index>(1, ldvt));
  std::vector<blas_int> iwork(static_cast<std::size_t>(8 * std::min(m, n)));
  return with_workspace<T>([&](T* work, blas_int lwork, blas_int& result) {
    Fortran<T>::gesdd(&job, &bm, &bn, a, &la, s, u, &lu, vt, &lv, work, &lwork, iwork.data(), &result, 1);
  });
}

}  // namespace
}  // namespace cuda_shim

EXPORT cusolverStatus_t cusolverDnXgesvd_bufferSize(cusolverDnHandle_t handle, cusolverDnParams_t params, signed char,
                                                    signed char, int64_t m, int64_t n, cudaDataType type_a, const void*,
                                                    int64_t lda, cudaDataType type_s, const void*, cudaDataType type_u,
                                                    const void*, int64_t, cudaDataType type_vt, const void*, int64_t,
                                                    cudaDataType compute, size_t* device_bytes, size_t* host_bytes) {
  SOLVER_ENTER_X;
  if (n < 1 || m < n || lda < m) return CUSOLVER_STATUS_INVALID_VALUE;  // tall matrices only, as the original
  if (!is_real(type_a, type_s, type_u, type_vt, compute)) return CUSOLVER_STATUS_NOT_SUPPORTED;
  const Workspace need = workspace(m, n, size_of(type_a));
  *device_bytes = need.device;
  *host_bytes = need.host;
  return CUSOLVER_STATUS_SUCCESS;
}

EXPORT cusolverStatus_t cusolverDnXgesvd(cusolverDnHandle_t handle, cusolverDnParams_t params, signed char jobu,
                                         signed char jobvt, int64_t m, int64_t n, cudaDataType type_a, void* a,
                                         int64_t lda, cudaDataType type_s, void* s, cudaDataType type_u, void* u,
                                         int64_t ldu, cudaDataType type_vt, void* vt, int64_t ldvt,
                                         cudaDataType compute, void* device_work, size_t device_bytes, void* host_work,
                                         size_t host_bytes, int* info) {
  SOLVER_ENTER_X;
  if (!is_real(type_a, type_s, type_u, type_vt, compute)) return CUSOLVER_STATUS_NOT_SUPPORTED;
  const Workspace need = workspace(m, n, size_of(type_a));
  if (n < 1 || m < n || lda < m || device_bytes < need.device || host_bytes < need.host) {
    return CUSOLVER_STATUS_INVALID_VALUE;
  }
  if ((jobu != 'N' && jobu != 'S' && jobu != 'A') || (jobvt != 'N' && jobvt != 'S' && jobvt != 'A')) {
    return CUSOLVER_STATUS_NOT_SUPPORTED;
  }
  if ((jobu != 'N' && ldu < m) || (jobvt != 'N' && ldvt < n)) return CUSOLVER_STATUS_INVALID_VALUE;
  const std::size_t size = size_of(type_a);
  Solve solve(__func__, handle);
  solve.call().device("A", a, m, n, lda, size).device("S", s, n, 1, n, size);
  if (jobu != 'N') solve.call().device("U", u, m, jobu == 'A' ? m : n, ldu, size);
  if (jobvt != 'N') solve.call().device("VT", vt, n, n, ldvt, size);
  solve.work(device_work, device_bytes, host_work, host_bytes, info);
  solve.spoils(s, static_cast<std::size_t>(n) * size);
  return with_real(type_a, [&]<class T>(T*) {
    return solve.run([=](Index) {
      const int result = gesvd<T>(static_cast<char>(jobu), static_cast<char>(jobvt), m, n, static_cast<T*>(a), lda,
                                  static_cast<T*>(s), static_cast<T*>(u), ldu, static_cast<T*>(vt), ldvt);
      poison_matrix(a, m, n, lda, sizeof(T));
      return result;
    });
  });
}

// U and V must be there in every mode, and for every shape as large as the documentation names them, m x m and n x n.
EXPORT cusolverStatus_t cusolverDnXgesvdp_bufferSize(cusolverDnHandle_t handle, cusolverDnParams_t params,
                                                     cusolverEigMode_t, int, int64_t m, int64_t n, cudaDataType type_a,
                                                     const void*, int64_t lda, cudaDataType type_s, const void*,
                                                     cudaDataType type_u, const void* u, int64_t ldu,
                                                     cudaDataType type_v, const void* v, int64_t ldv,
                                                     cudaDataType compute, size_t* device_bytes, size_t* host_bytes) {
  SOLVER_ENTER_X;
  if (m < 1 || n < 1 || lda < m || ldu < m || ldv < n || u == nullptr || v == nullptr) {
    return CUSOLVER_STATUS_INVALID_VALUE;
  }
  if (!is_real(type_a, type_s, type_u, type_v, compute)) return CUSOLVER_STATUS_NOT_SUPPORTED;
  const Workspace need = workspace(m, n, size_of(type_a));
  *device_bytes = need.device;
  *host_bytes = need.host;
  return CUSOLVER_STATUS_SUCCESS;
}

// A = U diag(s) V^T by the polar decomposition, which a singular A has not: where a value vanishes the original adds a
// perturbation, by which all values are off, and tells its size. So does this.
EXPORT cusolverStatus_t cusolverDnXgesvdp(cusolverDnHandle_t handle, cusolverDnParams_t params, cusolverEigMode_t jobz,
                                          int econ, int64_t m, int64_t n, cudaDataType type_a, void* a, int64_t lda,
                                          cudaDataType type_s, void* s, cudaDataType type_u, void* u, int64_t ldu,
                                          cudaDataType type_v, void* v, int64_t ldv, cudaDataType compute,
                                          void* device_work, size_t device_bytes, void* host_work, size_t host_bytes,
                                          int* info, double* host_perturbation) {
  SOLVER_ENTER_X;
  if (!is_real(type_a, type_s, type_u, type_v, compute)) return CUSOLVER_STATUS_NOT_SUPPORTED;
  const Workspace need = workspace(m, n, size_of(type_a));
  if (m < 1 || n < 1 || lda < m || device_bytes < need.device || host_bytes < need.host) {
    return CUSOLVER_STATUS_INVALID_VALUE;
  }
  const bool vectors = jobz == CUSOLVER_EIG_MODE_VECTOR;
  if (ldu < m || ldv < n || u == nullptr || v == nullptr) return CUSOLVER_STATUS_INVALID_VALUE;
  const Index k = std::min(m, n), v_cols = econ ? k : n;
  const std::size_t size = size_of(type_a);
  Solve solve(__func__, handle);
  solve.call().device("A", a, m, n, lda, size).device("S", s, k, 1, k, size);
  solve.call().device("U", u, m, m, ldu, size).device("V", v, n, n, ldv, size);
  solve.call().host("the perturbation", host_perturbation, sizeof *host_perturbation);
  solve.work(device_work, device_bytes, host_work, host_bytes, info);
  solve.spoils(s, static_cast<std::size_t>(k) * size);
  return with_real(type_a, [&]<class T>(T*) {
    return solve.run([=](Index) {
      poison_matrix(u, m, m, ldu, sizeof(T));
      poison_matrix(v, n, n, ldv, sizeof(T));
      std::vector<T> vt(static_cast<std::size_t>(vectors ? v_cols * n : 0));
      const char job = !vectors ? 'N' : econ ? 'S' : 'A';
      T* values = static_cast<T*>(s);
      const int result =
          gesdd<T>(job, m, n, static_cast<T*>(a), lda, values, static_cast<T*>(u), ldu, vt.data(), v_cols);
      if (vectors) {
        for (Index j = 0; j < v_cols; ++j) {
          for (Index i = 0; i < n; ++i) static_cast<T*>(v)[i + j * ldv] = vt[static_cast<std::size_t>(j + i * v_cols)];
        }
      }
      const T smallest_kept = static_cast<T>(std::max(m, n)) * std::numeric_limits<T>::epsilon() * values[0];
      const T shift = values[k - 1] < smallest_kept ? smallest_kept : T{0};
      for (Index i = 0; i < k; ++i) values[i] += shift;
      *host_perturbation = static_cast<double>(shift);
      poison_matrix(a, m, n, lda, sizeof(T));
      return result;
    });
  });
}

// --- Cholesky, LU, QR ---------------------------------------------------------------------------------------------------

EXPORT cusolverStatus_t cusolverDnXpotrf_bufferSize(cusolverDnHandle_t handle, cusolverDnParams_t params,
                                                    cublasFillMode_t, int64_t n, cudaDataType type_a, const void*,
                                                    int64_t lda, cudaDataType compute, size_t* device_bytes,
                                                    size_t* host_bytes) {
  SOLVER_ENTER_X;
  if (n < 1 || lda < n || !is_known(type_a, compute)) return CUSOLVER_STATUS_INVALID_VALUE;
  const Workspace need = workspace(n, n, size_of(type_a));
  *device_bytes = need.device;
  *host_bytes = need.host;
  return CUSOLVER_STATUS_SUCCESS;
}

EXPORT cusolverStatus_t cusolverDnXpotrf(cusolverDnHandle_t handle, cusolverDnParams_t params, cublasFillMode_t uplo,
                                         int64_t n, cudaDataType type_a, void* a, int64_t lda, cudaDataType compute,
                                         void* device_work, size_t device_bytes, void* host_work, size_t host_bytes,
                                         int* info) {
  SOLVER_ENTER_X;
  if (is_complex(type_a)) return CUSOLVER_STATUS_NOT_SUPPORTED;
  const Workspace need = workspace(n, n, size_of(type_a));
  if (n < 1 || lda < n || !is_known(type_a, compute) || device_bytes < need.device || host_bytes < need.host) {
    return CUSOLVER_STATUS_INVALID_VALUE;
  }
  Solve solve(__func__, handle);
  solve.call().device("A", a, n, n, lda, size_of(type_a));
  solve.work(device_work, device_bytes, host_work, host_bytes, info);
  return with_real(type_a, [&]<class T>(T*) {
    return solve.run([=](Index) {
      const char part = letter(uplo);
      const blas_int order = narrow(n), ld = narrow(lda);
      blas_int result = 0;
      Fortran<T>::potrf(&part, &order, static_cast<T*>(a), &ld, &result, 1);
      return static_cast<int>(result);
    });
  });
}

EXPORT cusolverStatus_t cusolverDnXgetrf_bufferSize(cusolverDnHandle_t handle, cusolverDnParams_t params, int64_t m,
                                                    int64_t n, cudaDataType type_a, const void*, int64_t lda,
                                                    cudaDataType compute, size_t* device_bytes, size_t* host_bytes) {
  SOLVER_ENTER_X;
  if (m < 1 || n < 1 || lda < m || !is_known(type_a, compute)) return CUSOLVER_STATUS_INVALID_VALUE;
  const Workspace need = workspace(m, n, size_of(type_a));
  *device_bytes = need.device;
  *host_bytes = need.host;
  return CUSOLVER_STATUS_SUCCESS;
}

EXPORT cusolverStatus_t cusolverDnXgetrf(cusolverDnHandle_t handle, cusolverDnParams_t params, int64_t m, int64_t n,
                                         cudaDataType type_a, void* a, int64_t lda, int64_t* pivots,
                                         cudaDataType compute, void* device_work, size_t device_bytes, void* host_work,
                                         size_t host_bytes, int* info) {
  SOLVER_ENTER_X;
  if (is_complex(type_a) || pivots == nullptr) return CUSOLVER_STATUS_NOT_SUPPORTED;
  const Workspace need = workspace(m, n, size_of(type_a));
  if (m < 1 || n < 1 || lda < m || !is_known(type_a, compute) || device_bytes < need.device || host_bytes < need.host) {
    return CUSOLVER_STATUS_INVALID_VALUE;
  }
  const Index k = std::min(m, n);
  Solve solve(__func__, handle);
  solve.call().device("A", a, m, n, lda, size_of(type_a)).matrix("the pivots", pivots, k, 1, k);
  solve.work(device_work, device_bytes, host_work, host_bytes, info);
  return with_real(type_a, [&]<class T>(T*) {
    return solve.run([=](Index) {
      const blas_int bm = narrow(m), bn = narrow(n), ld = narrow(lda);
      blas_int result = 0;
      std::vector<blas_int> swaps(static_cast<std::size_t>(k));
      Fortran<T>::getrf(&bm, &bn, static_cast<T*>(a), &ld, swaps.data(), &result);
      std::copy(swaps.begin(), swaps.end(), pivots);
      return static_cast<int>(result);
    });
  });
}

EXPORT cusolverStatus_t cusolverDnXgeqrf_bufferSize(cusolverDnHandle_t handle, cusolverDnParams_t params, int64_t m,
                                                    int64_t n, cudaDataType type_a, const void*, int64_t lda,
                                                    cudaDataType type_tau, const void*, cudaDataType compute,
                                                    size_t* device_bytes, size_t* host_bytes) {
  SOLVER_ENTER_X;
  if (m < 1 || n < 1 || lda < m || !is_known(type_a, compute) || type_tau != type_a) {
    return CUSOLVER_STATUS_INVALID_VALUE;
  }
  const Workspace need = workspace(m, n, size_of(type_a));
  *device_bytes = need.device;
  *host_bytes = need.host;
  return CUSOLVER_STATUS_SUCCESS;
}

EXPORT cusolverStatus_t cusolverDnXgeqrf(cusolverDnHandle_t handle, cusolverDnParams_t params, int64_t m, int64_t n,
                                         cudaDataType type_a, void* a, int64_t lda, cudaDataType type_tau, void* tau,
                                         cudaDataType compute, void* device_work, size_t device_bytes, void* host_work,
                                         size_t host_bytes, int* info) {
  SOLVER_ENTER_X;
  if (is_complex(type_a)) return CUSOLVER_STATUS_NOT_SUPPORTED;
  const Workspace need = workspace(m, n, size_of(type_a));
  if (m < 1 || n < 1 || lda < m || !is_known(type_a, compute) || type_tau != type_a || device_bytes < need.device ||
      host_bytes < need.host) {
    return CUSOLVER_STATUS_INVALID_VALUE;
  }
  const Index k = std::min(m, n);
  Solve solve(__func__, handle);
  solve.call().device("A", a, m, n, lda, size_of(type_a)).device("tau", tau, k, 1, k, size_of(type_tau));
  solve.work(device_work, device_bytes, host_work, host_bytes, info);
  return with_real(type_a, [&]<class T>(T*) {
    return solve.run([=](Index) {
      const blas_int bm = narrow(m), bn = narrow(n), ld = narrow(lda);
      return with_workspace<T>([&](T* work, blas_int lwork, blas_int& result) {
        Fortran<T>::geqrf(&bm, &bn, static_cast<T*>(a), &ld, static_cast<T*>(tau), work, &lwork, &result);
      });
    });
  });
}

namespace cuda_shim {
namespace {

bool fits(int m, int n, int k, int lda) { return m >= n && n >= k && k >= 1 && lda >= m; }

cusolverStatus_t orgqr_size(const char* function, cusolverDnHandle_t handle, int m, int n, int k, int lda, int* lwork) {
  const Lock guard(lock());
  if (const int injected = enter(function)) return static_cast<cusolverStatus_t>(injected);
  SolverHandles::get().of(handle, function);
  if (!fits(m, n, k, lda)) return CUSOLVER_STATUS_INVALID_VALUE;
  *lwork = 32 * n + 11;
  return CUSOLVER_STATUS_SUCCESS;
}

template <class T>
cusolverStatus_t orgqr_call(const char* function, cusolverDnHandle_t handle, int m, int n, int k, T* a, int lda,
                            const T* tau, T* work, int lwork, int* info) {
  const Lock guard(lock());
  if (const int injected = enter(function)) return static_cast<cusolverStatus_t>(injected);
  if (!fits(m, n, k, lda) || lwork < 32 * n + 11) return CUSOLVER_STATUS_INVALID_VALUE;
  Solve solve(function, handle);
  solve.call().matrix("A", a, m, n, lda).matrix("tau", tau, k, 1, k);
  solve.work(work, static_cast<std::size_t>(lwork) * sizeof(T), nullptr, 0, info);
  return solve.run([=](Index) {
    const blas_int bm = narrow(m), bn = narrow(n), bk = narrow(k), ld = narrow(lda);
    return with_workspace<T>([&](T* space, blas_int length, blas_int& result) {
      Fortran<T>::orgqr(&bm, &bn, &bk, a, &ld, tau, space, &length, &result);
    });
  });
}

}  // namespace
}  // namespace cuda_shim

#define PRECISION(X, T)                                                                                             \
  EXPORT cusolverStatus_t cusolverDn##X##orgqr_bufferSize(cusolverDnHandle_t handle, int m, int n, int k, const T*, \
                                                          int lda, const T*, int* lwork) {                          \
    return orgqr_size(__func__, handle, m, n, k, lda, lwork);                                                       \
  }                                                                                                                 \
  EXPORT cusolverStatus_t cusolverDn##X##orgqr(cusolverDnHandle_t handle, int m, int n, int k, T* a, int lda,       \
                                               const T* tau, T* work, int lwork, int* info) {                       \
    return orgqr_call(__func__, handle, m, n, k, a, lda, tau, work, lwork, info);                                   \
  }
PRECISION(S, float)
PRECISION(D, double)
#undef PRECISION
