// Sums of products of lines at several shifts against the sums by their definition.
#include "line_modes.hpp"
#include "patch_cut.hpp"
#include "reference.hpp"

namespace brockett::test {
namespace {

template <class E>
class LineModesTest : public EngineTest<E> {};
TYPED_TEST_SUITE(LineModesTest, Backends, BackendNames);

TYPED_TEST(LineModesTest, lengths_are_products_of_2_3_5) {
  const index_t lengths[][2] = {{1, 1}, {2, 2}, {7, 8}, {11, 12}, {58, 60}, {61, 64}, {97, 100}};
  for (const auto& [pitch, length] : lengths) EXPECT_EQ(LineModes::length_for(pitch), length);
}

// a is zero outside of [begin, end), and b shifted by any of the shifts stays in its lines there.
TYPED_TEST(LineModesTest, equal_the_sums_of_products) {
  struct Case {
    index_t pitch, begin, end, most;
    std::vector<index_t> shifts;
  };
  const std::vector<Case> cases = {{1, 0, 1, 1, {0}},     {2, 0, 1, 1, {0, 1}},          {3, 1, 2, 1000, {1, -1, 0}},
                                   {7, 2, 5, 1, {-2, 2}}, {9, 3, 7, 40, {-3, -1, 0, 2}}, {16, 4, 12, 1000, {4, 3, -4}}};
  const index_t channels = 5, lines_a = 4, lines_b = 6, count = 3;
  for (const Case& c : cases) {
    const auto all = HostMatrix<double>::random(channels, lines_b * c.pitch, 2);
    auto kept = HostMatrix<double>::random(channels, lines_a * c.pitch, 1);
    for (index_t j = 0; j < kept.cols; ++j) {
      const index_t w = j % c.pitch;
      for (index_t i = 0; i < channels && (w < c.begin || w >= c.end); ++i) kept(i, j) = 0;
    }
    const auto device_a = this->to_device(kept), device_b = this->to_device(all);
    const LineModes a(this->la, device_a, c.pitch), b(this->la, device_b, c.pitch);
    EXPECT_TRUE(LineModes().empty());
    EXPECT_FALSE(a.empty());
    const index_t first_a = 1, first_b = 2, first_channel = 1, n = 3;
    const auto sums = LineModes::products(this->la, {a, first_a, count, first_channel, n},
                                          {b, first_b, count, first_channel, n}, c.shifts, c.most);
    const HostMatrix<double> got = this->to_host(sums.mat());
    ASSERT_EQ(got.rows, n * n);
    ASSERT_EQ(got.cols, static_cast<index_t>(c.shifts.size()));
    for (std::size_t s = 0; s < c.shifts.size(); ++s) {
      for (index_t i = 0; i < n; ++i) {
        for (index_t j = 0; j < n; ++j) {
          Real sum = 0;
          for (index_t l = 0; l < count; ++l) {
            for (index_t w = c.begin; w < c.end; ++w) {
              sum += static_cast<Real>(all(first_channel + i, (first_b + l) * c.pitch + w + c.shifts[s])) *
                     static_cast<Real>(kept(first_channel + j, (first_a + l) * c.pitch + w));
            }
          }
          EXPECT_NEAR(got(i + j * n, static_cast<index_t>(s)), static_cast<double>(sum), 1e-14 * 30)
              << c.pitch << ' ' << c.shifts[s];
        }
      }
    }
  }
}

// 5 x 5 kernels over 32 channels: of 4096 lines of 32 positions, or 128 of 10000.
TEST(PatchCut, transforms_as_products_pay_for_short_lines_alone) {
  PatchParams p;
  p.in_channels = 32;
  p.kernel = {5, 5};
  const PatchBlocks layout(p);
  for (const index_t pitch : {32, 10000}) {
    const index_t lines = pitch == 32 ? 4096 : 128, numbers = 2 * p.in_channels * lines * pitch;
    const double gain = 4 * saved_by_modes(layout, lines, pitch, 9);
    EXPECT_GT(gain, seconds_of_transforms(numbers, pitch, false));
    EXPECT_EQ(gain > seconds_of_transforms(numbers, pitch, true), pitch == 32);
  }
}

}  // namespace
}  // namespace brockett::test
