// The backend that the plugin makes.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "linalg/cuda/cuda_linalg.hpp"

namespace brockett::linalg::cuda {

class CudaBackend final : public Backend {
 public:
  CudaBackend(int device, cudaStream_t stream) : device_(device, stream), single_(device_), full_(device_) {}
  std::string name() const override { return "cuda"; }
  LinAlg<float>& single() override { return single_; }
  LinAlg<double>& full() override { return full_; }
  /// In order, on the calling thread: the parallelism is in each primitive.
  void for_each(index_t count, const std::function<void(index_t)>& f, const std::function<void()>& poll) override;
  index_t batch_size(std::size_t bytes) const override;
  index_t block_elements() const override;
  void stream_from_host(const void* host, std::size_t row_bytes, std::size_t pitch, index_t rows, index_t step,
                        const HostPieces& f) override;
  std::shared_ptr<void> thread_scope(index_t) override { return nullptr; }
  Device& device() { return device_; }

 private:
  Device device_;
  Spectral<float> single_;
  Spectral<double> full_;
  std::mutex streaming_;  // the pinned buffers serve one stream_from_host at a time
  std::array<std::unique_ptr<Pinned>, 2> pinned_;
};

}  // namespace brockett::linalg::cuda
