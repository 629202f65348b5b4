// float16 and bfloat16 by bit arithmetic: no branches, so that loops over them vectorize on any x86-64 or ARM.
#pragma once

#include <bit>
#include <cstdint>

namespace brockett::linalg::lapack {

/// IEEE binary16 -> binary32, exact. Subnormals are renormalized by a float subtraction of normal numbers, which
/// flush-to- zero modes leave alone; infinities and NaN (with payload) are kept.
inline float half_to_float(std::uint16_t h) {
  constexpr std::uint32_t exponent = 0x7C00u << 13;
  const std::uint32_t bits = (h & 0x7FFFu) << 13;
  const std::uint32_t normal = bits + (112u << 23);
  const std::uint32_t special = bits + (224u << 23);
  const float subnormal = std::bit_cast<float>(bits + (113u << 23)) - std::bit_cast<float>(113u << 23);
  std::uint32_t out = (bits & exponent) == exponent ? special : normal;
  out = (bits & exponent) == 0 ? std::bit_cast<std::uint32_t>(subnormal) : out;
  return std::bit_cast<float>(out | (h & 0x8000u) << 16);
}

/// bfloat16 is the upper half of a binary32.
inline float bfloat16_to_float(std::uint16_t b) { return std::bit_cast<float>(std::uint32_t{b} << 16); }

}  // namespace brockett::linalg::lapack
