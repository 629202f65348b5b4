// The random bits: published vectors, the numbering of the stream, and what the normals look like.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstdint>

#include "philox.hpp"

namespace {

namespace philox = brockett::philox;
using Words = std::array<std::uint32_t, 4>;

// Random123 (Salmon, Moraes, Dror, Shaw, SC'11), file kat_vectors, philox4x32 with 10 rounds: counter, key, output.
TEST(Philox, agrees_with_the_published_vectors) {
  EXPECT_EQ(philox::philox4x32({0, 0, 0, 0}, {0, 0}), (Words{0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8}));
  constexpr std::uint32_t ones = 0xFFFFFFFF;
  EXPECT_EQ(philox::philox4x32({ones, ones, ones, ones}, {ones, ones}),
            (Words{0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD}));
  EXPECT_EQ(philox::philox4x32({0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344}, {0xA4093822, 0x299F31D0}),
            (Words{0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1}));
}

TEST(Philox, puts_seed_and_counter_low_word_first) {
  EXPECT_EQ(philox::block(0, 0), philox::philox4x32({0, 0, 0, 0}, {0, 0}));
  EXPECT_EQ(philox::block(0x299F31D0A4093822, 0x85A308D3243F6A88),
            philox::philox4x32({0x243F6A88, 0x85A308D3, 0, 0}, {0xA4093822, 0x299F31D0}));
}

// Written down from the definition: words 0 … 3 of stream 0 are those of the first vector above.
TEST(Philox, makes_uniforms_of_53_bits) {
  const double first = (std::floor(static_cast<double>(0x6627E8D5E169C58D >> 11)) + 0.5) / 9007199254740992.0;
  const double second = (std::floor(static_cast<double>(0xBC57AC4C9B00DBD8 >> 11)) + 0.5) / 9007199254740992.0;
  EXPECT_EQ(philox::uniform(0, 0), first);
  EXPECT_EQ(philox::uniform(0, 1), second);
  EXPECT_NEAR(first, 0.39904647085, 1e-10);
  EXPECT_NEAR(second, 0.73571278448, 1e-10);
  EXPECT_GT(philox::to_uniform(0, 0), 0);
  EXPECT_LE(philox::to_uniform(0xFFFFFFFF, 0xFFFFFFFF), 1);
}

TEST(Philox, makes_normals_by_box_and_muller) {
  const double u = philox::uniform(7, 10), v = philox::uniform(7, 11), radius = std::sqrt(-2 * std::log(u));
  EXPECT_DOUBLE_EQ(philox::normal(7, 10), radius * std::cos(2 * M_PI * v));
  EXPECT_DOUBLE_EQ(philox::normal(7, 11), radius * std::sin(2 * M_PI * v));
  EXPECT_EQ(philox::normal_pair(7, 5)[0], philox::normal(7, 10));
  EXPECT_EQ(philox::normal_pair(7, 5)[1], philox::normal(7, 11));
}

// Moments 1 … 4 of 100,000 normals within five standard errors; seeds and positions give different numbers.
TEST(Philox, makes_normals_that_are_normal) {
  constexpr int count = 100000;
  double m1 = 0, m2 = 0, m3 = 0, m4 = 0, neighbours = 0, before = 0;
  for (int i = 0; i < count; ++i) {
    const double x = philox::normal(42, static_cast<std::uint64_t>(i));
    m1 += x, m2 += x * x, m3 += x * x * x, m4 += x * x * x * x, neighbours += x * before;
    before = x;
  }
  const double error = 5 / std::sqrt(static_cast<double>(count));
  EXPECT_NEAR(m1 / count, 0, error);
  EXPECT_NEAR(m2 / count, 1, error * std::sqrt(2));
  EXPECT_NEAR(m3 / count, 0, error * std::sqrt(15));
  EXPECT_NEAR(m4 / count, 3, error * std::sqrt(96));
  EXPECT_NEAR(neighbours / count, 0, error);
  EXPECT_NE(philox::normal(42, 0), philox::normal(43, 0));
  EXPECT_NE(philox::normal(42, 0), philox::normal(42, std::uint64_t{1} << 33));
  EXPECT_NE(philox::normal(42, 0), philox::normal(42 + (std::uint64_t{1} << 32), 0));
}

}  // namespace
