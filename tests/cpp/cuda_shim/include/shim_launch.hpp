// Where kernels.cu, compiled as C++, hands over what would be a kernel.
#pragma once

#include <cstdint>
#include <functional>

#include "cuda_runtime_api.h"

namespace shim {

/// `kernel` runs later, in the order of `stream`, with device memory open.
void submit(cudaStream_t stream, std::function<void()> kernel);

/// The threads of a kernel run in no order, so what depends on one must show: the first comes first (eager), or last
/// (deferred), or they come in steps of this (guard).
enum class Order { forwards, backwards, scattered };
Order order();
inline constexpr std::int64_t kStep = 1000003, kOtherStep = 999983;  // primes: one of them does not divide n

/// f(k) for each k < n.
template <class F>
void in_some_order(std::int64_t n, F f) {
  const Order chosen = order();
  const std::int64_t step = n % kStep != 0 ? kStep : kOtherStep;
  for (std::int64_t k = 0; k < n; ++k) {
    f(chosen == Order::forwards ? k : chosen == Order::backwards ? n - 1 - k : k * step % n);
  }
}

}  // namespace shim
