// cuSOLVER's symmetric and Hermitian eigenvalue problems on LAPACK.
#include <limits>

#include "solver.hpp"

namespace cuda_shim {
namespace {

// LAPACK's syevd or heevd; without vectors the matrix is destroyed, both triangles of it.
template <class T>
int eigen(cusolverEigMode_t jobz, cublasFillMode_t uplo, Index n, cudaDataType type, void* a, Index lda, T* w) {
  const char job = letter(jobz), part = letter(uplo);
  const blas_int order = narrow(n), ld = narrow(lda);
  std::vector<blas_int> iwork(static_cast<std::size_t>(5 * n + 3));
  const auto liwork = narrow(5 * n + 3);
  int info = 0;
  if (is_complex(type)) {
    const blas_int lrwork = narrow(1 + 5 * n + 2 * n * n);
    std::vector<T> rwork(static_cast<std::size_t>(lrwork));
    info = with_workspace<T>([&](T* work, blas_int lwork, blas_int& result) {
      Fortran<T>::heevd(&job, &part, &order, static_cast<T*>(a), &ld, w, work, &lwork, rwork.data(), &lrwork,
                        iwork.data(), &liwork, &result, 1, 1);
    });
  } else {
    info = with_workspace<T>([&](T* work, blas_int lwork, blas_int& result) {
      Fortran<T>::syevd(&job, &part, &order, static_cast<T*>(a), &ld, w, work, &lwork, iwork.data(), &liwork, &result,
                        1, 1);
    });
  }
  if (job == 'N') poison_matrix(a, n, n, lda, size_of(type));
  return info;
}

bool fits(Index n, Index lda, cudaDataType type, cudaDataType type_w, cudaDataType compute) {
  return n > 0 && lda >= n && is_known(type, compute) && type_w == real_of(type);
}

// The library's own limits: what it indexes must fit an int (documented), and how many there are a short (seen).
bool batch_fits(Index n, Index lda, Index batch) {
  return batch >= 1 && batch <= std::numeric_limits<short>::max() && n * lda <= std::numeric_limits<int>::max() / batch;
}

}  // namespace
}  // namespace cuda_shim

using namespace cuda_shim;

EXPORT cusolverStatus_t cusolverDnXsyevd_bufferSize(cusolverDnHandle_t handle, cusolverDnParams_t params,
                                                    cusolverEigMode_t, cublasFillMode_t, int64_t n, cudaDataType type_a,
                                                    const void*, int64_t lda, cudaDataType type_w, const void*,
                                                    cudaDataType compute, size_t* device_bytes, size_t* host_bytes) {
  SOLVER_ENTER_X;
  if (!fits(n, lda, type_a, type_w, compute)) return CUSOLVER_STATUS_INVALID_VALUE;
  const Workspace need = workspace(n, n, size_of(type_a));
  *device_bytes = need.device;
  *host_bytes = need.host;
  return CUSOLVER_STATUS_SUCCESS;
}

EXPORT cusolverStatus_t cusolverDnXsyevd(cusolverDnHandle_t handle, cusolverDnParams_t params, cusolverEigMode_t jobz,
                                         cublasFillMode_t uplo, int64_t n, cudaDataType type_a, void* a, int64_t lda,
                                         cudaDataType type_w, void* w, cudaDataType compute, void* device_work,
                                         size_t device_bytes, void* host_work, size_t host_bytes, int* info) {
  SOLVER_ENTER_X;
  const Workspace need = workspace(n, n, size_of(type_a));
  if (!fits(n, lda, type_a, type_w, compute) || device_bytes < need.device || host_bytes < need.host) {
    return CUSOLVER_STATUS_INVALID_VALUE;
  }
  Solve solve(__func__, handle);
  solve.call().device("A", a, n, n, lda, size_of(type_a)).device("W", w, n, 1, n, size_of(type_w));
  solve.work(device_work, device_bytes, host_work, host_bytes, info);
  solve.spoils(w, static_cast<std::size_t>(n) * size_of(type_w));
  solve.spoils(a, static_cast<std::size_t>(n) * size_of(type_a));
  return with_real(type_a, [&]<class T>(T*) {
    return solve.run([=](Index) { return eigen<T>(jobz, uplo, n, type_a, a, lda, static_cast<T*>(w)); });
  });
}

EXPORT cusolverStatus_t cusolverDnXsyevBatched_bufferSize(cusolverDnHandle_t handle, cusolverDnParams_t params,
                                                          cusolverEigMode_t, cublasFillMode_t, int64_t n,
                                                          cudaDataType type_a, const void*, int64_t lda,
                                                          cudaDataType type_w, const void*, cudaDataType compute,
                                                          size_t* device_bytes, size_t* host_bytes, int64_t batch) {
  SOLVER_ENTER_X;
  if (!fits(n, lda, type_a, type_w, compute) || !batch_fits(n, lda, batch)) return CUSOLVER_STATUS_INVALID_VALUE;
  const Workspace need = workspace(n, n * batch, size_of(type_a));
  *device_bytes = need.device;
  *host_bytes = need.host;
  return CUSOLVER_STATUS_SUCCESS;
}

EXPORT cusolverStatus_t cusolverDnXsyevBatched(cusolverDnHandle_t handle, cusolverDnParams_t params,
                                               cusolverEigMode_t jobz, cublasFillMode_t uplo, int64_t n,
                                               cudaDataType type_a, void* a, int64_t lda, cudaDataType type_w, void* w,
                                               cudaDataType compute, void* device_work, size_t device_bytes,
                                               void* host_work, size_t host_bytes, int* info, int64_t batch) {
  SOLVER_ENTER_X;
  if (!fits(n, lda, type_a, type_w, compute) || !batch_fits(n, lda, batch)) return CUSOLVER_STATUS_INVALID_VALUE;
  const Workspace need = workspace(n, n * batch, size_of(type_a));
  if (device_bytes < need.device || host_bytes < need.host) return CUSOLVER_STATUS_INVALID_VALUE;
  Solve solve(__func__, handle);
  solve.call().device("A", a, n, n, lda, size_of(type_a), batch, lda * n);
  solve.call().device("W", w, n, batch, n, size_of(type_w));
  solve.work(device_work, device_bytes, host_work, host_bytes, info, batch);
  // the last of the batch is the one that fails
  solve.spoils(static_cast<char*>(w) + static_cast<std::size_t>(n * (batch - 1)) * size_of(type_w),
               static_cast<std::size_t>(n) * size_of(type_w));
  return with_real(type_a, [&]<class T>(T*) {
    return solve.run([=](Index k) {
      return eigen<T>(jobz, uplo, n, type_a,
                      static_cast<char*>(a) + static_cast<std::size_t>(k * lda * n) * size_of(type_a), lda,
                      static_cast<T*>(w) + k * n);
    });
  });
}

EXPORT cusolverStatus_t cusolverDnXsyevdx_bufferSize(cusolverDnHandle_t handle, cusolverDnParams_t params,
                                                     cusolverEigMode_t, cusolverEigRange_t range, cublasFillMode_t,
                                                     int64_t n, cudaDataType type_a, const void*, int64_t lda, void*,
                                                     void*, int64_t il, int64_t iu, int64_t*, cudaDataType type_w,
                                                     const void*, cudaDataType compute, size_t* device_bytes,
                                                     size_t* host_bytes) {
  SOLVER_ENTER_X;
  if (!fits(n, lda, type_a, type_w, compute)) return CUSOLVER_STATUS_INVALID_VALUE;
  if (range == CUSOLVER_EIG_RANGE_I && (il < 1 || iu < il || iu > n)) return CUSOLVER_STATUS_INVALID_VALUE;
  const Workspace need = workspace(n, n, size_of(type_a));
  *device_bytes = need.device;
  *host_bytes = need.host;
  return CUSOLVER_STATUS_SUCCESS;
}

// Eigenpairs il … iu, ascending, in the first columns of A; the rest of A and of W is destroyed. By index alone.
EXPORT cusolverStatus_t cusolverDnXsyevdx(cusolverDnHandle_t handle, cusolverDnParams_t params, cusolverEigMode_t jobz,
                                          cusolverEigRange_t range, cublasFillMode_t uplo, int64_t n,
                                          cudaDataType type_a, void* a, int64_t lda, void*, void*, int64_t il,
                                          int64_t iu, int64_t* found, cudaDataType type_w, void* w,
                                          cudaDataType compute, void* device_work, size_t device_bytes, void* host_work,
                                          size_t host_bytes, int* info) {
  SOLVER_ENTER_X;
  const Workspace need = workspace(n, n, size_of(type_a));
  if (!fits(n, lda, type_a, type_w, compute) || device_bytes < need.device || host_bytes < need.host) {
    return CUSOLVER_STATUS_INVALID_VALUE;
  }
  if (range != CUSOLVER_EIG_RANGE_I || is_complex(type_a)) return CUSOLVER_STATUS_NOT_SUPPORTED;
  if (il < 1 || iu < il || iu > n) return CUSOLVER_STATUS_INVALID_VALUE;
  Solve solve(__func__, handle);
  solve.call().device("A", a, n, n, lda, size_of(type_a)).device("W", w, n, 1, n, size_of(type_w));
  solve.call().host("the number of eigenvalues found", found, sizeof *found);
  solve.work(device_work, device_bytes, host_work, host_bytes, info);
  solve.spoils(w, static_cast<std::size_t>(n) * size_of(type_w));
  solve.spoils(a, static_cast<std::size_t>(n) * size_of(type_a));
  return with_real(type_a, [&]<class T>(T*) {
    return solve.run([=](Index) {
      T* values = static_cast<T*>(w);
      T* columns = static_cast<T*>(a);
      const Index count = iu - il + 1;
      const int result = eigen<T>(jobz, uplo, n, type_a, a, lda, values);
      *found = count;
      std::copy(values + il - 1, values + iu, values);
      poison(values + count, static_cast<std::size_t>(n - count) * sizeof(T));
      if (jobz == CUSOLVER_EIG_MODE_VECTOR) {
        for (Index j = 0; j < count; ++j) {
          const T* from = columns + (il - 1 + j) * lda;
          std::copy(from, from + n, columns + j * lda);
        }
        poison_matrix(columns + count * lda, n, n - count, lda, sizeof(T));
      }
      return result;
    });
  });
}

// --- Jacobi -------------------------------------------------------------------------------------------------------------

namespace cuda_shim {
namespace {

struct JacobiState {};
using JacobiHandles = Handles<syevjInfo_t, JacobiState>;

template <class T>
cusolverStatus_t syevj_size(const char* function, cusolverDnHandle_t handle, int n, int lda, int* lwork,
                            syevjInfo_t params) {
  const Lock guard(lock());
  if (const int injected = enter(function)) return static_cast<cusolverStatus_t>(injected);
  SolverHandles::get().of(handle, function);
  JacobiHandles::get().of(params, function);
  if (n < 1 || lda < n) return CUSOLVER_STATUS_INVALID_VALUE;
  *lwork = 7 * n + 19;
  return CUSOLVER_STATUS_SUCCESS;
}

template <class T>
cusolverStatus_t syevj_call(const char* function, cusolverDnHandle_t handle, cusolverEigMode_t jobz,
                            cublasFillMode_t uplo, int n, T* a, int lda, T* w, T* work, int lwork, int* info,
                            syevjInfo_t params) {
  const Lock guard(lock());
  if (const int injected = enter(function)) return static_cast<cusolverStatus_t>(injected);
  JacobiHandles::get().of(params, function);
  if (n < 1 || lda < n || lwork < 7 * n + 19) return CUSOLVER_STATUS_INVALID_VALUE;
  Solve solve(function, handle);
  solve.call().matrix("A", a, n, n, lda).matrix("W", w, n, 1, n);
  solve.work(work, static_cast<std::size_t>(lwork) * sizeof(T), nullptr, 0, info);
  solve.spoils(w, static_cast<std::size_t>(n) * sizeof(T));
  return solve.run(
      [=](Index) { return eigen<T>(jobz, uplo, n, sizeof(T) == sizeof(float) ? CUDA_R_32F : CUDA_R_64F, a, lda, w); });
}

}  // namespace
}  // namespace cuda_shim

EXPORT cusolverStatus_t cusolverDnCreateSyevjInfo(syevjInfo_t* params) {
  const Lock guard(lock());
  if (const int injected = enter(__func__)) return static_cast<cusolverStatus_t>(injected);
  if (!may_allocate()) return CUSOLVER_STATUS_ALLOC_FAILED;
  *params = JacobiHandles::get().create({});
  return CUSOLVER_STATUS_SUCCESS;
}
EXPORT cusolverStatus_t cusolverDnDestroySyevjInfo(syevjInfo_t params) {
  const Lock guard(lock());
  JacobiHandles::get().destroy(params, __func__);
  return CUSOLVER_STATUS_SUCCESS;
}
#define PRECISION(X, T)                                                                                               \
  EXPORT cusolverStatus_t cusolverDn##X##syevj_bufferSize(cusolverDnHandle_t handle, cusolverEigMode_t,               \
                                                          cublasFillMode_t, int n, const T*, int lda, const T*,       \
                                                          int* lwork, syevjInfo_t params) {                           \
    return syevj_size<T>(__func__, handle, n, lda, lwork, params);                                                    \
  }                                                                                                                   \
  EXPORT cusolverStatus_t cusolverDn##X##syevj(cusolverDnHandle_t handle, cusolverEigMode_t jobz,                     \
                                               cublasFillMode_t uplo, int n, T* a, int lda, T* w, T* work, int lwork, \
                                               int* info, syevjInfo_t params) {                                       \
    return syevj_call(__func__, handle, jobz, uplo, n, a, lda, w, work, lwork, info, params);                         \
  }
PRECISION(S, float)
PRECISION(D, double)
#undef PRECISION
