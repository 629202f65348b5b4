// Handles of the libraries: numbers that nobody can follow, so that one that was destroyed is noticed.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "schedule.hpp"

namespace cuda_shim {

template <class Handle, class State>
class Handles {
 public:
  static Handles& get() {
    static Handles& handles = *new Handles;
    return handles;
  }
  Handle create(State state) {
    next_ += 0x10;
    live_.emplace(next_, state);
    handle_created();
    return reinterpret_cast<Handle>(next_);
  }
  void destroy(Handle handle, const char* function) {
    of(handle, function);
    live_.erase(reinterpret_cast<std::uint64_t>(handle));
    handle_destroyed();
  }
  State& of(Handle handle, const char* function) {
    const auto at = live_.find(reinterpret_cast<std::uint64_t>(handle));
    if (at == live_.end()) die(std::string(function) + ": the handle is not one, or was destroyed");
    return at->second;
  }

 private:
  std::map<std::uint64_t, State> live_;
  std::uint64_t next_ = 0x30000000;
};

/// A handle of cuBLAS or cuSOLVER belongs to the device that was current when it was made.
struct LibraryHandle {
  int device = 0;
  cudaStream_t stream = nullptr;

  cudaStream_t stream_for(const char* function) const {
    if (device != current_device()) {
      die(std::string(function) + ": device " + std::to_string(current_device()) +
          " is current, the handle belongs to device " + std::to_string(device));
    }
    return stream;
  }
};

}  // namespace cuda_shim
