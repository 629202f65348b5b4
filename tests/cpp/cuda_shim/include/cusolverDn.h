// What brockett uses of cuSOLVER's dense part; see cuda_runtime_api.h.
#pragma once

#include <stdint.h>

#include "cublas_v2.h"
#include "declared/begin_values.h"
#include "declared/cusolver_values.inc"
#include "declared/end_values.h"

typedef struct cusolverDnContext* cusolverDnHandle_t;
typedef struct cusolverDnParams* cusolverDnParams_t;
typedef struct syevjInfo* syevjInfo_t;

extern "C" {
#include "declared/cusolver_functions.inc"
}
