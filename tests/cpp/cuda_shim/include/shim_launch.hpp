// Where kernels.cu, compiled as C++, hands over what would be a kernel.
#pragma once

#include <functional>

#include "cuda_runtime_api.h"

namespace shim {

/// `kernel` runs later, in the order of `stream`, with device memory open.
void submit(cudaStream_t stream, std::function<void()> kernel);

}  // namespace shim
