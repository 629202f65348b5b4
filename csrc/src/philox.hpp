// Counter-based random bits: Philox4x32-10 (Salmon, Moraes, Dror, Shaw, SC'11), the same on every engine.
//
// Word w (32 bits) of stream `seed`: counter (w / 4 low, w / 4 high, 0, 0), key (seed low, seed high), output w % 4.
// Uniform number i, in (0, 1): (((word(2i) << 32 | word(2i+1)) >> 11) + 0.5) 2^-53.
// Normal number i, Box-Muller: with p = 2 (i / 2), sqrt(-2 ln u_p) times cos(2 pi u_{p+1}) for even i, sin for odd i.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>

namespace brockett::philox {

/// Philox4x32-10 of a counter and a key, lowest word first.
constexpr std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> c, std::array<std::uint32_t, 2> k) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53} * c[0];
    const std::uint64_t p1 = std::uint64_t{0xCD9E8D57} * c[2];
    c = {static_cast<std::uint32_t>(p1 >> 32) ^ c[1] ^ k[0], static_cast<std::uint32_t>(p1),
         static_cast<std::uint32_t>(p0 >> 32) ^ c[3] ^ k[1], static_cast<std::uint32_t>(p0)};
    k[0] += 0x9E3779B9;
    k[1] += 0xBB67AE85;
  }
  return c;
}

/// Words 4 counter … 4 counter + 3 of the stream.
constexpr std::array<std::uint32_t, 4> block(std::uint64_t seed, std::uint64_t counter) {
  return philox4x32({static_cast<std::uint32_t>(counter), static_cast<std::uint32_t>(counter >> 32), 0, 0},
                    {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)});
}

constexpr double to_uniform(std::uint32_t high, std::uint32_t low) {
  const std::uint64_t bits = (std::uint64_t{high} << 32 | low) >> 11;
  return (static_cast<double>(bits) + 0.5) * 0x1p-53;
}

/// Uniform number i of the stream, in (0, 1).
inline double uniform(std::uint64_t seed, std::uint64_t i) {
  const auto w = block(seed, i / 2);
  return i % 2 == 0 ? to_uniform(w[0], w[1]) : to_uniform(w[2], w[3]);
}

/// Standard normal numbers 2 p and 2 p + 1 of the stream.
inline std::array<double, 2> normal_pair(std::uint64_t seed, std::uint64_t p) {
  const auto w = block(seed, p);
  const double radius = std::sqrt(-2.0 * std::log(to_uniform(w[0], w[1])));
  const double angle = 2.0 * 3.14159265358979323846 * to_uniform(w[2], w[3]);
  return {radius * std::cos(angle), radius * std::sin(angle)};
}

/// Standard normal number i of the stream.
inline double normal(std::uint64_t seed, std::uint64_t i) { return normal_pair(seed, i / 2)[i % 2]; }

}  // namespace brockett::philox
