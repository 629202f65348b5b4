#include "linalg/cuda/device.hpp"

#include <algorithm>
#include <cstring>
#include <limits>
#include <map>
#include <mutex>
#include <new>

#include "linalg/cuda/kernels.hpp"

namespace brockett::linalg::cuda {
namespace {

// Of each of the two pieces that transfers go through: PCIe is at its full rate well below (its latency is 10 us), and
// locking more pages would show at start-up.
constexpr std::size_t kStagingBytes = std::size_t{4} << 20;

// The pool holds on to this much, or this share of the device's memory, for the next workspace, which is of the same size as
// a rule: beyond it every wait would give back what is free, and the next allocation map it anew.
constexpr std::size_t kPoolKeeps = std::size_t{1} << 30;
constexpr std::size_t kPoolShare = 16;
constexpr std::size_t kMoreThanAnyGpu = std::size_t{1} << 46;

[[noreturn]] void fail(bool memory, const std::string& message) {
  cudaGetLastError();
  if (memory) throw OutOfMemory(message);
  throw Error(message);
}

}  // namespace

void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  fail(status == cudaErrorMemoryAllocation,
       std::string("CUDA: ") + what + ": " + cudaGetErrorName(status) + " (" + cudaGetErrorString(status) + ")");
}

namespace {

// Of handles and their settings there is no size to tell.
std::string size_text(index_t rows, index_t cols) {
  return rows == 0 ? "" : " on a " + std::to_string(rows) + " x " + std::to_string(cols) + " matrix";
}

}  // namespace

void check(cublasStatus_t status, const char* what, index_t rows, index_t cols) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  fail(status == CUBLAS_STATUS_ALLOC_FAILED,
       std::string("cuBLAS: ") + what + size_text(rows, cols) + ": " + cublasGetStatusName(status));
}

void check(cusolverStatus_t status, const char* what, index_t rows, index_t cols) {
  if (status == CUSOLVER_STATUS_SUCCESS) return;
  const bool memory = status == CUSOLVER_STATUS_ALLOC_FAILED;
  fail(memory, std::string("cuSOLVER: ") + what + size_text(rows, cols) + ": " +
                   (memory ? "no memory for its workspace" : "status " + std::to_string(static_cast<int>(status))));
}

DeviceScope::DeviceScope(int device) {
  int current = -1;
  check(cudaGetDevice(&current), "cudaGetDevice");
  if (current == device) return;
  check(cudaSetDevice(device), "cudaSetDevice");
  previous_ = current;
}

DeviceScope::~DeviceScope() {
  if (previous_ >= 0 && cudaSetDevice(previous_) != cudaSuccess) cudaGetLastError();
}

Pinned::Pinned(std::size_t bytes) : bytes_(bytes) {
  void* p = nullptr;
  if (cudaMallocHost(&p, bytes) == cudaSuccess) {
    data_ = static_cast<char*>(p);
    return;
  }
  cudaGetLastError();
  pageable_.reset(new (std::nothrow) char[bytes]);
  if (!pageable_) throw OutOfMemory("cannot allocate " + std::to_string(bytes) + " bytes of host memory for transfers");
  data_ = pageable_.get();
}

Pinned::~Pinned() {
  if (!pageable_ && cudaFreeHost(data_) != cudaSuccess) cudaGetLastError();
}

Event::Event() { check(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "cudaEventCreate"); }
Event::~Event() {
  if (cudaEventDestroy(event_) != cudaSuccess) cudaGetLastError();
}
void Event::record(cudaStream_t stream) { check(cudaEventRecord(event_, stream), "cudaEventRecord"); }
void Event::wait() const { check(cudaEventSynchronize(event_), "cudaEventSynchronize"); }
void Event::hold(cudaStream_t stream) const { check(cudaStreamWaitEvent(stream, event_, 0), "cudaStreamWaitEvent"); }

Pool::Pool(int device) {
  cudaMemPoolProps props = {};
  props.allocType = cudaMemAllocationTypePinned;
  props.location.type = cudaMemLocationTypeDevice;
  props.location.id = device;
  std::size_t free = 0, total = 0;
  check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
  unsigned long long keep = std::max(kPoolKeeps, total / kPoolShare);
  check(cudaMemPoolCreate(&handle_, &props), "cudaMemPoolCreate");
  // one that keeps nothing serves as well, only slower
  if (cudaMemPoolSetAttribute(handle_, cudaMemPoolAttrReleaseThreshold, &keep) != cudaSuccess) cudaGetLastError();
}

Pool::~Pool() {
  if (cudaMemPoolDestroy(handle_) != cudaSuccess) cudaGetLastError();
}

std::shared_ptr<Pool> Pool::of(int device) {
  static std::mutex& mutex = *new std::mutex;  // never destroyed: backends may outlive the end of main
  static auto& pools = *new std::map<int, std::weak_ptr<Pool>>;
  int supported = 0;
  check(cudaDeviceGetAttribute(&supported, cudaDevAttrMemoryPoolsSupported, device), "cudaDeviceGetAttribute");
  if (!supported) return nullptr;
  const std::lock_guard<std::mutex> lock(mutex);
  auto pool = pools[device].lock();
  if (!pool) pools[device] = pool = std::make_shared<Pool>(device);
  return pool;
}

Device::Device(int ordinal, cudaStream_t stream) : ordinal_(ordinal), stream_(stream) {
  const DeviceScope scope(ordinal);
  try {
    pool_ = Pool::of(ordinal);
    check(cublasCreate(&blas_), "cublasCreate", 0, 0);
    check(cublasSetStream(blas_, stream), "cublasSetStream", 0, 0);
    // float32 products are float32 products, whatever the environment's math mode is for others
    check(cublasSetMathMode(blas_, CUBLAS_DEFAULT_MATH), "cublasSetMathMode", 0, 0);
    check(cusolverDnCreate(&solver_), "cusolverDnCreate", 0, 0);
    check(cusolverDnSetStream(solver_, stream), "cusolverDnSetStream", 0, 0);
    check(cusolverDnCreateParams(&params_), "cusolverDnCreateParams", 0, 0);
  } catch (...) {
    close();
    throw;
  }
}

Device::~Device() {
  try {
    const DeviceScope scope(ordinal_);
    // not for the stream: a backend is kept for the next call, and its owner may have destroyed the stream meanwhile
    if (cudaDeviceSynchronize() != cudaSuccess) cudaGetLastError();
    staging_ = {};
    close();
  } catch (...) {  // the process is shutting down, and the driver with it
  }
}

void Device::close() noexcept {
  if (params_) cusolverDnDestroyParams(params_);
  if (solver_) cusolverDnDestroy(solver_);
  if (blas_) cublasDestroy(blas_);
  pool_.reset();
}

void* Device::allocate(std::size_t bytes) {
  if (bytes == 0) return nullptr;
  if (bytes > kMoreThanAnyGpu) {  // sizes that drivers round until they overflow
    throw OutOfMemory("cannot allocate " + std::to_string(bytes) + " bytes on GPU " + std::to_string(ordinal_));
  }
  const Call call(*this);
  void* p = nullptr;
  const auto attempt = [&] {
    return pool_ ? cudaMallocFromPoolAsync(&p, bytes, pool_->handle(), stream_) : cudaMalloc(&p, bytes);
  };
  cudaError_t status = attempt();
  if (status == cudaErrorMemoryAllocation && pool_) {  // what the pool keeps may be in the way, in pieces too small
    cudaGetLastError();
    wait();
    check(cudaMemPoolTrimTo(pool_->handle(), 0), "cudaMemPoolTrimTo");
    status = attempt();
  }
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    throw OutOfMemory("cannot allocate " + std::to_string(bytes) + " bytes on GPU " + std::to_string(ordinal_) + ", " +
                      std::to_string(free_memory()) + " are free");
  }
  check(status, "allocation");
  return p;
}

void Device::deallocate(void* p) noexcept {
  if (p == nullptr) return;
  try {
    const Call call(*this);
    // A stream that its owner has destroyed in the meantime cannot order anything: then the device as a whole does.
    if (pool_ && cudaFreeAsync(p, stream_) == cudaSuccess) return;
    if (pool_) cudaGetLastError();
    if (cudaFree(p) != cudaSuccess) cudaGetLastError();
  } catch (...) {  // nothing is left to free at the end of the process
  }
}

std::size_t Device::free_memory() const {
  const DeviceScope scope(ordinal_);
  std::size_t free = 0, total = 0;
  check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
  if (pool_) {
    unsigned long long reserved = 0, used = 0;
    check(cudaMemPoolGetAttribute(pool_->handle(), cudaMemPoolAttrReservedMemCurrent, &reserved),
          "cudaMemPoolGetAttribute");
    check(cudaMemPoolGetAttribute(pool_->handle(), cudaMemPoolAttrUsedMemCurrent, &used), "cudaMemPoolGetAttribute");
    free += static_cast<std::size_t>(reserved - std::min(reserved, used));
  }
  return free;
}

Device::Staging& Device::next_staging() {
  auto& s = staging_[next_];
  next_ = 1 - next_;
  if (!s) s = std::make_unique<Staging>(kStagingBytes);
  s->done.wait();  // its last copy, upwards or downwards
  return *s;
}

namespace {

// Columns of `width` bytes in pieces that fit the staging memory: f(first byte of the packed columns, bytes, offset on the
// device). Packed columns are one; others go by whole columns where they fit, else in parts of one.
template <class F>
void for_each_piece(std::size_t width, std::size_t count, std::size_t pitch, F&& f) {
  if (pitch == width || count == 1) {
    width *= count;
    pitch = width;
    count = 1;
  }
  if (width == 0 || count == 0) return;
  if (width > kStagingBytes || count == 1) {
    for (std::size_t j = 0; j < count; ++j) {
      for (std::size_t at = 0; at < width; at += kStagingBytes) {
        const std::size_t bytes = std::min(kStagingBytes, width - at);
        f(j * width + at, bytes, std::size_t{1}, j * pitch + at);
      }
    }
    return;
  }
  const std::size_t step = kStagingBytes / width;
  for (std::size_t j = 0; j < count; j += step) f(j * width, width, std::min(step, count - j), j * pitch);
}

}  // namespace

void Device::upload(const void* host, void* device, std::size_t width, std::size_t count, std::size_t pitch) {
  const Call call(*this);
  const auto* from = static_cast<const char*>(host);
  auto* to = static_cast<char*>(device);
  for_each_piece(width, count, pitch, [&](std::size_t at, std::size_t piece, std::size_t columns, std::size_t offset) {
    Staging& s = next_staging();
    const std::size_t bytes = piece * columns;
    std::memcpy(s.memory.data(), from + at, bytes);
    if (columns == 1) {
      check(cudaMemcpyAsync(to + offset, s.memory.data(), bytes, cudaMemcpyHostToDevice, stream_), "upload");
    } else {  // a copy engine takes columns of a few bytes one by one: they go as one, and a kernel spreads them
      const Scratch<char> packed(*this, static_cast<index_t>(bytes));
      check(cudaMemcpyAsync(packed.data(), s.memory.data(), bytes, cudaMemcpyHostToDevice, stream_), "upload");
      check(
          kernels::copy_bytes(stream_, packed.data(), static_cast<index_t>(piece), to + offset,
                              static_cast<index_t>(pitch), static_cast<index_t>(piece), static_cast<index_t>(columns)),
          "upload");
    }
    s.done.record(stream_);
  });
}

void Device::download(const void* device, std::size_t pitch, void* host, std::size_t width, std::size_t count) {
  const Call call(*this);
  const auto* from = static_cast<const char*>(device);
  auto* to = static_cast<char*>(host);
  // The piece before is copied out while the next one is on its way.
  struct Pending {
    Staging* staging = nullptr;
    std::size_t at = 0, bytes = 0;
  } pending;
  const auto finish = [&] {
    if (!pending.staging) return;
    pending.staging->done.wait();
    std::memcpy(to + pending.at, pending.staging->memory.data(), pending.bytes);
    pending.staging = nullptr;
  };
  for_each_piece(width, count, pitch, [&](std::size_t at, std::size_t piece, std::size_t columns, std::size_t offset) {
    Staging& s = next_staging();
    const std::size_t bytes = piece * columns;
    if (columns == 1) {
      check(cudaMemcpyAsync(s.memory.data(), from + offset, bytes, cudaMemcpyDeviceToHost, stream_), "download");
    } else {
      const Scratch<char> packed(*this, static_cast<index_t>(bytes));
      check(
          kernels::copy_bytes(stream_, from + offset, static_cast<index_t>(pitch), packed.data(),
                              static_cast<index_t>(piece), static_cast<index_t>(piece), static_cast<index_t>(columns)),
          "download");
      check(cudaMemcpyAsync(s.memory.data(), packed.data(), bytes, cudaMemcpyDeviceToHost, stream_), "download");
    }
    s.done.record(stream_);
    finish();
    pending = {&s, at, bytes};
  });
  finish();
}

void Device::wait() { check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize"); }

}  // namespace brockett::linalg::cuda
