// What libbrockett and the plugin libbrockett_cuda exchange: one C function that returns this table. Both come from one
// build, so C++ types may cross; `abi` and `version` come first and are compared before anything else is read.
#pragma once

#include <memory>
#include <string>

#include "brockett/cuda.hpp"
#include "linalg/linalg.hpp"

namespace brockett::linalg::cuda {

/// Counts the changes of this table and of linalg.hpp.
inline constexpr int kAbi = 4;

struct Plugin {
  int abi;
  const char* version;  // of brockett

  /// Fills all but `plugin`; `available` where there is a device that this build can use, else the reason. Never throws.
  void (*status)(brockett::cuda::Status& out);
  brockett::cuda::DeviceInfo (*device_info)(int device);
  std::shared_ptr<Backend> (*make_backend)(int device, void* stream);
  void (*synchronize)(Backend& backend);
  /// `bytes` from or to the host, in order with the backend's work; they have arrived when this returns.
  void (*upload)(Backend& backend, const void* host, void* device, std::size_t bytes);
  void (*download)(Backend& backend, const void* device, void* host, std::size_t bytes);
  int (*device_of)(const void* pointer, int likely);
  void (*synchronize_device)(int device);
  void (*order)(int device, void* first, void* then);
};

}  // namespace brockett::linalg::cuda

extern "C" BROCKETT_EXPORT const brockett::linalg::cuda::Plugin* brockett_cuda_plugin();
