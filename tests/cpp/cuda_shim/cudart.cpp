// The run-time: devices, memory, streams, events.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <map>
#include <utility>

#include "control.h"
#include "device.hpp"
#include "schedule.hpp"
#include "shim_launch.hpp"
#include "streams.hpp"

// Exported by the plugin over the shim, for tests that bring device memory and streams of their own.
#define EXPORT extern "C" __attribute__((visibility("default")))

namespace cuda_shim {
namespace {

thread_local int device_of_thread = 0;
thread_local cudaError_t last_error = cudaSuccess;

// As in CUDA an error is also kept for cudaGetLastError, which forgets it.
cudaError_t report(cudaError_t error) {
  if (error != cudaSuccess) last_error = error;
  return error;
}

using Lock = std::lock_guard<std::recursive_mutex>;

// Every entry point: one at a time; injected failures; a driver that serves this run-time.
#define ENTER                                                                                  \
  const Lock guard(lock());                                                                    \
  if (const int injected = enter(__func__)) return report(static_cast<cudaError_t>(injected)); \
  if (const cudaError_t driver = driver_state()) return report(driver)

struct Event {
  int device = 0;
  Ticket ticket{};  // of the last cudaEventRecord
  Clock clock{};
};
struct Events {
  std::map<std::uint64_t, Event> live;
  std::uint64_t next = 0x20000000;

  static Events& get() {
    static Events& events = *new Events;
    return events;
  }
  Event& of(cudaEvent_t handle, const char* function) {
    const auto at = live.find(reinterpret_cast<std::uint64_t>(handle));
    if (at == live.end()) die(std::string(function) + ": the event is not one, or was destroyed");
    return at->second;
  }
};

const char* error_name(cudaError_t error) {
#define SHIM_ENUM(type)
#define SHIM_CONSTANTS
#define SHIM_VALUE(name, value) {#name, value},
#define SHIM_END
  static constexpr std::pair<const char*, int> names[] = {
#include "declared/cudart_values.inc"
  };
#include "declared/end_values.h"
  for (const auto& [name, value] : names) {  // the errors stand first
    if (value == static_cast<int>(error)) return name;
  }
  return "unrecognized error code";
}

}  // namespace

int current_device() { return device_of_thread; }

}  // namespace cuda_shim

using namespace cuda_shim;

shim::Order shim::order() {
  return mode() == Mode::eager ? Order::forwards : mode() == Mode::deferred ? Order::backwards : Order::scattered;
}

void shim::submit(cudaStream_t stream, std::function<void()> kernel) {
  const Lock guard(lock());
  if (const int injected = enter("kernel")) {
    report(static_cast<cudaError_t>(injected));
    return;
  }
  if (const cudaError_t driver = driver_state()) {
    report(driver);
    return;
  }
  Call("kernel", stream).run(std::move(kernel));
}

// --- devices ------------------------------------------------------------------------------------------------------------

EXPORT cudaError_t cudaGetDeviceCount(int* count) {
  *count = 0;
  ENTER;
  *count = device_count();
  return cudaSuccess;
}
EXPORT cudaError_t cudaGetDevice(int* device) {
  ENTER;
  *device = current_device();
  return cudaSuccess;
}
EXPORT cudaError_t cudaSetDevice(int device) {
  ENTER;
  if (device < 0 || device >= device_count()) return report(cudaErrorInvalidDevice);
  device_of_thread = device;
  return cudaSuccess;
}
EXPORT cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  ENTER;
  if (device < 0 || device >= device_count()) return report(cudaErrorInvalidDevice);
  *properties = {};
  std::snprintf(properties->name, sizeof properties->name, "CPU shim %d", device);
  properties->major = 9;
  properties->totalGlobalMem = total_memory();
  return cudaSuccess;
}
EXPORT cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  ENTER;
  if (device < 0 || device >= device_count()) return report(cudaErrorInvalidDevice);
  if (attribute != cudaDevAttrMemoryPoolsSupported) return report(cudaErrorInvalidValue);
  *value = has_pools();
  return cudaSuccess;
}
EXPORT cudaError_t cudaDeviceSynchronize(void) {
  ENTER;
  finish_device(current_device());
  trim_pools();
  return cudaSuccess;
}
EXPORT cudaError_t cudaRuntimeGetVersion(int* version) {
  const Lock guard(lock());
  if (const int injected = enter(__func__)) return report(static_cast<cudaError_t>(injected));
  *version = 13000;
  return cudaSuccess;
}
EXPORT cudaError_t cudaDriverGetVersion(int* version) {
  const Lock guard(lock());
  if (const int injected = enter(__func__)) return report(static_cast<cudaError_t>(injected));
  *version = driver_version();
  return cudaSuccess;
}
EXPORT cudaError_t cudaGetLastError(void) { return std::exchange(last_error, cudaSuccess); }
EXPORT const char* cudaGetErrorName(cudaError_t error) { return error_name(error); }
EXPORT const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorMemoryAllocation ? "out of memory"
         : error == cudaSuccess             ? "no error"
                                            : "an error of the shim";
}

// --- memory -------------------------------------------------------------------------------------------------------------

EXPORT cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  ENTER;
  const std::size_t used = used_memory(current_device());
  *total = total_memory();
  *free = used < total_memory() ? total_memory() - used : 0;
  return cudaSuccess;
}
EXPORT cudaError_t cudaMalloc(void** p, size_t bytes) {
  *p = nullptr;
  ENTER;
  if (bytes == 0) return cudaSuccess;
  *p = allocate_device(bytes, current_device());
  return report(*p == nullptr ? cudaErrorMemoryAllocation : cudaSuccess);
}
EXPORT cudaError_t cudaFree(void* p) {
  ENTER;
  if (p != nullptr) free_device(p);
  return cudaSuccess;
}
EXPORT cudaError_t cudaMemPoolCreate(cudaMemPool_t* pool, const cudaMemPoolProps* properties) {
  ENTER;
  const auto& [type, location] = *properties;
  if (!has_pools()) return report(cudaErrorNotSupported);
  if (type != cudaMemAllocationTypePinned || location.type != cudaMemLocationTypeDevice || location.id < 0 ||
      location.id >= device_count()) {
    return report(cudaErrorInvalidValue);
  }
  if (!may_allocate()) return report(cudaErrorMemoryAllocation);
  *pool = create_pool(location.id);
  handle_created();
  return cudaSuccess;
}
EXPORT cudaError_t cudaMemPoolDestroy(cudaMemPool_t pool) {
  ENTER;
  destroy_pool(pool_of(pool, __func__));
  handle_destroyed();
  return cudaSuccess;
}
EXPORT cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t pool, cudaMemPoolAttr attribute, void* value) {
  ENTER;
  if (attribute != cudaMemPoolAttrReleaseThreshold) return report(cudaErrorInvalidValue);
  std::uint64_t bytes = 0;
  std::memcpy(&bytes, value, sizeof bytes);
  pool_of(pool, __func__).threshold = bytes;
  return cudaSuccess;
}
EXPORT cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t handle, cudaMemPoolAttr attribute, void* value) {
  ENTER;
  const Pool& pool = pool_of(handle, __func__);
  const std::uint64_t bytes = attribute == cudaMemPoolAttrUsedMemCurrent       ? pool.used
                              : attribute == cudaMemPoolAttrReservedMemCurrent ? pool.reserved
                                                                               : pool.threshold;
  std::memcpy(value, &bytes, sizeof bytes);
  return cudaSuccess;
}
EXPORT cudaError_t cudaMemPoolTrimTo(cudaMemPool_t handle, size_t bytes_to_keep) {
  ENTER;
  Pool& pool = pool_of(handle, __func__);
  pool.reserved = std::max(pool.used, std::min(pool.reserved, bytes_to_keep));
  return cudaSuccess;
}
EXPORT cudaError_t cudaMallocFromPoolAsync(void** p, size_t bytes, cudaMemPool_t pool, cudaStream_t stream) {
  *p = nullptr;
  ENTER;
  if (bytes == 0) return cudaSuccess;
  *p = allocate_from_pool(bytes, pool, stream_of(stream, __func__));
  return report(*p == nullptr ? cudaErrorMemoryAllocation : cudaSuccess);
}
EXPORT cudaError_t cudaFreeAsync(void* p, cudaStream_t stream) {
  ENTER;
  return report(p == nullptr ? cudaSuccess : free_device_in_order(p, stream_of(stream, __func__)));
}
EXPORT cudaError_t cudaMallocHost(void** p, size_t bytes) {
  *p = nullptr;
  ENTER;
  if (bytes == 0) return cudaSuccess;
  *p = allocate_pinned(bytes);
  return report(*p == nullptr ? cudaErrorMemoryAllocation : cudaSuccess);
}
EXPORT cudaError_t cudaFreeHost(void* p) {
  ENTER;
  if (p != nullptr) free_pinned(p);
  return cudaSuccess;
}
EXPORT cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* p) {
  ENTER;
  const int device = device_of_memory(p);
  attributes->type = device >= 0    ? cudaMemoryTypeDevice
                     : is_pinned(p) ? cudaMemoryTypeHost
                                    : cudaMemoryTypeUnregistered;
  attributes->device = device;
  return cudaSuccess;
}

EXPORT cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  ENTER;
  if (kind != cudaMemcpyHostToDevice && kind != cudaMemcpyDeviceToHost && kind != cudaMemcpyDeviceToDevice) {
    return report(cudaErrorInvalidMemcpyDirection);
  }
  if (bytes == 0) return cudaSuccess;
  Call call(__func__, stream);
  if (kind == cudaMemcpyDeviceToHost) {
    call.host("the target", to, bytes);
  } else {
    call.bytes("the target", to, bytes);
  }
  if (kind == cudaMemcpyHostToDevice) {
    call.host("the source", from, bytes);
  } else {
    call.bytes("the source", from, bytes);
  }
  call.run([=] { std::memmove(to, from, bytes); });
  return cudaSuccess;
}
EXPORT cudaError_t cudaMemsetAsync(void* p, int value, size_t bytes, cudaStream_t stream) {
  ENTER;
  Call call(__func__, stream);
  call.bytes("the target", p, bytes);
  call.run([=] {
    if (bytes > 0) std::memset(p, value, bytes);
  });
  return cudaSuccess;
}

// --- streams and events -------------------------------------------------------------------------------------------------

EXPORT cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned int flags) {
  ENTER;
  if (!may_allocate()) return report(cudaErrorMemoryAllocation);
  *stream = create_stream(current_device(), (flags & cudaStreamNonBlocking) == 0);
  handle_created();
  return cudaSuccess;
}
EXPORT cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  ENTER;
  destroy_stream(stream_of(stream, __func__));
  handle_destroyed();
  return cudaSuccess;
}
EXPORT cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  ENTER;
  finish(stream_of(stream, __func__));
  trim_pools();
  return cudaSuccess;
}
EXPORT cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned int) {
  ENTER;
  const Event& e = Events::get().of(event, __func__);
  Stream& s = stream_of(stream, __func__);
  if (e.ticket.index > 0) wait_in_order(s, e.ticket, e.clock);  // one that was never recorded holds nobody up
  return cudaSuccess;
}
EXPORT cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned int) {
  ENTER;
  if (!may_allocate()) return report(cudaErrorMemoryAllocation);
  Events& events = Events::get();
  events.next += 0x10;
  events.live.emplace(events.next, Event{current_device()});
  *event = reinterpret_cast<cudaEvent_t>(events.next);
  handle_created();
  return cudaSuccess;
}
EXPORT cudaError_t cudaEventDestroy(cudaEvent_t event) {
  ENTER;
  Events::get().of(event, __func__);
  Events::get().live.erase(reinterpret_cast<std::uint64_t>(event));
  handle_destroyed();
  return cudaSuccess;
}
EXPORT cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  ENTER;
  Event& e = Events::get().of(event, __func__);
  Stream& s = stream_of(stream, __func__);
  if (e.device != device_of(s)) return report(cudaErrorInvalidResourceHandle);
  e.ticket = enqueue(s, {});
  e.clock = s.known;
  return cudaSuccess;
}
EXPORT cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  ENTER;
  const Event& e = Events::get().of(event, __func__);
  host_learns(e.clock);
  finish(e.ticket);
  return cudaSuccess;
}
