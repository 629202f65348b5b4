// The backend on one stream of one GPU: both precisions, and host memory streamed through pinned buffers.
#include "linalg/cuda/backend.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>

#include "linalg/cuda/kernels.hpp"

namespace brockett::linalg::cuda {
namespace {

// Matrices of a batch: three times their memory goes to the copy that the solver destroys and to its workspace; a few
// thousand fill any GPU.
constexpr std::size_t kBatchShare = 8;
constexpr index_t kLargestBatch = 4096;

// A block of converted data: 2^26 elements (512 MB in float64) are 8192 samples of 8192 features, wide enough for a product
// to be far above the cost of writing its result; half as much memory again goes to workspaces.
constexpr index_t kBlockElements = index_t{1} << 26;
constexpr index_t kLeastBlockElements = index_t{1} << 18;

}  // namespace

void CudaBackend::for_each(index_t count, const std::function<void(index_t)>& f, const std::function<void()>& poll) {
  for (index_t i = 0; i < count; ++i) {
    if (poll) poll();
    f(i);
  }
}

index_t CudaBackend::batch_size(std::size_t bytes) const {
  const std::size_t fit = device_.free_memory() / (kBatchShare * std::max<std::size_t>(1, bytes));
  return std::clamp<index_t>(static_cast<index_t>(fit), 1, kLargestBatch);
}

index_t CudaBackend::block_elements() const {
  const auto fit = static_cast<index_t>(device_.free_memory() / (8 * sizeof(double)));
  return std::clamp(fit, kLeastBlockElements, kBlockElements);
}

// Piece i lies in buffer i % 2, pinned and on the device. Before f is called for it, piece i + 1 is copied into the other
// pinned buffer by this thread and from there to the device by the copy stream, which waits until the stream of the work
// is through with piece i - 1: all three run at the same time.
void CudaBackend::stream_from_host(const void* host, std::size_t row_bytes, std::size_t pitch, index_t rows,
                                   index_t step, const HostPieces& f) {
  if (rows == 0) return;
  step = std::clamp<index_t>(step, 1, rows);
  struct Copies {  // a stream of our own, which is empty when this goes
    cudaStream_t stream = nullptr;
    Copies() { check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreate"); }
    ~Copies() {
      if (cudaStreamSynchronize(stream) != cudaSuccess || cudaStreamDestroy(stream) != cudaSuccess) cudaGetLastError();
    }
  };
  struct Slot {
    Pinned& pinned;
    Scratch<char> memory;
    Event arrived;  // on the device
    Event used;  // the work on it is done
    Slot(Device& device, Pinned& pinned_, std::size_t bytes)
        : pinned(pinned_), memory(device, static_cast<index_t>(bytes)) {}
  };
  const std::lock_guard<std::mutex> one_at_a_time(streaming_);
  const DeviceScope scope(device_.ordinal());
  const std::size_t bytes = row_bytes * static_cast<std::size_t>(step);
  std::array<std::unique_ptr<Slot>, 2> slots;
  for (std::size_t i = 0; i < (rows > step ? 2 : 1); ++i) {
    auto& pinned = pinned_[i];  // kept: to lock pages takes longer than to fill them
    if (!pinned || pinned->bytes() < bytes) {
      pinned.reset();
      pinned = std::make_unique<Pinned>(bytes);
    }
    slots[i] = std::make_unique<Slot>(device_, *pinned, bytes);
    slots[i]->used.record(device_.stream());  // its memory came in the order of that stream
  }
  const Copies copies;
  const auto send = [&](index_t first) {
    Slot& slot = *slots[static_cast<std::size_t>(first / step % 2)];
    const auto count = static_cast<std::size_t>(std::min(step, rows - first));
    slot.arrived.wait();  // the piece before the last one has left the pinned memory
    const char* from = static_cast<const char*>(host) + static_cast<std::size_t>(first) * pitch;
    if (pitch == row_bytes) {
      std::memcpy(slot.pinned.data(), from, count * row_bytes);
    } else {
      for (std::size_t i = 0; i < count; ++i) {
        std::memcpy(slot.pinned.data() + i * row_bytes, from + i * pitch, row_bytes);
      }
    }
    slot.used.hold(copies.stream);
    check(cudaMemcpyAsync(slot.memory.data(), slot.pinned.data(), count * row_bytes, cudaMemcpyHostToDevice,
                          copies.stream),
          "upload");
    slot.arrived.record(copies.stream);
  };
  send(0);
  for (index_t first = 0; first < rows; first += step) {
    if (first + step < rows) send(first + step);
    Slot& slot = *slots[static_cast<std::size_t>(first / step % 2)];
    slot.arrived.hold(device_.stream());
    f(first, std::min(step, rows - first), slot.memory.data(), row_bytes);
    slot.used.record(device_.stream());
  }
}

}  // namespace brockett::linalg::cuda
