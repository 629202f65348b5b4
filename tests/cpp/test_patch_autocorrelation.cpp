#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "brockett/patch_autocorrelation.hpp"
#include "reference.hpp"

namespace brockett::test {
namespace {

struct Images {
  index_t n, channels, height, width;
  std::vector<double> data;
  double at(index_t i, index_t c, index_t h, index_t w) const {
    return data[static_cast<std::size_t>(((i * channels + c) * height + h) * width + w)];
  }
};

Images random_images(index_t n, index_t channels, index_t height, index_t width, std::uint64_t seed, double mean = 0) {
  std::mt19937_64 engine(seed);
  std::normal_distribution<double> normal(mean, 1);
  Images x{n, channels, height, width, std::vector<double>(static_cast<std::size_t>(n * channels * height * width))};
  for (double& v : x.data) v = normal(engine);
  return x;
}

index_t wrap(index_t a, index_t n) { return ((a % n) + n) % n; }

/// The patches of one group in columns, by the definition of a convolution; and the weight of each.
HostMatrix<double> patches(const PatchParams& p, const Images& x, index_t group, const std::vector<double>& weights,
                           std::vector<double>* patch_weights) {
  const auto out = [&](std::size_t a, index_t size) {
    return (size + p.padding[2 * a] + p.padding[2 * a + 1] - p.dilation[a] * (p.kernel[a] - 1) - 1) / p.stride[a] + 1;
  };
  const index_t rows = out(0, x.height), cols = out(1, x.width), channels = p.in_channels / p.groups;
  HostMatrix<double> Z(channels * p.kernel[0] * p.kernel[1], x.n * rows * cols);
  index_t column = 0;
  for (index_t i = 0; i < x.n; ++i) {
    for (index_t r = 0; r < rows; ++r) {
      for (index_t c = 0; c < cols; ++c, ++column) {
        if (!weights.empty()) patch_weights->push_back(weights[static_cast<std::size_t>(i)]);
        index_t entry = 0;
        for (index_t channel = group * channels; channel < (group + 1) * channels; ++channel) {
          for (index_t a = 0; a < p.kernel[0]; ++a) {
            for (index_t b = 0; b < p.kernel[1]; ++b, ++entry) {
              const index_t h = r * p.stride[0] + a * p.dilation[0] - p.padding[0];
              const index_t w = c * p.stride[1] + b * p.dilation[1] - p.padding[2];
              if (p.circular) {
                Z(entry, column) = x.at(i, channel, wrap(h, x.height), wrap(w, x.width));
              } else if (h >= 0 && h < x.height && w >= 0 && w < x.width) {
                Z(entry, column) = x.at(i, channel, h, w);
              }
            }
          }
        }
      }
    }
  }
  return Z;
}

template <class E>
class PatchAutocorrelationTest : public EngineTest<E> {
 protected:
  void add(PatchAutocorrelation& acc, const Images& x, const std::vector<double>& weights = {}) {
    const index_t size = x.channels * x.height * x.width;
    HostMatrix<double> columns(size, x.n);
    columns.data = x.data;
    const auto device = this->to_device(columns, Order::column_major, 3);
    acc.update({DType::float64, device.mat().data, x.n, x.channels, x.height, x.width, device.mat().ld},
               weights.empty() ? nullptr : weights.data());
  }

  /// Largest error of R over all groups, relative to the largest entry, and of the mean.
  double error(const PatchAutocorrelation& acc, const std::vector<Images>& batches,
               const std::vector<std::vector<double>>& weights = {}) {
    const PatchParams& p = acc.params();
    double worst = 0;
    const std::vector<double> mean = acc.mean();
    for (index_t g = 0; g < p.groups; ++g) {
      HostMatrix<double> all(acc.n_features(), 0);
      std::vector<double> w;
      for (std::size_t b = 0; b < batches.size(); ++b) {
        const auto Z = patches(p, batches[b], g, weights.empty() ? std::vector<double>() : weights[b], &w);
        all.cols += Z.cols;
        all.data.insert(all.data.end(), Z.data.begin(), Z.data.end());
      }
      const SampleMoments want = sample_moments(all, w, p.center);
      const double size = std::max(largest_entry(want.R), 1e-300);
      const HostMatrix<double> R = this->to_host(acc.matrix(g));
      worst = std::max(worst, difference(R, want.R) / size);
      if (difference(R, R.transposed()) > 0) worst = 1;
      for (std::size_t i = 0; i < want.mean.size(); ++i) {
        const double got = mean[static_cast<std::size_t>(g) * want.mean.size() + i];
        worst = std::max(worst, static_cast<double>(std::abs(got - want.mean[i])) / std::max(1.0, std::sqrt(size)));
      }
      if (acc.n_samples() != want.n_samples) worst = 1;
    }
    return worst;
  }
};
TYPED_TEST_SUITE(PatchAutocorrelationTest, Backends, BackendNames);

TYPED_TEST(PatchAutocorrelationTest, of_three_numbers_by_hand) {
  // the sequence 1, 2, 4 and windows of two: (1, 2), (2, 4): R = [[5, 10], [10, 20]] / 2
  PatchParams p;
  p.kernel = {1, 2};
  PatchAutocorrelation acc(this->context, p);
  this->add(acc, {1, 1, 1, 3, {1, 2, 4}});
  EXPECT_LE(difference(this->to_host(acc.matrix()), HostMatrix<double>{{2.5, 5}, {5, 10}}), 1e-15);
  EXPECT_EQ(acc.mean(), (std::vector<double>{1.5, 3}));
  EXPECT_EQ(acc.n_samples(), 2);
  // with one zero on either side: (0, 1), (1, 2), (2, 4), (4, 0)
  p.padding = {0, 0, 1, 1};
  PatchAutocorrelation padded(this->context, p);
  this->add(padded, {1, 1, 1, 3, {1, 2, 4}});
  EXPECT_LE(difference(this->to_host(padded.matrix()), HostMatrix<double>{{5.25, 2.5}, {2.5, 5.25}}), 1e-15);
  EXPECT_EQ(padded.n_samples(), 4);
}

struct Case {
  const char* name;
  PatchParams params;
  index_t n, height, width;
};

std::vector<Case> cases() {
  //                        channels kernel  stride  dilation padding       groups
  return {
      {"3 x 3", {3, {3, 3}, {1, 1}, {1, 1}, {1, 1, 1, 1}, 1}, 2, 9, 8},
      {"3 x 3, no padding", {2, {3, 3}, {1, 1}, {1, 1}, {0, 0, 0, 0}, 1}, 2, 7, 6},
      {"more padding than kernel", {2, {3, 2}, {1, 1}, {1, 1}, {4, 5, 3, 2}, 1}, 1, 3, 4},
      {"kernel as large as the image", {2, {4, 5}, {1, 1}, {1, 1}, {0, 0, 0, 0}, 1}, 3, 4, 5},
      {"kernel larger than the image", {2, {5, 5}, {1, 1}, {1, 1}, {2, 2, 2, 2}, 1}, 2, 3, 2},
      {"1 x 1", {5, {1, 1}, {1, 1}, {1, 1}, {0, 0, 0, 0}, 1}, 2, 4, 5},
      {"1 x 1, stride", {3, {1, 1}, {2, 3}, {1, 1}, {0, 0, 1, 0}, 1}, 2, 5, 7},
      {"3 x 3, stride 2", {2, {3, 3}, {2, 2}, {1, 1}, {1, 1, 1, 1}, 1}, 2, 9, 10},
      {"7 x 7, stride 2", {2, {7, 7}, {2, 2}, {1, 1}, {3, 3, 3, 3}, 1}, 1, 17, 16},
      {"stride above kernel", {2, {2, 2}, {3, 4}, {1, 1}, {0, 1, 1, 0}, 1}, 2, 11, 12},
      {"dilation", {2, {3, 3}, {1, 1}, {2, 3}, {2, 2, 3, 3}, 1}, 2, 9, 10},
      {"dilation and stride", {2, {3, 4}, {2, 3}, {3, 2}, {3, 1, 0, 2}, 1}, 2, 12, 13},
      {"windows far apart", {1, {2, 2}, {1, 1}, {5, 5}, {0, 0, 0, 0}, 1}, 2, 6, 6},
      {"odd axes", {2, {1, 4}, {1, 2}, {1, 1}, {0, 0, 3, 0}, 1}, 2, 3, 9},
      {"depthwise", {19, {3, 3}, {1, 1}, {1, 1}, {1, 1, 1, 1}, 19}, 2, 5, 6},
      {"groups of three", {12, {3, 2}, {2, 1}, {1, 1}, {1, 0, 0, 1}, 4}, 2, 5, 6},
      {"many channels", {17, {2, 3}, {1, 1}, {1, 1}, {0, 1, 1, 1}, 1}, 2, 6, 40},
  };
}

TYPED_TEST(PatchAutocorrelationTest, equals_the_moments_of_the_patches) {
  for (const Case& one : cases()) {
    for (const bool circular : {false, true}) {
      for (const bool center : {false, true}) {
        PatchParams p = one.params;
        p.circular = circular;
        p.center = center;
        SCOPED_TRACE(std::string(one.name) + (circular ? ", circular" : "") + (center ? ", centred" : ""));
        const Images x = random_images(one.n, p.in_channels, one.height, one.width, 7, center ? 30 : 0.3);
        PatchAutocorrelation acc(this->context, p);
        this->add(acc, x);
        EXPECT_LE(this->error(acc, {x}), center ? 1e-12 : 1e-14);
        // a second batch of another size, and weights with a zero
        const Images y = random_images(4, p.in_channels, one.height + 2, one.width + 1, 8, center ? -20 : 0);
        const std::vector<double> w{0.5, 0, 2, 3};
        this->add(acc, y, w);
        Images kept = y;  // the image of weight 0 is not a sample
        const std::size_t image = y.data.size() / 4;
        kept.n = 3;
        kept.data.erase(kept.data.begin() + static_cast<std::ptrdiff_t>(image),
                        kept.data.begin() + static_cast<std::ptrdiff_t>(2 * image));
        const std::vector<double> ones(static_cast<std::size_t>(one.n), 1.0);
        EXPECT_LE(this->error(acc, {x, kept}, {ones, {0.5, 2, 3}}), center ? 1e-12 : 1e-14);
      }
    }
  }
}

// So many channels and lags along the width that they are summed by way of the modes of the lines.
TYPED_TEST(PatchAutocorrelationTest, many_lags_of_many_channels) {
  PatchParams p;
  p.in_channels = 48;
  p.kernel = {1, 9};
  p.padding = {0, 0, 4, 4};
  PatchAutocorrelation acc(this->context, p);
  const Images x = random_images(10, 48, 4, 24, 8);
  this->add(acc, x);
  EXPECT_LE(this->error(acc, {x}), 1e-13);
}

TYPED_TEST(PatchAutocorrelationTest, of_any_element_type) {
  PatchParams p;
  p.in_channels = 2;
  p.kernel = {2, 2};
  const std::vector<float> values{1, 2, -3, 4, 0.5F, 6, 7, -8, 9, 10, 11, 12};
  Images x{1, 2, 2, 3, std::vector<double>(values.begin(), values.end())};
  PatchAutocorrelation want(this->context, p);
  this->add(want, x);
  // bfloat16: the upper half of a float, exact for these
  std::vector<std::uint16_t> bits(values.size());
  for (std::size_t i = 0; i < values.size(); ++i) {
    std::uint32_t word;
    std::memcpy(&word, &values[i], sizeof word);
    bits[i] = static_cast<std::uint16_t>(word >> 16);
  }
  const auto narrow = bytes_to_device(this->backend, bits.data(), bits.size() * 2);
  PatchAutocorrelation half(this->context, p);
  half.update({DType::bfloat16, narrow.get(), 1, 2, 2, 3, 12});
  const auto single_data = bytes_to_device(this->backend, values.data(), values.size() * 4);
  PatchAutocorrelation single(this->context, p);
  single.update({DType::float32, single_data.get(), 1, 2, 2, 3, 12});
  const auto R = this->to_host(want.matrix());
  EXPECT_EQ(difference(this->to_host(half.matrix()), R), 0);
  EXPECT_EQ(difference(this->to_host(single.matrix()), R), 0);
}

TYPED_TEST(PatchAutocorrelationTest, merge_and_state_carry_everything) {
  for (const bool center : {false, true}) {
    PatchParams p{6, {3, 2}, {1, 2}, {1, 1}, {1, 1, 0, 1}, 2, false, center};
    const Images x = random_images(2, 6, 5, 6, 1, 5), y = random_images(3, 6, 7, 4, 2, -3);
    PatchAutocorrelation a(this->context, p), b(this->context, p);
    this->add(a, x);
    this->add(b, y);
    PatchAutocorrelation c(this->context, a.state());
    c.merge(b);
    EXPECT_LE(this->error(c, {x, y}), 1e-13);
    PatchAutocorrelation empty(this->context, p);
    empty.merge(c);
    EXPECT_LE(this->error(empty, {x, y}), 1e-13);
    PatchAutocorrelation twice(this->context, b.state());
    twice.merge(twice);
    EXPECT_LE(this->error(twice, {y, y}), 1e-13);
    for (index_t g = 0; g < 2; ++g) {
      const Autocorrelation group(this->context, c.group_state(g));
      EXPECT_LE(difference(this->to_host(group.matrix()), this->to_host(c.matrix(g))), 1e-15);
      EXPECT_EQ(group.n_samples(), c.n_samples());
    }
    twice.clear();
    EXPECT_EQ(twice.n_samples(), 0);
    EXPECT_THROW(twice.matrix(), InvalidArgument);
    this->add(twice, x);
    EXPECT_LE(this->error(twice, {x}), 1e-13);
    PatchParams other = p;
    other.dilation = {1, 2};
    EXPECT_THROW(a.merge(PatchAutocorrelation(this->context, other)), InvalidArgument);
    auto broken = a.state();
    broken.moment[1] += 1;
    EXPECT_THROW(PatchAutocorrelation(this->context, broken), InvalidArgument);
    broken = a.state();
    broken.mean.pop_back();
    EXPECT_THROW(PatchAutocorrelation(this->context, broken), InvalidArgument);
  }
}

TYPED_TEST(PatchAutocorrelationTest, a_failing_update_changes_nothing) {
  PatchParams p{2, {3, 3}, {1, 1}, {1, 1}, {1, 1, 1, 1}, 1, false, true};
  PatchAutocorrelation acc(this->context, p);
  const Images x = random_images(2, 2, 5, 6, 3, 1);
  this->add(acc, x);
  const auto before = acc.state();
  const auto unchanged = [&] {
    const auto now = acc.state();
    return now.moment == before.moment && now.mean == before.mean && now.weight == before.weight &&
           now.n_samples == before.n_samples;
  };
  Images bad = x;
  bad.data[60 + 30 + 13] = std::numeric_limits<double>::quiet_NaN();
  try {
    this->add(acc, bad);
    FAIL() << "NaN was taken";
  } catch (const NonFinite& error) {
    EXPECT_EQ(error.argument(), "X");
    EXPECT_EQ(error.row(), 1);
    EXPECT_EQ(error.column(), 43);
  }
  EXPECT_THROW(this->add(acc, random_images(1, 3, 5, 6, 1)), InvalidArgument);   // channels
  PatchAutocorrelation unpadded(this->context, PatchParams{2, {3, 3}});
  EXPECT_THROW(this->add(unpadded, random_images(1, 2, 2, 6, 1)), InvalidArgument);  // smaller than the kernel
  EXPECT_THROW(this->add(acc, x, {1, -1}), InvalidArgument);
  Images huge = x;
  huge.data[5] = 1e160;
  EXPECT_THROW(this->add(acc, huge), InvalidArgument);
  this->add(acc, {0, 2, 5, 6, {}});
  EXPECT_TRUE(unchanged());
  if constexpr (TypeParam::kind == EngineKind::guarded) {
    // every allocation of an update fails in turn
    auto& memory = dynamic_cast<GuardedBackend&>(*this->backend);
    for (std::size_t k = 0;; ++k) {
      memory.fail_allocation_after(k + 1);  // the first is the test's own
      bool failed = false;
      try {
        this->add(acc, x);
      } catch (const OutOfMemory&) {
        failed = true;
      }
      if (memory.cancel_failure() && !failed) break;
      ASSERT_TRUE(failed);
      ASSERT_TRUE(unchanged()) << "after " << k;
    }
  }
}

TYPED_TEST(PatchAutocorrelationTest, parameters_that_make_no_sense) {
  const auto refused = [&](const PatchParams& p) {
    try {
      PatchAutocorrelation acc(this->context, p);
      return std::string("nothing");
    } catch (const InvalidArgument& error) {
      return error.argument();
    }
  };
  EXPECT_EQ(refused({0, {1, 1}}), "in_channels");
  EXPECT_EQ(refused({1, {0, 1}}), "kernel_size");
  EXPECT_EQ(refused({1, {1, 1}, {1, 0}}), "stride");
  EXPECT_EQ(refused({1, {1, 1}, {1, 1}, {0, 1}}), "dilation");
  EXPECT_EQ(refused({1, {1, 1}, {1, 1}, {1, 1}, {0, 0, -1, 0}}), "padding");
  EXPECT_EQ(refused({4, {1, 1}, {1, 1}, {1, 1}, {0, 0, 0, 0}, 3}), "groups");
  PatchAutocorrelation empty(this->context, PatchParams{1, {1, 1}});
  EXPECT_THROW(empty.matrix(), InvalidArgument);
  EXPECT_THROW(empty.mean(), InvalidArgument);
}

}  // namespace
}  // namespace brockett::test
