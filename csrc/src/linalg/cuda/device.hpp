// One GPU and one stream of it: library handles, memory, transfers, and the translation of errors.
#pragma once

#include <cublas_v2.h>
#include <cuda_runtime_api.h>
#include <cusolverDn.h>

#include <array>
#include <cstddef>
#include <memory>
#include <mutex>
#include <string>

#include "brockett/error.hpp"
#include "brockett/matrix_view.hpp"

namespace brockett::linalg::cuda {

/// Throw what a status says: OutOfMemory where memory was short, else Error with the routine and the library's words. The
/// run time's last error is cleared, so that the next call of anybody in the process does not find it.
void check(cudaError_t status, const char* what);
/// `rows` x `cols` is what the routine worked on.
void check(cublasStatus_t status, const char* what, index_t rows, index_t cols);
void check(cusolverStatus_t status, const char* what, index_t rows, index_t cols);

/// Sets the device of the calling thread while it lives; PyTorch and CuPy share the thread and expect theirs back.
class DeviceScope {
 public:
  explicit DeviceScope(int device);
  ~DeviceScope();
  DeviceScope(const DeviceScope&) = delete;
  DeviceScope& operator=(const DeviceScope&) = delete;

 private:
  int previous_ = -1;
};

/// Pinned host memory, or pageable where that cannot be had (copies then wait, and nothing else changes).
class Pinned {
 public:
  explicit Pinned(std::size_t bytes);
  ~Pinned();
  Pinned(const Pinned&) = delete;
  Pinned& operator=(const Pinned&) = delete;
  char* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }

 private:
  char* data_ = nullptr;
  std::size_t bytes_ = 0;
  std::unique_ptr<char[]> pageable_;
};

/// An event without timing. Fresh ones count as having happened.
class Event {
 public:
  Event();
  ~Event();
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  void record(cudaStream_t stream);
  void wait() const;  // on the host
  void hold(cudaStream_t stream) const;  // that stream waits

 private:
  cudaEvent_t event_ = nullptr;
};

/// The memory that the streams of one device share: what one of them keeps for its next workspace serves all.
class Pool {
 public:
  explicit Pool(int device);
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;
  cudaMemPool_t handle() const { return handle_; }

  /// The device's, made where there is none; null where its driver has no pools.
  static std::shared_ptr<Pool> of(int device);

 private:
  cudaMemPool_t handle_ = nullptr;
};

class Device {
 public:
  Device(int ordinal, cudaStream_t stream);
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  int ordinal() const { return ordinal_; }
  cudaStream_t stream() const { return stream_; }
  cublasHandle_t blas() const { return blas_; }
  cusolverDnHandle_t solver() const { return solver_; }
  cusolverDnParams_t params() const { return params_; }

  /// Memory in the order of the stream, from a pool of our own where the driver has pools; null for 0 bytes.
  void* allocate(std::size_t bytes);
  void deallocate(void* p) noexcept;
  /// Bytes that allocate() can still count on.
  std::size_t free_memory() const;

  /// Packed columns of `width` bytes on the host -> columns `pitch` bytes apart here. The host memory has been read when
  /// this returns; the copy may still be under way.
  void upload(const void* host, void* device, std::size_t width, std::size_t count, std::size_t pitch);
  /// The reverse; waits.
  void download(const void* device, std::size_t pitch, void* host, std::size_t width, std::size_t count);
  template <class V>
  void download(const V* device, V* host, index_t count) {
    download(device, sizeof(V) * static_cast<std::size_t>(count), host, sizeof(V) * static_cast<std::size_t>(count), 1);
  }
  void wait();

  /// Held by every primitive: the handles, the staging memory and the order of the stream serve one thread at a time.
  std::recursive_mutex& mutex() { return mutex_; }

 private:
  // One of two pieces of pinned memory that transfers go through, and when its last copy is done.
  struct Staging {
    Pinned memory;
    Event done;
    explicit Staging(std::size_t bytes) : memory(bytes) {}
  };
  Staging& next_staging();
  void close() noexcept;

  int ordinal_;
  cudaStream_t stream_;
  std::shared_ptr<Pool> pool_;
  cublasHandle_t blas_ = nullptr;
  cusolverDnHandle_t solver_ = nullptr;
  cusolverDnParams_t params_ = nullptr;
  std::array<std::unique_ptr<Staging>, 2> staging_;
  std::size_t next_ = 0;
  mutable std::recursive_mutex mutex_;
};

/// What every primitive opens with: the lock of the device, and the device current.
class Call {
 public:
  explicit Call(Device& device) : lock_(device.mutex()), scope_(device.ordinal()) {}

 private:
  std::lock_guard<std::recursive_mutex> lock_;
  DeviceScope scope_;
};

/// Device workspace of `count` elements, given back in the order of the stream.
template <class V>
class Scratch {
 public:
  Scratch(Device& device, index_t count) : device_(device) {
    std::size_t bytes = 0;
    if (count < 0 || __builtin_mul_overflow(static_cast<std::size_t>(count), sizeof(V), &bytes)) {
      throw OutOfMemory("cannot allocate " + std::to_string(count) + " elements of " + std::to_string(sizeof(V)) +
                        " bytes on the GPU");
    }
    data_ = static_cast<V*>(device.allocate(bytes));
  }
  ~Scratch() {
    if (data_) device_.deallocate(data_);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  V* data() const { return data_; }

 private:
  Device& device_;
  V* data_ = nullptr;
};

}  // namespace brockett::linalg::cuda
