// float16 and bfloat16 by bit arithmetic: few branches, so that loops over them vectorize on any x86-64 or ARM, and the
// same text in a kernel.
#pragma once

#include <bit>
#include <cstdint>

namespace brockett::linalg {

/// IEEE binary16 -> binary32, exact. Subnormals are renormalized by a float subtraction of normal numbers, which
/// flush-to- zero modes leave alone; infinities and NaN (with payload) are kept.
constexpr float half_to_float(std::uint16_t h) {
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
constexpr float bfloat16_to_float(std::uint16_t b) { return std::bit_cast<float>(std::uint32_t{b} << 16); }

/// Rounded to nearest, ties to even; what is beyond the largest half becomes infinite, NaN stays NaN.
constexpr std::uint16_t float_to_half(float f) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(f);
  const std::uint32_t sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7FFFFFFFu;
  if (magnitude > 0x7F800000u) return static_cast<std::uint16_t>(sign | 0x7E00u);
  if (magnitude >= 0x477FF000u) return static_cast<std::uint16_t>(sign | 0x7C00u);  // 65520 and above
  if (magnitude < 0x38800000u) {  // subnormal: an addition aligns the bits, and rounds them
    const float aligned = std::bit_cast<float>(magnitude) + 0.5f;
    return static_cast<std::uint16_t>(sign | (std::bit_cast<std::uint32_t>(aligned) - 0x3F000000u));
  }
  return static_cast<std::uint16_t>(sign | (magnitude - (112u << 23) + 0xFFFu + (magnitude >> 13 & 1u)) >> 13);
}
constexpr std::uint16_t float_to_bfloat16(float f) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(f);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return static_cast<std::uint16_t>(bits >> 16 | 0x0040u);
  return static_cast<std::uint16_t>((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16);
}

}  // namespace brockett::linalg
