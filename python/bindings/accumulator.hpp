// The accumulator as Python holds it: with the place that it lies in.
#pragma once

#include "brockett/autocorrelation.hpp"
#include "device_array.hpp"

namespace brockett::python {

struct Accumulator {
  Autocorrelation total;
  Place place;
};

}  // namespace brockett::python
