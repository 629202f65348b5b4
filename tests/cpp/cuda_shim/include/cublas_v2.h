// What brockett uses of cuBLAS; see cuda_runtime_api.h.
#pragma once

#include <stdint.h>

#include "cuda_runtime_api.h"
#include "declared/begin_values.h"
#include "declared/cublas_values.inc"
#include "declared/end_values.h"

typedef struct cublasContext* cublasHandle_t;

#define cublasCreate cublasCreate_v2
#define cublasDestroy cublasDestroy_v2
#define cublasSetStream cublasSetStream_v2
#define cublasSgemm_64 cublasSgemm_v2_64
#define cublasDgemm_64 cublasDgemm_v2_64
#define cublasSsyrk_64 cublasSsyrk_v2_64
#define cublasDsyrk_64 cublasDsyrk_v2_64
#define cublasStrsm_64 cublasStrsm_v2_64
#define cublasDtrsm_64 cublasDtrsm_v2_64

extern "C" {
#include "declared/cublas_functions.inc"
}
