// cuBLAS and cuSOLVER by precision: Blas<double>::gemm is cublasDgemm_64.
#pragma once

#include <cublas_v2.h>
#include <cusolverDn.h>

#include <algorithm>

#include "linalg/linalg.hpp"

namespace brockett::linalg::cuda {

template <class T>
struct Blas;

#define BROCKETT_BLAS(T, X, real, complex)                                 \
  template <>                                                              \
  struct Blas<T> {                                                         \
    static constexpr cudaDataType type = real, complex_type = complex;     \
    static constexpr auto gemm = cublas##X##gemm_64;                       \
    static constexpr auto gemm_batched = cublas##X##gemmStridedBatched_64; \
    static constexpr auto syrk = cublas##X##syrk_64;                       \
    static constexpr auto trsm = cublas##X##trsm_64;                       \
    static constexpr auto geam = cublas##X##geam_64;                       \
    static constexpr auto orgqr_size = cusolverDn##X##orgqr_bufferSize;    \
    static constexpr auto orgqr = cusolverDn##X##orgqr;                    \
    static constexpr auto syevj_size = cusolverDn##X##syevj_bufferSize;    \
    static constexpr auto syevj = cusolverDn##X##syevj;                    \
  };
BROCKETT_BLAS(float, S, CUDA_R_32F, CUDA_C_32F)
BROCKETT_BLAS(double, D, CUDA_R_64F, CUDA_C_64F)
#undef BROCKETT_BLAS

inline cublasOperation_t op_of(Op op) { return op == Op::none ? CUBLAS_OP_N : CUBLAS_OP_T; }
// A leading dimension is at least 1, also of a matrix without rows.
inline index_t ld_of(index_t ld) { return std::max<index_t>(1, ld); }

}  // namespace brockett::linalg::cuda
