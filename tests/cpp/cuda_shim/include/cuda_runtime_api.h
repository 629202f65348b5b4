// What brockett uses of the CUDA run-time, declared by ourselves so that the host sources of the CUDA backend compile
// where nothing of NVIDIA is installed. check_headers.cpp holds every line against the genuine headers.
#pragma once

#include <stddef.h>

#include "declared/begin_values.h"
#include "declared/cudart_values.inc"
#include "declared/end_values.h"

typedef enum cudaError cudaError_t;
typedef enum cudaDataType_t cudaDataType;
typedef enum libraryPropertyType_t libraryPropertyType;
typedef struct CUstream_st* cudaStream_t;
typedef struct CUevent_st* cudaEvent_t;
typedef struct CUmemPoolHandle_st* cudaMemPool_t;

#define cudaStreamLegacy ((cudaStream_t)0x1)
#define cudaStreamPerThread ((cudaStream_t)0x2)

// Of the genuine structures only the members that are used, in an order of our own: nothing but the shim reads them.
struct cudaDeviceProp {
  char name[256];
  size_t totalGlobalMem;
  int major;
  int minor;
};
struct cudaPointerAttributes {
  enum cudaMemoryType type;
  int device;
};
struct cudaMemLocation {
  enum cudaMemLocationType type;
  int id;
};
struct cudaMemPoolProps {
  enum cudaMemAllocationType allocType;
  struct cudaMemLocation location;
};

extern "C" {
#include "declared/cudart_functions.inc"
}
