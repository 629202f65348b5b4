// What the entry points of cuSOLVER share: handles, types, workspaces.
#pragma once

#include <cusolverDn.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "control.h"
#include "device.hpp"
#include "handles.hpp"
#include "linalg/lapack/blas.hpp"

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace cuda_shim {

using brockett::linalg::lapack::blas_int;
using brockett::linalg::lapack::Fortran;
using SolverHandles = Handles<cusolverDnHandle_t, LibraryHandle>;
struct SolverParams {};
using SolverParamsHandles = Handles<cusolverDnParams_t, SolverParams>;
using Lock = std::lock_guard<std::recursive_mutex>;
using Index = std::int64_t;

inline char letter(cublasFillMode_t uplo) { return uplo == CUBLAS_FILL_MODE_LOWER ? 'L' : 'U'; }
inline char letter(cusolverEigMode_t jobz) { return jobz == CUSOLVER_EIG_MODE_VECTOR ? 'V' : 'N'; }
inline blas_int narrow(Index n) { return static_cast<blas_int>(n); }
inline bool is_complex(cudaDataType type) { return type == CUDA_C_32F || type == CUDA_C_64F; }
/// The type of eigenvalues and singular values.
inline cudaDataType real_of(cudaDataType type) {
  return type == CUDA_C_32F || type == CUDA_R_32F ? CUDA_R_32F : CUDA_R_64F;
}
inline std::size_t size_of(cudaDataType type) {
  return (real_of(type) == CUDA_R_32F ? sizeof(float) : sizeof(double)) * (is_complex(type) ? 2 : 1);
}
/// All routines take one of four types, for everything.
inline bool is_known(cudaDataType type, cudaDataType compute) {
  return type == compute && (type == CUDA_R_32F || type == CUDA_R_64F || is_complex(type));
}

/// f of a null pointer of the real type that belongs to `type`.
template <class F>
auto with_real(cudaDataType type, F f) {
  return real_of(type) == CUDA_R_32F ? f(static_cast<float*>(nullptr)) : f(static_cast<double*>(nullptr));
}

/// A LAPACK routine called twice: for the length of its workspace, then to work. f(work, lwork, info).
template <class T, class F>
int with_workspace(F f) {
  blas_int info = 0;
  T answer[2] = {};
  f(answer, blas_int{-1}, info);
  if (info != 0) return static_cast<int>(info);
  // a float holds 24 bits of the length
  const auto length = static_cast<blas_int>(static_cast<double>(answer[0]) * (1 + 1e-6)) + 8;
  std::vector<T> work(2 * static_cast<std::size_t>(length));
  f(work.data(), length, info);
  return static_cast<int>(info);
}

/// Sizes that a caller can only know by asking: both depend on the problem, and neither is 0.
struct Workspace {
  std::size_t device = 0;
  std::size_t host = 0;
};
inline Workspace workspace(Index m, Index n, std::size_t size) {
  return {size * static_cast<std::size_t>(5 * (m + n) + 3 * std::min(m, n) + 17),
          sizeof(double) * static_cast<std::size_t>(m + n + 3)};
}

/// One call of a cuSOLVER routine, with what all of them do to workspace and info.
class Solve {
 public:
  Solve(const char* function, cusolverDnHandle_t handle)
      : function_(function),
        call_(function, SolverHandles::get().of(handle, function).stream_for(function)),
        failure_(injected_info(function)) {}

  Call& call() { return call_; }

  void work(void* device_work, std::size_t device_bytes, void* host_work, std::size_t host_bytes, int* info,
            Index infos = 1) {
    call_.bytes("the device workspace", device_work, device_bytes).host("the host workspace", host_work, host_bytes);
    call_.matrix("info", info, infos, 1, infos);
    poison(host_work, host_bytes);
    device_work_ = device_work;
    device_bytes_ = device_bytes;
    info_ = info;
    infos_ = infos;
  }
  /// `output`: what is garbage where convergence fails.
  void spoils(void* output, std::size_t bytes) { outputs_.push_back({output, bytes}); }

  /// f(k) works on problem k and returns its info.
  template <class F>
  cusolverStatus_t run(F f) {
    const auto spoiled = failure_ != 0 ? outputs_ : std::vector<Output>{};
    call_.run([f, spoiled, failure = failure_, work = device_work_, bytes = device_bytes_, info = info_, n = infos_] {
      poison(work, bytes);
      for (Index k = 0; k < n; ++k) info[k] = f(k);
      for (const Output& output : spoiled) poison(output.p, output.bytes);
      if (failure != 0) info[n - 1] = failure == BROCKETT_SHIM_SILENT ? 0 : failure;
    });
    return CUSOLVER_STATUS_SUCCESS;
  }

 private:
  struct Output {
    void* p;
    std::size_t bytes;
  };
  const char* function_;
  Call call_;
  int failure_;
  void* device_work_ = nullptr;
  std::size_t device_bytes_ = 0;
  int* info_ = nullptr;
  Index infos_ = 1;
  std::vector<Output> outputs_;
};

/// Every entry point that works: one at a time, with parameters that are alive; injected statuses.
#define SOLVER_ENTER                                                                        \
  const Lock guard(lock());                                                                 \
  if (const int injected = enter(__func__)) return static_cast<cusolverStatus_t>(injected); \
  SolverHandles::get().of(handle, __func__)
#define SOLVER_ENTER_X \
  SOLVER_ENTER;        \
  if (params != nullptr) SolverParamsHandles::get().of(params, __func__)

/// NaN over the columns of a matrix.
inline void poison_matrix(void* a, Index rows, Index cols, Index ld, std::size_t size) {
  for (Index j = 0; j < cols; ++j) {
    poison(static_cast<char*>(a) + static_cast<std::size_t>(j * ld) * size, static_cast<std::size_t>(rows) * size);
  }
}

}  // namespace cuda_shim
