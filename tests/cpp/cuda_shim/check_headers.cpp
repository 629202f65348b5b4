// The declarations of include/ against NVIDIA's own headers: a wrong type of a parameter is a conflicting declaration, a
// wrong value or member a failed assertion. Compiled where the genuine headers are installed (.ci/run), never linked.
#include <cublas_v2.h>
#include <cuda_runtime_api.h>
#include <cusolverDn.h>

#include <cstddef>
#include <string_view>
#include <type_traits>

#ifndef CUDART_VERSION
#error "these are not NVIDIA's headers"
#endif

extern "C" {
#include "include/declared/cublas_functions.inc"
#include "include/declared/cudart_functions.inc"
#include "include/declared/cusolver_functions.inc"
}

#define SHIM_ENUM(type) static_assert(std::is_enum_v<type>);
#define SHIM_CONSTANTS
#define SHIM_VALUE(name, value) static_assert(static_cast<int>(name) == (value), #name);
#define SHIM_END
#include "include/declared/cublas_values.inc"
#include "include/declared/cudart_values.inc"
#include "include/declared/cusolver_values.inc"

static_assert(std::is_same_v<cudaError_t, enum cudaError>);
static_assert(std::is_same_v<cudaDataType, enum cudaDataType_t>);
static_assert(std::is_same_v<libraryPropertyType, enum libraryPropertyType_t>);
static_assert(std::is_same_v<cudaStream_t, struct CUstream_st*>);
static_assert(std::is_same_v<cudaEvent_t, struct CUevent_st*>);
static_assert(std::is_same_v<cudaMemPool_t, struct CUmemPoolHandle_st*>);
static_assert(std::is_same_v<cublasHandle_t, struct cublasContext*>);
static_assert(std::is_same_v<cusolverDnHandle_t, struct cusolverDnContext*>);
static_assert(std::is_same_v<cusolverDnParams_t, struct cusolverDnParams*>);
static_assert(std::is_same_v<syevjInfo_t, struct syevjInfo*>);

static_assert(std::is_same_v<decltype(cudaDeviceProp::name), char[256]>);
static_assert(std::is_same_v<decltype(cudaDeviceProp::totalGlobalMem), std::size_t>);
static_assert(std::is_same_v<decltype(cudaDeviceProp::major), int>);
static_assert(std::is_same_v<decltype(cudaDeviceProp::minor), int>);
static_assert(std::is_same_v<decltype(cudaPointerAttributes::type), enum cudaMemoryType>);
static_assert(std::is_same_v<decltype(cudaPointerAttributes::device), int>);
static_assert(std::is_same_v<decltype(cudaMemLocation::type), enum cudaMemLocationType>);
static_assert(std::is_same_v<decltype(cudaMemLocation::id), int>);
static_assert(std::is_same_v<decltype(cudaMemPoolProps::allocType), enum cudaMemAllocationType>);
static_assert(std::is_same_v<decltype(cudaMemPoolProps::location), struct cudaMemLocation>);

// The names that the backend calls lead to the link names declared above.
#define TEXT_(x) #x
#define TEXT(x) std::string_view(TEXT_(x))
static_assert(TEXT(cublasCreate) == "cublasCreate_v2");
static_assert(TEXT(cublasDestroy) == "cublasDestroy_v2");
static_assert(TEXT(cublasSetStream) == "cublasSetStream_v2");
static_assert(TEXT(cublasSgemm_64) == "cublasSgemm_v2_64");
static_assert(TEXT(cublasDgemm_64) == "cublasDgemm_v2_64");
static_assert(TEXT(cublasSsyrk_64) == "cublasSsyrk_v2_64");
static_assert(TEXT(cublasDsyrk_64) == "cublasDsyrk_v2_64");
static_assert(TEXT(cublasStrsm_64) == "cublasStrsm_v2_64");
static_assert(TEXT(cublasDtrsm_64) == "cublasDtrsm_v2_64");
