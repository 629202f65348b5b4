/* What tests may ask of the shim and order from it; C, so that Python's ctypes reaches it in the plugin. */
#pragma once

#include <stddef.h>

#define BROCKETT_SHIM_API __attribute__((visibility("default")))

#ifdef __cplusplus
extern "C" {
#endif

/* 0 eager, 1 deferred, 2 guard; see device.hpp. From BROCKETT_SHIM_MODE, eager when that is unset. */
BROCKETT_SHIM_API int brockett_shim_mode(void);
/* Forget every injected failure and setting; memory, streams and handles stay. */
BROCKETT_SHIM_API void brockett_shim_reset(void);

/* Allocations of device and pinned memory that were not freed: how many, and their bytes. */
BROCKETT_SHIM_API size_t brockett_shim_live_allocations(void);
BROCKETT_SHIM_API size_t brockett_shim_live_bytes(void);
/* Streams, events, and handles of the libraries that were not destroyed. */
BROCKETT_SHIM_API size_t brockett_shim_live_handles(void);
/* Work that was enqueued and has not run. */
BROCKETT_SHIM_API size_t brockett_shim_pending(void);
/* Calls of the function of this link name since the start. */
BROCKETT_SHIM_API size_t brockett_shim_calls(const char* function);

/* From the k-th on (1: the next; 0: never) everything that takes device memory fails: cudaMalloc and its kin, pools, streams,
   events, handles. At first BROCKETT_SHIM_FAIL_MALLOC says k. Pinned memory: fail_status("cudaMallocHost", 2, count). */
BROCKETT_SHIM_API void brockett_shim_fail_allocation(size_t k);
/* The same, but only `count` of them fail. */
BROCKETT_SHIM_API void brockett_shim_fail_allocations(size_t k, size_t count);
/* Has the k-th not come yet? */
BROCKETT_SHIM_API int brockett_shim_failure_pending(void);
/* The next `count` calls of this function return `status` and do nothing else. "kernel": a launch of ours, seen by
   cudaGetLastError. */
BROCKETT_SHIM_API void brockett_shim_fail_status(const char* function, int status, size_t count);
/* The next `count` calls of this solver write `info` and garbage where results would be. BROCKETT_SHIM_FAIL_INFO names one
   that always does. With BROCKETT_SHIM_SILENT for info they write 0, as if all were well. */
#define BROCKETT_SHIM_SILENT 0x7FFFFFFF
BROCKETT_SHIM_API void brockett_shim_fail_info(const char* function, int info, size_t count);

/* Memory of each device, in bytes (256 MiB at first: algorithms then cut into blocks what tests give them). */
BROCKETT_SHIM_API void brockett_shim_set_memory(size_t total);
/* How many devices there are, 2 at first or what BROCKETT_SHIM_DEVICES says. */
BROCKETT_SHIM_API void brockett_shim_set_devices(int count);
/* CUDA version the driver serves, 13000 at first or what BROCKETT_SHIM_DRIVER says; 0: no driver. Less than
   13000: too old for this run-time. */
BROCKETT_SHIM_API void brockett_shim_set_driver(int version);

#ifdef __cplusplus
}
#endif
