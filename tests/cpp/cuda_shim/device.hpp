// Device memory: one reserved range of addresses, never handed out twice, NaN at first, closed behind each allocation
// and after it was freed; and the arguments of a call, checked against it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "schedule.hpp"

namespace cuda_shim {

/// Null when there is not enough memory.
void* allocate_device(std::size_t bytes, int device);
void* allocate_from_pool(std::size_t bytes, cudaMemPool_t pool, Stream& stream);
/// cudaFree and cudaFreeAsync.
void free_device(void* p);
cudaError_t free_device_in_order(void* p, Stream& stream);
void* allocate_pinned(std::size_t bytes);
void free_pinned(void* p);

/// What was freed stays with its pool until it is trimmed, or until a synchronisation finds more than the threshold.
struct Pool {
  int device = 0;
  bool destroyed = false;
  std::size_t used = 0;
  std::size_t reserved = 0;
  std::size_t threshold = 0;
};
cudaMemPool_t create_pool(int device);
Pool& pool_of(cudaMemPool_t handle, const char* function);
void destroy_pool(Pool& pool);
void trim_pools();

/// Allocated memory of a device, and what its pools keep.
std::size_t used_memory(int device);

/// Is this address in the range of device memory, live or not?
bool in_device_range(const void* p);
/// The device of live device memory, or -1; pinned memory.
int device_of_memory(const void* p);
bool is_pinned(const void* p);

/// While one lives, device memory is open to this process.
class Open {
 public:
  Open();
  ~Open();
  Open(const Open&) = delete;
  Open& operator=(const Open&) = delete;
};

void poison(void* p, std::size_t bytes);  // NaN in every floating-point type

/// One call that works on the device: its arguments are checked as they are named, then its work is enqueued.
class Call {
 public:
  Call(const char* function, cudaStream_t stream);

  /// A matrix (or `batch` of them) of elements of `size` bytes on the device of the stream.
  Call& device(const char* name, const void* p, std::int64_t rows, std::int64_t cols, std::int64_t ld, std::size_t size,
               std::int64_t batch = 1, std::int64_t stride = 0);
  template <class T>
  Call& matrix(const char* name, const T* p, std::int64_t rows, std::int64_t cols, std::int64_t ld,
               std::int64_t batch = 1, std::int64_t stride = 0) {
    return device(name, p, rows, cols, ld, sizeof(T), batch, stride);
  }
  Call& bytes(const char* name, const void* p, std::size_t count);
  /// Host memory that the call reads or writes; pinned memory must live until the work is done.
  Call& host(const char* name, const void* p, std::size_t count);

  Ticket run(std::function<void()> work);
  Stream& stream() { return stream_; }

 private:
  const char* function_;
  Stream& stream_;
  std::vector<const char*> used_;    // starts of allocations
  std::vector<const char*> pinned_;  // likewise
};

}  // namespace cuda_shim
