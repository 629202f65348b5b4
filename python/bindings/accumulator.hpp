// The accumulators as Python holds them: with the place that they lie in.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "array_view.hpp"
#include "brockett/autocorrelation.hpp"
#include "brockett/patch_autocorrelation.hpp"
#include "device_array.hpp"

namespace brockett::python {

struct Accumulator {
  Autocorrelation total;
  Place place;
};

struct PatchAccumulator {
  PatchAutocorrelation total;
  Place place;
};

/// Host memory, or the stream of the CUDA device of that ordinal.
inline Place place_from(const py::object& device, std::uintptr_t stream) {
  return device.is_none() ? Place{} : Place{device.cast<int>(), stream_from(stream)};
}

template <class Total>
void merge_totals(Total& total, const Total& other) {
  if (total.context().shared_backend() == other.context().shared_backend()) {
    total.merge(other);
  } else {  // of another stream: by way of the host, O(n^2) as the sum itself
    total.merge(Total(total.context(), other.state()));
  }
}

/// `count` float64 numbers of a saved state.
inline std::vector<double> host_numbers(const Dict& state, const char* name, index_t count) {
  using Packed = py::array_t<double, py::array::c_style | py::array::forcecast>;
  const auto a = py::cast<Packed>(state[name]);
  if (a.size() != count) throw InvalidArgument(name, "expected " + std::to_string(count) + " numbers");
  return std::vector<double>(a.data(), a.data() + a.size());
}

}  // namespace brockett::python
