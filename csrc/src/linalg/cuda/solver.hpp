// What calls of cuSOLVER need around them: workspaces on both sides and the `info` they leave on the device.
#pragma once

#include <algorithm>
#include <cmath>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "linalg/cuda/device.hpp"
#include "linalg/linalg.hpp"

namespace brockett::linalg::cuda {

/// The two workspaces that an X-routine asks for, and `count` infos. The host's part may be in use until the stream has
/// passed: it is given back behind a wait.
class SolverWork {
 public:
  SolverWork(Device& device, std::size_t device_bytes, std::size_t host_bytes, index_t count = 1)
      : device_(device),
        device_bytes_(device_bytes),
        host_bytes_(host_bytes),
        work_(device, static_cast<index_t>(device_bytes)),
        info_(device, count),
        host_(host_bytes ? new(std::nothrow) char[host_bytes] : nullptr) {
    if (host_bytes && !host_) {
      throw OutOfMemory("cannot allocate " + std::to_string(host_bytes) + " bytes of host workspace for cuSOLVER");
    }
  }
  ~SolverWork() {
    if (host_ && cudaStreamSynchronize(device_.stream()) != cudaSuccess) cudaGetLastError();
  }
  SolverWork(const SolverWork&) = delete;
  SolverWork& operator=(const SolverWork&) = delete;

  void* on_device() const { return work_.data(); }
  std::size_t device_bytes() const { return device_bytes_; }
  void* on_host() const { return host_.get(); }
  std::size_t host_bytes() const { return host_bytes_; }
  int* info() const { return info_.data(); }

  /// Waits, and tells; a negative info says that an argument was wrong, and every argument is ours.
  int result(const char* routine) const {
    int info = 0;
    device_.download(info_.data(), &info, 1);
    check_arguments(info, routine);
    return info;
  }
  static void check_arguments(int info, const char* routine) {
    if (info < 0) {
      throw Error("brockett defect: argument " + std::to_string(-info) + " of cuSOLVER's " + routine + " is wrong");
    }
  }

 private:
  Device& device_;
  std::size_t device_bytes_, host_bytes_;
  Scratch<char> work_;
  Scratch<int> info_;
  std::unique_ptr<char[]> host_;
};

/// A copy of a matrix for a second attempt, where there is memory for one.
template <class T>
class Kept {
 public:
  Kept(LinAlg<T>& la, Device& device, Mat<T> A) : la_(la), A_(A) {
    try {
      copy_ = std::make_unique<Scratch<T>>(device, A.rows * A.cols);
    } catch (const OutOfMemory&) {
      return;  // the first attempt succeeds as a rule
    }
    la.copy(A, mat());
  }
  bool restore() const {
    if (copy_) la_.copy(mat(), A_);
    return copy_ != nullptr;
  }
  bool there() const { return copy_ != nullptr; }
  Mat<T> mat() const { return {copy_->data(), A_.rows, A_.cols}; }

 private:
  LinAlg<T>& la_;
  Mat<T> A_;
  std::unique_ptr<Scratch<T>> copy_;
};

/// What solvers that failed leave, some of them with info = 0.
template <class T>
bool all_finite(const T* values, index_t count) {
  return std::all_of(values, values + count, [](T value) { return std::isfinite(value); });
}

/// Sizes that a routine with 32-bit integers can take.
inline int to_int(index_t value, const char* what) {
  if (value > 0x7FFFFFFF) {
    throw Unsupported(std::string(what) + " = " + std::to_string(value) + " does not fit cuSOLVER's 32-bit integers");
  }
  return static_cast<int>(value);
}

}  // namespace brockett::linalg::cuda
