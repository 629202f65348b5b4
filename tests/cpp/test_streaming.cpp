// Samples in host memory for an accumulator anywhere, and the reduced precisions of the tensor units. On an engine whose
// memory is apart the samples arrive in pieces, here small ones, so that there are many.
#include <cmath>
#include <cstring>

#include "cuda_fixture.hpp"

namespace brockett::test {
namespace {

using Method = AutocorrelationParams::Method;
using Precision = AutocorrelationParams::Precision;

bool same_bits(const AutocorrelationState& a, const AutocorrelationState& b) {
  const auto same = [](const std::vector<double>& x, const std::vector<double>& y) {
    return x.size() == y.size() && std::memcmp(x.data(), y.data(), x.size() * sizeof(double)) == 0;
  };
  return a.n_samples == b.n_samples && a.weight == b.weight && same(a.mean, b.mean) && same(a.moment, b.moment);
}

/// n_samples x n_features numbers of any type in host memory, `gap` elements between samples; what lies in the gaps is NaN.
struct HostSamples {
  DType type;
  index_t count, features, ld;
  std::vector<char> bytes;
  HostMatrix<double> values;  // features x count, as the type holds them

  HostSamples(DType type_, const HostMatrix<double>& X, index_t gap = 0)
      : type(type_), count(X.cols), features(X.rows), ld(X.rows + gap), values(X.rows, X.cols) {
    const std::size_t size = type == DType::float64 ? 8 : type == DType::float32 ? 4 : 2;
    bytes.assign(static_cast<std::size_t>(ld * count) * size, static_cast<char>(0xFF));
    for (index_t j = 0; j < count; ++j) {
      for (index_t i = 0; i < features; ++i) {
        char* to = bytes.data() + static_cast<std::size_t>(i + j * ld) * size;
        if (type == DType::float64) {
          const double x = X(i, j);
          std::memcpy(to, &x, size);
          values(i, j) = x;
        } else if (type == DType::float32) {
          const auto x = static_cast<float>(X(i, j));
          std::memcpy(to, &x, size);
          values(i, j) = static_cast<double>(x);
        } else {  // eighths: every half type holds them
          const double x = std::round(std::clamp(X(i, j), -1.9, 1.9) * 8) / 8;
          const std::uint16_t x16 = half_bits(type, x);
          std::memcpy(to, &x16, size);
          values(i, j) = x;
        }
      }
    }
  }
  SampleView view() const { return {type, bytes.data(), count, features, ld}; }
  SampleView part(index_t first, index_t n) const {
    const std::size_t size = bytes.size() / static_cast<std::size_t>(ld * count);
    return {type, bytes.data() + static_cast<std::size_t>(first * ld) * size, n, features, ld};
  }
};

std::vector<AutocorrelationParams> all_params() {
  std::vector<AutocorrelationParams> out;
  for (const bool center : {false, true}) {
    out.push_back({Method::gram, Precision::full, center});
    out.push_back({Method::gram, Precision::single, center});
    out.push_back({Method::qr, Precision::full, center});
  }
  return out;
}

template <class E>
class Streaming : public EngineTest<E> {
 protected:
  // little memory: blocks and pieces are as small as they get
  void SetUp() override {
    if (E::kind == EngineKind::cuda) brockett_shim_set_memory(kMemory);
  }
  void TearDown() override { brockett_shim_reset(); }
  static constexpr std::size_t kMemory = std::size_t{24} << 20;
};
TYPED_TEST_SUITE(Streaming, Backends, BackendNames);

TYPED_TEST(Streaming, every_type_weight_and_method_is_what_the_sums_say) {
  constexpr index_t n = 5, N = 611;
  const HostMatrix<double> X = HostMatrix<double>::random(n, N, 61);
  std::vector<double> weights(N);
  for (std::size_t i = 0; i < weights.size(); ++i) weights[i] = i % 7 == 3 ? 0 : 0.25 * static_cast<double>(1 + i % 5);
  for (const DType type : {DType::float64, DType::float32, DType::float16, DType::bfloat16}) {
    for (const index_t gap : {0, 3}) {
      const HostSamples x(type, X, gap);
      for (const AutocorrelationParams& p : all_params()) {
        for (const bool weighted : {false, true}) {
          Autocorrelation acc(this->context, n, p);
          acc.update_from_host(x.part(0, 400), weighted ? weights.data() : nullptr);
          acc.update_from_host(x.part(400, N - 400), weighted ? weights.data() + 400 : nullptr);
          const SampleMoments want =
              sample_moments(x.values, weighted ? weights : std::vector<double>(N, 1.0), p.center);
          const HostMatrix<double> R = this->to_host(acc.matrix());
          const double tolerance = p.precision == Precision::single ? 2e-6 : 1e-13;
          EXPECT_LE(difference(R, want.R), tolerance * largest_entry(want.R));
          EXPECT_EQ(acc.n_samples(), want.n_samples);
          EXPECT_NEAR(acc.weight(), static_cast<double>(want.weight), 1e-12 * acc.weight());
          for (std::size_t i = 0; i < n; ++i) {
            EXPECT_NEAR(acc.mean()[i], static_cast<double>(want.mean[i]), tolerance);
          }
        }
      }
    }
  }
}

// Integers, so that every order of summation is exact: many pieces, with an uneven last one, are one.
TYPED_TEST(Streaming, many_pieces_are_one) {
  constexpr index_t n = 3, N = 900001;  // 21.6 MB: more than the cuda engine has, twice what a piece of guarded holds
  HostMatrix<double> X(n, N);
  std::vector<double> weights(static_cast<std::size_t>(N));
  double want[3][3] = {}, weighted[3][3] = {};
  for (index_t j = 0; j < N; ++j) {
    for (index_t i = 0; i < n; ++i) X(i, j) = static_cast<double>((7 * i + 3 * j + i * j) % 11 - 5);
    weights[static_cast<std::size_t>(j)] = j % 3 == 0 ? 4 : 1;
    for (index_t i = 0; i < n; ++i) {
      for (index_t k = 0; k < n; ++k) {
        want[i][k] += X(i, j) * X(k, j);
        weighted[i][k] += weights[static_cast<std::size_t>(j)] * X(i, j) * X(k, j);
      }
    }
  }
  const HostSamples x(DType::float64, X);
  for (const bool with_weights : {false, true}) {
    const std::size_t copies = brockett_shim_calls("cudaMemcpyAsync");
    Autocorrelation acc(this->context, n);
    acc.update_from_host(x.view(), with_weights ? weights.data() : nullptr);
    const AutocorrelationState s = acc.state();
    for (std::size_t i = 0; i < 3; ++i) {
      for (std::size_t k = 0; k < 3; ++k) EXPECT_EQ(s.moment[3 * i + k], (with_weights ? weighted : want)[i][k]);
    }
    EXPECT_EQ(acc.n_samples(), N);
    if (TypeParam::kind == EngineKind::cuda) {
      EXPECT_GE(brockett_shim_calls("cudaMemcpyAsync"), copies + 6);  // that there were pieces
    }
  }
}

TYPED_TEST(Streaming, a_bad_number_in_the_last_piece_leaves_all_as_it_was) {
  constexpr index_t n = 3, N = 900001;
  HostMatrix<double> X(n, N, 0.5);
  X(1, N - 1) = std::numeric_limits<double>::quiet_NaN();
  const HostSamples x(DType::float64, X);
  for (const AutocorrelationParams& p : all_params()) {
    Autocorrelation acc(this->context, n, p);
    acc.update_from_host(x.part(0, 10));
    const AutocorrelationState before = acc.state();
    EXPECT_EQ(nonfinite_index([&] { acc.update_from_host(x.view()); }), "X(" + std::to_string(N - 1) + ", 1)");
    EXPECT_TRUE(same_bits(acc.state(), before));
    if (p.method == Method::gram) {
      Context interruptible = this->context;
      interruptible.set_interrupt([] { return true; });
      Autocorrelation stopped(interruptible, before);
      EXPECT_THROW(stopped.update_from_host(x.part(0, N - 1)), Interrupted);
      EXPECT_TRUE(same_bits(stopped.state(), before));
    }
    acc.update_from_host(x.part(0, 10));  // and all goes on
    EXPECT_EQ(acc.n_samples(), 20);
  }
}

TYPED_TEST(Streaming, what_is_refused_is_named) {
  Autocorrelation acc(this->context, 3);
  const std::vector<double> x(12, 1.0);
  EXPECT_EQ(refused_argument([&] { acc.update_from_host(samples(x.data(), 4, 2)); }), "X");
  const double weights[] = {1, -1, 1, 1};
  EXPECT_EQ(refused_argument([&] { acc.update_from_host(samples(x.data(), 4, 3), weights); }), "weights");
  acc.update_from_host(samples(x.data(), 0, 3));
  EXPECT_EQ(acc.n_samples(), 0);
}

// --- reduced precisions ---------------------------------------------------------------------------------------------------

Precision precisions[] = {Precision::tf32, Precision::bf16, Precision::fp16};

/// x as the units read it: `bits` bits of mantissa, rounded to nearest even; tf32 in any rounding.
double rounded(Precision p, double x) {
  if (x == 0) return 0;
  int exponent = 0;
  const double m = std::frexp(static_cast<double>(static_cast<float>(x)), &exponent);
  const int bits = p == Precision::bf16 ? 8 : 11;  // with the leading one
  return std::ldexp(std::nearbyint(std::ldexp(m, bits)), exponent - bits);
}

TYPED_TEST(Streaming, reduced_precisions_sum_rounded_samples_or_are_refused) {
  constexpr index_t n = 6, N = 1501;
  const HostMatrix<double> X = HostMatrix<double>::random(n, N, 62);
  for (const Precision precision : precisions) {
    AutocorrelationParams p;
    p.precision = precision;
    for (const DType type : {DType::float64, DType::float32, DType::float16, DType::bfloat16}) {
      SCOPED_TRACE(std::to_string(static_cast<int>(precision)) + ", type " + std::to_string(static_cast<int>(type)));
      const HostSamples x(type, X, 1);
      Autocorrelation acc(this->context, n, p);
      if constexpr (TypeParam::kind != EngineKind::cuda) {
        EXPECT_THROW(acc.update_from_host(x.view()), Unsupported);
        EXPECT_EQ(acc.n_samples(), 0);
      } else {
        acc.update_from_host(x.view());
        HostMatrix<double> read = x.values;
        for (double& v : read.data) v = rounded(precision, v);
        const std::vector<double> ones(N, 1.0);
        const HostMatrix<double> R = this->to_host(acc.matrix());
        const double largest = largest_entry(sample_moments(x.values, ones, false).R);
        // halves are exact in all three, and tf32 may cut instead of rounding
        const bool exact = type == DType::float16 || type == DType::bfloat16;
        const double rounding = precision == Precision::tf32 && !exact ? 0x1p-9 : 0;
        EXPECT_LE(difference(R, sample_moments(read, ones, false).R), (1e-5 + rounding) * largest);
        EXPECT_EQ(acc.n_samples(), N);
        // what was accumulated on a device is at home on the host: load, merge, read
        Autocorrelation here(Context{}, acc.state()), more(Context{}, acc.state());
        here.merge(more);
        EXPECT_EQ(here.n_samples(), 2 * N);
        EXPECT_LE(difference(to_host<double>(here.context().backend(), here.matrix().view()), R), 1e-14 * largest);
      }
    }
  }
}

TYPED_TEST(Streaming, reduced_precisions_take_weights_and_means) {
  if constexpr (TypeParam::kind == EngineKind::cuda) {
    // 1 + 3/8 of what the last bit stands for, rounded or cut off: 1
    for (const Precision precision : precisions) {
      const double last = precision == Precision::bf16 ? 0x1p-7 : 0x1p-10;
      for (const DType type : {DType::float64, DType::float32}) {
        AutocorrelationParams p;
        p.precision = precision;
        Autocorrelation acc(this->context, 2, p);
        acc.update_from_host(HostSamples(type, HostMatrix<double>(2, 9, 1 + 0.375 * last)).view());
        EXPECT_EQ(acc.state().moment, (std::vector<double>{9, 9, 9, 9}));
      }
    }
    constexpr index_t n = 4, N = 700;
    const HostMatrix<double> X = HostMatrix<double>::random(n, N, 63);
    std::vector<double> weights(N);
    for (std::size_t i = 0; i < weights.size(); ++i) weights[i] = static_cast<double>(i % 4);
    for (const Precision precision : precisions) {
      for (const bool center : {false, true}) {
        AutocorrelationParams p;
        p.precision = precision;
        p.center = center;
        Autocorrelation acc(this->context, n, p);
        const HostSamples x(DType::float32, X);
        acc.update_from_host(x.part(0, 300), weights.data());
        acc.update(samples_of(this->to_device(x.values.block(0, 300, n, N - 300).template as<float>())),
                   weights.data() + 300);
        const SampleMoments want = sample_moments(x.values, weights, center);
        const double largest = largest_entry(want.R);
        // products of factors that are off by 2^-9 (bf16) or 2^-10 at most, of either sign
        const double rounding = precision == Precision::bf16 ? 0x1p-8 : 0x1p-9;
        EXPECT_LE(difference(this->to_host(acc.matrix()), want.R), rounding * largest);
        for (std::size_t i = 0; i < n; ++i) {
          EXPECT_NEAR(acc.mean()[i], static_cast<double>(want.mean[i]), 1e-6);
        }
      }
    }
  }
  AutocorrelationParams p;
  p.method = Method::qr;
  p.precision = Precision::bf16;
  EXPECT_EQ(refused_argument([&] { Autocorrelation(this->context, 2, p); }), "precision");
}

// --- the way to the device ------------------------------------------------------------------------------------------------

using CudaStreaming = CudaTest;

// While piece i is worked on, piece i + 1 is on its way, on a stream of its own.
TEST_F(CudaStreaming, the_next_piece_is_on_its_way) {
  const auto backend = make();
  auto& la = backend->full();
  constexpr index_t rows = 70;
  std::vector<double> host(rows * 10);
  for (std::size_t i = 0; i < host.size(); ++i) host[i] = static_cast<double>(i);
  const DeviceMatrix<double> sum(*backend, HostMatrix<double>(10, 10));
  const std::size_t copies = brockett_shim_calls("cudaMemcpyAsync");
  index_t pieces = 0;
  backend->stream_from_host(
      host.data(), 80, 80, rows, 10, [&](index_t first, index_t count, const void* data, std::size_t pitch) {
        ASSERT_EQ(count, 10);
        ASSERT_EQ(pitch, 80U);
        const bool last = first + count == rows;
        EXPECT_EQ(brockett_shim_calls("cudaMemcpyAsync") - copies, static_cast<std::size_t>(pieces + (last ? 1 : 2)));
        la.add(1.0, {static_cast<const double*>(data), 10, 10, 10}, sum);
        ++pieces;
      });
  EXPECT_EQ(pieces, 7);
  double want = 0;
  for (index_t piece = 0; piece < 7; ++piece) want += static_cast<double>(100 * piece);
  EXPECT_EQ(to_host<double>(*backend, sum.view())(0, 0), want);
  EXPECT_EQ(to_host<double>(*backend, sum.view())(9, 9), want + 7 * 99);
}

// In guard mode a synchronisation runs what it waits for and no more: the copy of the next piece is still to come then, so
// nothing of the work on this one waits for it.
TEST_F(CudaStreaming, the_work_does_not_wait_for_the_next_piece) {
  if (brockett_shim_mode() != 2) return;
  const auto backend = make();
  auto& la = backend->full();
  const std::vector<double> host(40, 1.0);
  backend->stream_from_host(host.data(), 8, 8, 40, 10, [&](index_t first, index_t, const void* data, std::size_t) {
    EXPECT_EQ(la.norm({static_cast<const double*>(data), 10, 1, 10}), std::sqrt(10.0));
    EXPECT_EQ(brockett_shim_pending() > 0, first < 30);
  });
}

// 100 GB on a card of 80 GB: here 19 MB on one of 12 MB.
TEST_F(CudaStreaming, samples_larger_than_the_device) {
  brockett_shim_set_memory(std::size_t{12} << 20);
  const Context context{make()};
  constexpr index_t n = 8, N = 300000;
  std::vector<double> host(static_cast<std::size_t>(n * N));  // 19 MB
  for (std::size_t i = 0; i < host.size(); ++i) host[i] = static_cast<double>(i % 3);
  double want = 0;
  for (std::size_t i = 0; i < host.size(); i += n) want += host[i] * host[i + 1];
  Autocorrelation acc(context, n);
  acc.update_from_host(samples(host.data(), N, n));
  EXPECT_EQ(acc.state().moment[1], want);
}

}  // namespace
}  // namespace brockett::test
