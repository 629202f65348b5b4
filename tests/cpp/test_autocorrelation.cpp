#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>
#include <optional>
#include <vector>

#include "brockett/autocorrelation.hpp"
#include "reference.hpp"

namespace brockett::test {
namespace {

using Method = AutocorrelationParams::Method;
using Precision = AutocorrelationParams::Precision;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

/// Every combination that there is.
std::vector<AutocorrelationParams> all_params() {
  std::vector<AutocorrelationParams> out;
  for (const bool center : {false, true}) {
    out.push_back({Method::gram, Precision::full, center});
    out.push_back({Method::gram, Precision::single, center});
    out.push_back({Method::qr, Precision::full, center});
  }
  return out;
}

std::string text(const AutocorrelationParams& p) {
  return std::string(p.method == Method::qr ? "qr" : "gram") + (p.precision == Precision::single ? ", single" : "") +
         (p.center ? ", centred" : "");
}

/// Relative to the largest entry of R: rounding of sums of a few thousand products.
double tolerance(const AutocorrelationParams& p) { return p.precision == Precision::single ? 2e-6 : 1e-13; }

bool same_bits(const AutocorrelationState& a, const AutocorrelationState& b) {
  const auto same = [](const std::vector<double>& x, const std::vector<double>& y) {
    return x.size() == y.size() && std::memcmp(x.data(), y.data(), x.size() * sizeof(double)) == 0;
  };
  return a.n_features == b.n_features && a.n_samples == b.n_samples && a.weight == b.weight && same(a.mean, b.mean) &&
         same(a.moment, b.moment);
}

double relative(double got, Real want) { return static_cast<double>(std::abs(got - want) / std::abs(want)); }

template <class E>
class AutocorrelationTest : public EngineTest<E> {
 protected:
  /// max|R - reference| over the largest reference entry, of matrix(), of L L^T with factor(), and of the mean.
  double error(const Autocorrelation& acc, const SampleMoments& want) {
    const double size = std::max(largest_entry(want.R), 1e-300);
    const HostMatrix<double> R = this->to_host(acc.matrix());
    double worst = difference(R, want.R) / size;
    worst = std::max(worst, difference(R, R.transposed()) > 0 ? kInf : 0);
    if (acc.params().method == Method::qr) {
      const HostMatrix<double> L = this->to_host(acc.factor());
      worst = std::max(worst, difference(times(L, L.transposed()), want.R) / size);
      for (index_t j = 0; j < L.cols; ++j) {
        for (index_t i = 0; i < j; ++i) worst = L(i, j) == 0 ? worst : kInf;
      }
    }
    double mean_size = 1e-300;
    for (const Real m : want.mean) mean_size = std::max(mean_size, static_cast<double>(std::abs(m)));
    const std::vector<double> mean = acc.mean();
    for (std::size_t i = 0; i < mean.size(); ++i) {
      const double d = std::abs(static_cast<double>(mean[i] - want.mean[i]));
      worst = std::max(worst, std::isnan(d) ? kInf : d / std::max(mean_size, std::sqrt(size)));
    }
    if (acc.n_samples() != want.n_samples || !(relative(acc.weight(), want.weight) < 1e-13)) worst = kInf;
    return worst;
  }

  /// Adds the columns of X, in memory of the backend.
  template <class T>
  void add(Autocorrelation& acc, const HostMatrix<T>& X, const std::vector<double>& weights = {}, index_t padding = 0) {
    const auto device = this->to_device(X, Order::column_major, padding);
    acc.update(samples_of(device), weights.empty() ? nullptr : weights.data());
  }
};
TYPED_TEST_SUITE(AutocorrelationTest, Backends, BackendNames);

// --- by hand ------------------------------------------------------------------------------------------------------------

TYPED_TEST(AutocorrelationTest, of_three_samples_by_hand) {
  // samples (1, 2), (3, -1), (0, 2): sum x x^T = [[10, -1], [-1, 9]], mean (4/3, 1)
  const HostMatrix<double> X{{1, 3, 0}, {2, -1, 2}};
  for (const auto& p : all_params()) {
    SCOPED_TRACE(text(p));
    Autocorrelation acc(this->context, 2, p);
    this->add(acc, X);
    const HostMatrix<double> R = p.center ? HostMatrix<double>{{14.0 / 9, -5.0 / 3}, {-5.0 / 3, 2}}
                                          : HostMatrix<double>{{10.0 / 3, -1.0 / 3}, {-1.0 / 3, 3}};
    const double tol = p.precision == Precision::single ? 1e-6 : 1e-15;
    EXPECT_LE(difference(this->to_host(acc.matrix()), R), 4 * tol);
    EXPECT_NEAR(acc.mean()[0], 4.0 / 3, tol);
    EXPECT_NEAR(acc.mean()[1], 1, tol);
    EXPECT_EQ(acc.n_samples(), 3);
    EXPECT_EQ(acc.weight(), 3);
    EXPECT_EQ(acc.n_features(), 2);
  }
}

TYPED_TEST(AutocorrelationTest, of_weighted_samples_by_hand) {
  // weights 1, 3, 0 on samples 2, -2, NaN: R = (4 + 12) / 4, mean -1, variance 3
  const HostMatrix<double> X{{2, -2, kNaN}};
  for (const auto& p : all_params()) {
    SCOPED_TRACE(text(p));
    Autocorrelation acc(this->context, 1, p);
    this->add(acc, X, {1, 3, 0});
    EXPECT_NEAR(this->to_host(acc.matrix())(0, 0), p.center ? 3 : 4, 1e-6);
    EXPECT_NEAR(acc.mean()[0], -1, 1e-7);
    EXPECT_EQ(acc.n_samples(), 2);
    EXPECT_EQ(acc.weight(), 4);
  }
}

TYPED_TEST(AutocorrelationTest, square_root_of_a_diagonal_by_hand) {
  // samples 3 e_1, 4 e_2: R = diag(9, 16) / 2, L = diag(3, 4) / sqrt 2 up to signs
  Autocorrelation acc(this->context, 2, {Method::qr});
  this->add(acc, HostMatrix<double>{{3, 0}, {0, 4}});
  const auto L = this->to_host(acc.factor());
  EXPECT_NEAR(std::abs(L(0, 0)), 3 / std::sqrt(2), 1e-15);
  EXPECT_NEAR(std::abs(L(1, 1)), 4 / std::sqrt(2), 1e-15);
  EXPECT_EQ(L(0, 1), 0);
  EXPECT_NEAR(L(1, 0), 0, 1e-15);
}

// --- awkward sizes and types --------------------------------------------------------------------------------------------

TYPED_TEST(AutocorrelationTest, equals_the_definition_at_an_awkward_size) {
  const index_t n = 43, N = 597;
  HostMatrix<double> X = HostMatrix<double>::random(n, N, 1);
  std::vector<double> weights(static_cast<std::size_t>(N));
  for (index_t j = 0; j < N; ++j) {
    for (index_t i = 0; i < n; ++i) X(i, j) = static_cast<float>(X(i, j) + 0.25 * static_cast<double>(i % 3));
    weights[static_cast<std::size_t>(j)] = j % 5 == 2 ? 0 : 0.1 * static_cast<double>(j % 7) + 0.05;
  }
  for (const auto& p : all_params()) {
    for (const bool weighted : {false, true}) {
      HostMatrix<double> Z = X;
      if (weighted) {  // samples of weight 0 may hold anything
        for (index_t j = 2; j < N; j += 5) Z(j % n, j) = j % 2 ? kNaN : kInf;
      }
      const std::vector<double> w = weighted ? weights : std::vector<double>();
      const SampleMoments want = sample_moments(X, w, p.center);
      for (const index_t padding : {0, 2}) {
        SCOPED_TRACE(text(p) + (weighted ? ", weighted" : "") + (padding ? ", padded" : ""));
        Autocorrelation acc(this->context, n, p), from_float(this->context, n, p);
        this->add(acc, Z, w, padding);
        EXPECT_LE(this->error(acc, want), tolerance(p));
        this->add(from_float, Z.template as<float>(), w, padding);  // the same values: the same result
        EXPECT_TRUE(same_bits(acc.state(), from_float.state()));
      }
    }
  }
}

TYPED_TEST(AutocorrelationTest, half_types_are_read_exactly) {
  // dyadic values, among them the largest and subnormal ones; sums of their products are exact in double
  for (const DType type : {DType::float16, DType::bfloat16}) {
    const bool half = type == DType::float16;
    const double largest = half ? 65504 : 0x1.FEp60, smallest = half ? 0x1p-24 : 0x1p-130;
    const HostMatrix<double> X{
        {1, -2.5, 0.125, 0}, {3, 1.5, -0.75, largest}, {-0.0, 96, 1, half ? 0x1.8p-14 : 0x1.8p-120}};
    std::vector<std::uint16_t> bits(5 * 4, 0x7E00);  // ld 5; NaN between the samples
    for (index_t j = 0; j < 4; ++j) {
      for (index_t i = 0; i < 3; ++i) bits[static_cast<std::size_t>(i + 5 * j)] = half_bits(type, X(i, j));
    }
    const auto device = bytes_to_device(this->backend, bits.data(), bits.size() * 2);
    Autocorrelation acc(this->context, 3);
    acc.update({type, device.get(), 4, 3, 5});
    const SampleMoments want = sample_moments(X);
    EXPECT_EQ(difference(this->to_host(acc.matrix()), want.R.as<double>()), 0);

    const std::uint16_t tiny = half_bits(type, smallest);
    const auto one = bytes_to_device(this->backend, &tiny, 2);
    Autocorrelation scalar(this->context, 1);
    scalar.update({type, one.get(), 1, 1, 1});
    EXPECT_EQ(this->to_host(scalar.matrix())(0, 0), smallest * smallest);

    const std::uint16_t overflow[] = {half_bits(type, 1), half_bits(type, 2), half_bits(type, kInf),
                                      half_bits(type, 3)};
    const auto inf = bytes_to_device(this->backend, overflow, sizeof overflow);
    EXPECT_EQ(nonfinite_index([&] { acc.update({type, inf.get(), 1, 3, 3}); }), "X(0, 2)");
  }
}

TYPED_TEST(AutocorrelationTest, inputs_are_not_modified) {
  const HostMatrix<double> X = HostMatrix<double>::random(4, 30, 3);
  for (const auto& p : all_params()) {
    const auto device = this->to_device(X, Order::column_major, 1);
    std::vector<double> weights(30, 0.5);
    Autocorrelation acc(this->context, 4, p);
    acc.update(samples_of(device), weights.data());
    EXPECT_EQ(difference(this->to_host(device), X), 0);
    EXPECT_EQ(weights, std::vector<double>(30, 0.5));
  }
}

// --- properties ---------------------------------------------------------------------------------------------------------

TYPED_TEST(AutocorrelationTest, does_not_depend_on_the_split_the_order_or_the_tree_of_merges) {
  const index_t n = 7, N = 211;
  HostMatrix<double> X = HostMatrix<double>::random(n, N, 5);
  std::vector<double> weights;
  for (index_t j = 0; j < N; ++j) {
    X(0, j) += 3;  // a mean that matters
    weights.push_back(j % 11 == 0 ? 0 : 1 + 0.25 * static_cast<double>(j % 4));
  }
  std::mt19937_64 bits(17);
  for (const auto& p : all_params()) {
    SCOPED_TRACE(text(p));
    const SampleMoments want = sample_moments(X, weights, p.center);
    for (int trial = 0; trial < 12; ++trial) {
      std::vector<index_t> order(static_cast<std::size_t>(N));
      std::iota(order.begin(), order.end(), index_t{0});
      if (trial % 2) std::shuffle(order.begin(), order.end(), bits);
      std::vector<Autocorrelation> parts;
      for (index_t at = 0; at < N;) {  // pieces of 0 to 60 samples
        const index_t count = std::min<index_t>(N - at, static_cast<index_t>(bits() % 61));
        HostMatrix<double> piece(n, count);
        std::vector<double> w;
        for (index_t j = 0; j < count; ++j) {
          const index_t from = order[static_cast<std::size_t>(at + j)];
          for (index_t i = 0; i < n; ++i) piece(i, j) = X(i, from);
          w.push_back(weights[static_cast<std::size_t>(from)]);
        }
        if (parts.empty() || bits() % 2) parts.emplace_back(this->context, n, p);
        if (count > 0) {
          this->add(parts.back(), piece, w);
        } else {
          parts.back().update({DType::float64, nullptr, 0, n, n});
        }
        at += count;
      }
      while (parts.size() > 1) {  // merge random pairs
        const std::size_t into = bits() % (parts.size() - 1);
        parts[into].merge(parts[into + 1]);
        parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(into) + 1);
      }
      EXPECT_LE(this->error(parts[0], want), tolerance(p)) << "trial " << trial;
    }
  }
}

TYPED_TEST(AutocorrelationTest, many_blocks_equal_the_definition) {
  const index_t n = 2, N = 150001;  // blocks are at most 65536 samples
  const HostMatrix<double> X = HostMatrix<double>::random(n, N, 8);
  std::vector<double> w;
  for (index_t j = 0; j < N; ++j) w.push_back(static_cast<double>(j / 7000 % 3));
  const auto device = this->to_device(X);
  for (const auto& p : all_params()) {
    SCOPED_TRACE(text(p));
    Autocorrelation acc(this->context, n, p);
    this->add(acc, HostMatrix<double>{{1, 5}, {2, -3}});
    acc.update(samples_of(device), w.data());
    HostMatrix<double> all(n, N + 2);
    std::vector<double> all_w{1, 1};
    all.data = {1, 2, 5, -3};
    all.data.insert(all.data.end(), X.data.begin(), X.data.end());
    all_w.insert(all_w.end(), w.begin(), w.end());
    EXPECT_LE(this->error(acc, sample_moments(all, all_w, p.center)), 10 * tolerance(p));
  }
}

TYPED_TEST(AutocorrelationTest, equal_weights_are_no_weights_and_repeated_samples_are_weights) {
  const HostMatrix<double> X = HostMatrix<double>::random(5, 40, 9);
  for (const auto& p : all_params()) {
    SCOPED_TRACE(text(p));
    Autocorrelation plain(this->context, 5, p), ones(this->context, 5, p), thirds(this->context, 5, p),
        twice(this->context, 5, p);
    this->add(plain, X);
    this->add(ones, X, std::vector<double>(40, 1.0));
    this->add(thirds, X, std::vector<double>(40, 1.0 / 3));
    this->add(twice, X);
    this->add(twice, X);
    EXPECT_TRUE(same_bits(plain.state(), ones.state()));
    const auto R = this->to_host(plain.matrix());
    EXPECT_LE(difference(this->to_host(thirds.matrix()), R), 3 * tolerance(p));
    EXPECT_LE(difference(this->to_host(twice.matrix()), R), 3 * tolerance(p));
    EXPECT_EQ(thirds.n_samples(), 40);
    EXPECT_NEAR(thirds.weight(), 40.0 / 3, 1e-13);
  }
}

TYPED_TEST(AutocorrelationTest, weights_of_any_scale_give_the_same_moments) {
  const HostMatrix<double> X = HostMatrix<double>::random(3, 20, 10);
  std::vector<double> w;
  for (int j = 0; j < 20; ++j) w.push_back(0.5 + 0.1 * j);
  for (const auto& p : all_params()) {
    const SampleMoments want = sample_moments(X, w, p.center);
    for (const double scale : {1e-250, 1e-60, 1e-30, 1e30, 1e60, 1e250}) {
      SCOPED_TRACE(text(p) + ", weights times " + std::to_string(std::log10(scale)));
      std::vector<double> scaled = w;
      for (double& v : scaled) v *= scale;
      Autocorrelation acc(this->context, 3, p);
      const std::string refused = refused_argument([&] { this->add(acc, X, scaled); });
      if (p.precision == Precision::single && std::abs(std::log10(scale)) > 35) {
        EXPECT_EQ(refused, "X");  // float32 products cannot hold them, and say so
        continue;
      }
      ASSERT_EQ(refused, "");
      SampleMoments scaled_want = want;
      scaled_want.weight *= scale;
      EXPECT_LE(this->error(acc, scaled_want), tolerance(p));
    }
  }
}

TYPED_TEST(AutocorrelationTest, weights_whose_products_vanish_are_refused_unless_larger_ones_are_there) {
  for (const auto& p : all_params()) {
    SCOPED_TRACE(text(p));
    Autocorrelation acc(this->context, 1, p);
    const HostMatrix<double> X{{1, 2, 2, 3}};
    const std::vector<double> tiny(4, 1e-320);  // 1 / sum overflows
    EXPECT_EQ(refused_argument([&] { this->add(acc, X, tiny); }), "weights");
    EXPECT_EQ(acc.n_samples(), 0);
    this->add(acc, X);
    if (p.precision == Precision::full) {
      this->add(acc, X, tiny);
      EXPECT_EQ(acc.n_samples(), 8);
    }
    EXPECT_NEAR(this->to_host(acc.matrix())(0, 0), p.center ? 0.5 : 4.5, 1e-6);
    EXPECT_NEAR(acc.mean()[0], 2, 1e-6);
  }
}

TYPED_TEST(AutocorrelationTest, covariance_of_data_far_from_zero_has_no_cancellation) {
  // mean 1e8, deviations of order 1: E[x x^T] - mean mean^T would be off by more than 1
  const index_t n = 5;
  for (const Method method : {Method::gram, Method::qr}) {
    Autocorrelation acc(this->context, n, {method, Precision::full, true}),
        other(this->context, n, {method, Precision::full, true});
    HostMatrix<double> all(n, 0);
    for (unsigned batch = 0; batch < 6; ++batch) {
      HostMatrix<double> X = HostMatrix<double>::random(n, 100 + batch, batch);
      for (double& x : X.data) x += 1e8 + 0.5 * batch;
      this->add(batch % 2 ? acc : other, X);
      all.data.insert(all.data.end(), X.data.begin(), X.data.end());
      all.cols += X.cols;
    }
    acc.merge(other);
    const SampleMoments want = sample_moments(all, {}, true);
    EXPECT_LE(difference(this->to_host(acc.matrix()), want.R), 1e-7);
    for (index_t i = 0; i < n; ++i)
      EXPECT_LE(relative(acc.mean()[static_cast<std::size_t>(i)], want.mean[static_cast<std::size_t>(i)]), 1e-15 * 4);
  }
}

TYPED_TEST(AutocorrelationTest, single_precision_centres_about_the_mean_of_the_data) {
  // the mean of float32 data may not be rounded in float32 sums: 1e4 beside deviations of 1, 40000 samples
  const index_t N = 40000;
  HostMatrix<float> X(2, N);
  const HostMatrix<double> Z = HostMatrix<double>::random(2, N, 31);
  for (std::size_t i = 0; i < X.data.size(); ++i) X.data[i] = static_cast<float>(1e4 + Z.data[i]);
  Autocorrelation acc(this->context, 2, {Method::gram, Precision::single, true});
  this->add(acc, X);
  const SampleMoments want = sample_moments(X, {}, true);
  EXPECT_LE(difference(this->to_host(acc.matrix()), want.R), 1e-5);
  EXPECT_LE(relative(acc.mean()[0], want.mean[0]), 1e-9);
}

TYPED_TEST(AutocorrelationTest, square_root_keeps_the_small_end_that_the_gram_matrix_loses) {
  std::vector<Real> s;  // 1 … 1e-12
  for (int i = 0; i < 7; ++i) s.push_back(std::pow(Real{10}, -2 * i));
  const index_t N = 300;
  const HostMatrix<double> X = with_singular_values(7, N, s, 3).as<double>();
  const std::vector<Real> want = jacobi_svd(real(X)).s;
  Autocorrelation root(this->context, 7, {Method::qr}), gram(this->context, 7);
  for (index_t at = 0; at < N; at += 50) {
    this->add(root, X.block(0, at, 7, 50));
    this->add(gram, X.block(0, at, 7, 50));
  }
  const std::vector<Real> got = jacobi_svd(real(this->to_host(root.factor()))).s;
  const Real scale = std::sqrt(static_cast<Real>(N));
  for (std::size_t i = 0; i < s.size(); ++i) EXPECT_LE(std::abs(got[i] * scale - want[i]), 4e-16L * want[0]) << i;
  EXPECT_LE(std::abs(got[6] * scale / want[6] - 1), 1e-3);
  const auto lost = jacobi_eigen(real(this->to_host(gram.matrix()))).values;
  EXPECT_GT(std::abs(std::sqrt(std::abs(lost[0])) * scale / want[6] - 1), 10);  // the reason why there is a qr
}

TYPED_TEST(AutocorrelationTest, single_precision_is_single_in_products_and_double_in_totals) {
  const HostMatrix<float> X = HostMatrix<float>::random(6, 500, 12);
  Autocorrelation full(this->context, 6), single(this->context, 6, {Method::gram, Precision::single});
  this->add(full, X);
  this->add(single, X);
  const double d = difference(this->to_host(full.matrix()), this->to_host(single.matrix()));
  EXPECT_GT(d, 1e-9);
  EXPECT_LT(d, 1e-6);
  // one sample of 2^24 + 1 parts beside many of one: a float32 total would stop counting
  Autocorrelation count(this->context, 1, {Method::gram, Precision::single});
  this->add(count, HostMatrix<float>{{4096}});
  for (int i = 0; i < 3; ++i) this->add(count, HostMatrix<float>{{1}});
  EXPECT_EQ(this->to_host(count.matrix())(0, 0), (16777216.0 + 3) / 4);
}

// More features than are added at a time; integers of which every sum is exact.
TYPED_TEST(AutocorrelationTest, narrow_products_of_many_features_are_added_in_panels) {
  constexpr index_t n = 600;
  HostMatrix<float> X = HostMatrix<float>::random(n, 20, 14);
  for (float& x : X.data) x = std::round(3 * x);
  Autocorrelation full(this->context, n);
  this->add(full, X);
  for (const auto precision : {Precision::single, Precision::tf32, Precision::bf16, Precision::fp16}) {
    Autocorrelation narrow(this->context, n, {Method::gram, precision});
    try {
      for (int i = 0; i < 2; ++i) this->add(narrow, X);
    } catch (const Unsupported&) {
      EXPECT_NE(precision, Precision::single);
      continue;
    }
    EXPECT_EQ(difference(this->to_host(narrow.matrix()), this->to_host(full.matrix())), 0);
  }
}

// --- state, copies, merges ----------------------------------------------------------------------------------------------

TYPED_TEST(AutocorrelationTest, a_saved_state_goes_on_where_it_was) {
  const HostMatrix<double> X = HostMatrix<double>::random(4, 60, 13);
  for (const auto& p : all_params()) {
    SCOPED_TRACE(text(p));
    Autocorrelation acc(this->context, 4, p);
    this->add(acc, X.block(0, 0, 4, 35));
    const AutocorrelationState saved = acc.state();
    EXPECT_EQ(saved.n_features, 4);
    EXPECT_EQ(saved.n_samples, 35);
    EXPECT_EQ(saved.weight, 35);
    EXPECT_EQ(saved.params.method, p.method);
    Autocorrelation loaded(this->context, saved);
    EXPECT_TRUE(same_bits(loaded.state(), saved));
    EXPECT_EQ(loaded.params().center, p.center);
    EXPECT_EQ(loaded.params().precision, p.precision);
    this->add(acc, X.block(0, 35, 4, 25));
    this->add(loaded, X.block(0, 35, 4, 25));
    EXPECT_TRUE(same_bits(loaded.state(), acc.state()));
    // the moment is the weighted sum, whole and symmetric, or its root L, row-major
    const SampleMoments want = sample_moments(X.block(0, 0, 4, 35), {}, p.center);
    HostMatrix<double> M(4, 4);
    M.data = saved.moment;  // row-major into column-major
    if (p.method == Method::gram) {
      EXPECT_EQ(difference(M, M.transposed()), 0);
      EXPECT_LE(difference(M, plus(RealMatrix(4, 4), 35, want.R)), 100 * tolerance(p));
    } else {
      EXPECT_LE(difference(times(M.transposed(), M), plus(RealMatrix(4, 4), 35, want.R)), 1e-13);
      EXPECT_EQ(saved.moment[1], 0);  // row 0, column 1
    }
  }
}

TYPED_TEST(AutocorrelationTest, a_state_that_does_not_fit_is_refused_by_field) {
  Autocorrelation acc(this->context, 2, {Method::qr});
  this->add(acc, HostMatrix<double>{{1, 2, 4}, {3, 4, 4}});
  const AutocorrelationState good = acc.state();
  const auto refused = [&](auto&& change) {
    AutocorrelationState s = good;
    change(s);
    return refused_argument([&] { Autocorrelation(this->context, s); });
  };
  EXPECT_EQ(refused([](auto&) {}), "");
  EXPECT_EQ(refused([](auto& s) { s.mean.pop_back(); }), "mean");
  EXPECT_EQ(refused([](auto& s) { s.mean[1] = kNaN; }), "mean");
  EXPECT_EQ(refused([](auto& s) { s.moment.pop_back(); }), "moment");
  EXPECT_EQ(refused([](auto& s) { s.moment[3] = kInf; }), "moment");
  EXPECT_EQ(refused([](auto& s) { s.weight = -1; }), "weight");
  EXPECT_EQ(refused([](auto& s) { s.weight = kNaN; }), "weight");
  EXPECT_EQ(refused([](auto& s) { s.weight = kInf; }), "weight");
  EXPECT_EQ(refused([](auto& s) { s.n_samples = -3; }), "n_samples");
  EXPECT_EQ(refused([](auto& s) { s.n_samples = 0; }), "n_samples");
  EXPECT_EQ(refused([](auto& s) { s.weight = 0; }), "moment");
  EXPECT_EQ(refused([](auto& s) { s.weight = 0, s.moment = {0, 0, 0, 0}; }), "n_samples");
  EXPECT_EQ(refused([](auto& s) { s.n_features = 0; }), "n_features");
  EXPECT_EQ(refused([](auto& s) { s.params.precision = Precision::single; }), "precision");
  // a root that is not lower triangular, a moment that is not symmetric or has a negative diagonal: not ours
  EXPECT_EQ(refused([](auto& s) { s.moment[1] = 1; }), "moment");
  EXPECT_EQ(refused([](auto& s) {
              s.params.method = Method::gram;
              s.moment = {1, 2, 3, 4};
            }),
            "moment");
  EXPECT_EQ(refused([](auto& s) {
              s.params.method = Method::gram;
              s.moment = {-1, 0, 0, 4};
            }),
            "moment");
}

TYPED_TEST(AutocorrelationTest, merging_with_itself_and_with_nothing) {
  const HostMatrix<double> X = HostMatrix<double>::random(3, 10, 14);
  for (const auto& p : all_params()) {
    SCOPED_TRACE(text(p));
    Autocorrelation acc(this->context, 3, p), none(this->context, 3, p);
    none.merge(none);
    EXPECT_EQ(none.n_samples(), 0);
    this->add(acc, X);
    const auto before = acc.state();
    acc.merge(none);
    EXPECT_TRUE(same_bits(acc.state(), before));
    none.merge(acc);
    EXPECT_EQ(none.n_samples(), 10);
    EXPECT_LE(difference(this->to_host(none.matrix()), this->to_host(acc.matrix())), tolerance(p));
    EXPECT_EQ(none.mean(), acc.mean());
    const auto R = this->to_host(acc.matrix());
    acc.merge(acc);
    EXPECT_EQ(acc.n_samples(), 20);
    EXPECT_LE(difference(this->to_host(acc.matrix()), R), 10 * tolerance(p));
    Autocorrelation moved = std::move(acc);
    EXPECT_EQ(moved.n_samples(), 20);
    acc = std::move(moved);
    EXPECT_EQ(acc.n_samples(), 20);
  }
}

TYPED_TEST(AutocorrelationTest, a_cleared_one_is_as_new) {
  const HostMatrix<double> X = HostMatrix<double>::random(3, 10, 14), Y = HostMatrix<double>::random(3, 7, 15);
  for (const auto& p : all_params()) {
    SCOPED_TRACE(text(p));
    Autocorrelation acc(this->context, 3, p), fresh(this->context, 3, p);
    this->add(acc, X);
    acc.clear();
    EXPECT_EQ(acc.n_samples(), 0);
    EXPECT_TRUE(same_bits(acc.state(), fresh.state()));
    this->add(acc, Y);
    this->add(fresh, Y);
    EXPECT_TRUE(same_bits(acc.state(), fresh.state()));
  }
}

TYPED_TEST(AutocorrelationTest, zero_data_and_one_feature) {
  for (const auto& p : all_params()) {
    SCOPED_TRACE(text(p));
    Autocorrelation zero(this->context, 3, p);
    this->add(zero, HostMatrix<double>(3, 5));
    EXPECT_EQ(difference(this->to_host(zero.matrix()), HostMatrix<double>(3, 3)), 0);
    Autocorrelation one(this->context, 1, p);
    this->add(one, HostMatrix<double>{{2}});
    EXPECT_EQ(this->to_host(one.matrix())(0, 0), p.center ? 0 : 4);
  }
}

// --- refusals -----------------------------------------------------------------------------------------------------------

TYPED_TEST(AutocorrelationTest, what_is_refused_is_named_and_changes_nothing) {
  const HostMatrix<double> X = HostMatrix<double>::random(3, 8, 15);
  for (const auto& p : all_params()) {
    SCOPED_TRACE(text(p));
    Autocorrelation acc(this->context, 3, p);
    this->add(acc, X);
    const AutocorrelationState before = acc.state();
    const auto update = [&](const HostMatrix<double>& Z, const std::vector<double>& w = {}) {
      return [&, Z, w] { this->add(acc, Z, w); };
    };
    const auto with = [&](index_t i, index_t j, double value) {
      HostMatrix<double> Z = X;
      Z(i, j) = value;
      return Z;
    };
    EXPECT_EQ(nonfinite_index(update(with(2, 5, kNaN))), "X(5, 2)");
    EXPECT_EQ(nonfinite_index(update(with(0, 7, -kInf))), "X(7, 0)");
    EXPECT_EQ(nonfinite_index(update(with(1, 6, kNaN), {0, 1, 0, 1, 1, 0, 2, 0})), "X(6, 1)");
    EXPECT_EQ(refused_argument(update(with(2, 5, 1e150))), "X");
    EXPECT_EQ(refused_argument(update(with(2, 5, -1e300))), "X");
    EXPECT_EQ(refused_argument(update(X, {1, 1, 1, 1, 1, -1e-9, 1, 1})), "weights");
    EXPECT_EQ(refused_argument(update(X, {1, 1, 1, kNaN, 1, 1, 1, 1})), "weights");
    EXPECT_EQ(refused_argument(update(X, {1, 1, 1, kInf, 1, 1, 1, 1})), "weights");
    try {
      update(X, {1, 1, 1, kNaN, 1, 1, 1, 1})();
    } catch (const InvalidArgument& e) {
      EXPECT_NE(std::string(e.what()).find("index 3"), std::string::npos) << e.what();
    }
    EXPECT_EQ(refused_argument(update(X, std::vector<double>(8, 1e308))), "weights");
    EXPECT_EQ(refused_argument(update(HostMatrix<double>::random(4, 8, 1))), "X");
    const auto device = this->to_device(X);
    SampleView v = samples_of(device);
    v.ld = 2;
    EXPECT_EQ(refused_argument([&] { acc.update(v); }), "X");
    v = samples_of(device), v.data = nullptr;
    EXPECT_EQ(refused_argument([&] { acc.update(v); }), "X");
    v = samples_of(device), v.n_samples = -1;
    EXPECT_EQ(refused_argument([&] { acc.update(v); }), "X");
    EXPECT_EQ(refused_argument([&] { acc.merge(Autocorrelation(this->context, 4, p)); }), "other");
    for (const auto& q : all_params()) {
      const bool same = q.method == p.method && q.center == p.center && q.precision == p.precision;
      EXPECT_EQ(refused_argument([&] { acc.merge(Autocorrelation(this->context, 3, q)); }), same ? "" : "other");
    }
    if (p.precision == Precision::single) {
      EXPECT_EQ(refused_argument(update(with(0, 0, 1e18))), "X");
      EXPECT_EQ(refused_argument(update(HostMatrix<double>(3, 2, 1e-19))), "X");
    }
    update(X, std::vector<double>(8, 0.0))();  // nothing counts
    EXPECT_TRUE(same_bits(acc.state(), before));
    this->add(acc, X);  // and it goes on
    EXPECT_EQ(acc.n_samples(), 16);
  }
}

TYPED_TEST(AutocorrelationTest, refusals_that_need_no_data) {
  EXPECT_EQ(refused_argument([&] { Autocorrelation(this->context, 0); }), "n_features");
  EXPECT_EQ(refused_argument([&] { Autocorrelation(this->context, -3); }), "n_features");
  EXPECT_EQ(refused_argument([&] { Autocorrelation(this->context, 2, {Method::qr, Precision::single}); }), "precision");
  Autocorrelation acc(this->context, 2);
  EXPECT_EQ(refused_argument([&] { acc.matrix(); }), "Autocorrelation");
  EXPECT_EQ(refused_argument([&] { acc.mean(); }), "Autocorrelation");
  EXPECT_EQ(refused_argument([&] { acc.factor(); }), "method");
  EXPECT_EQ(refused_argument([&] { Autocorrelation(this->context, 2, {Method::qr}).factor(); }), "Autocorrelation");
  EXPECT_EQ(acc.state().n_samples, 0);
}

TYPED_TEST(AutocorrelationTest, magnitudes_whose_squares_leave_float64_are_refused) {
  for (const Method method : {Method::gram, Method::qr}) {
    for (const bool center : {false, true}) {
      Autocorrelation acc(this->context, 2, {method, Precision::full, center});
      EXPECT_EQ(refused_argument([&] { this->add(acc, HostMatrix<double>{{1e-151, 0}, {1e-160, 1e-155}}); }), "X");
      EXPECT_EQ(acc.n_samples(), 0);
      for (const double scale : {1e-149, 1e149}) {
        Autocorrelation scaled(this->context, 2, {method, Precision::full, center});
        const HostMatrix<double> X{{scale, 3 * scale}, {-2 * scale, scale}};
        this->add(scaled, X);
        EXPECT_LE(this->error(scaled, sample_moments(X, {}, center)), 1e-13);
      }
      // small samples beside larger ones are harmless, and so are zeros
      this->add(acc, HostMatrix<double>{{1, 0}, {2, 0}});
      this->add(acc, HostMatrix<double>{{1e-160, 0}, {0, 0}});
      EXPECT_EQ(acc.n_samples(), 4);
    }
  }
}

TYPED_TEST(AutocorrelationTest, totals_that_would_overflow_are_refused) {
  for (const Method method : {Method::gram, Method::qr}) {
    Autocorrelation acc(this->context, 1, {method});
    this->add(acc, HostMatrix<double>{{9e149}});
    std::string refused;
    int doublings = 0;
    for (; refused.empty() && doublings < 100; ++doublings) {
      const auto before = acc.state();
      refused = refused_argument([&] { acc.merge(acc); });
      EXPECT_TRUE(refused.empty() || same_bits(acc.state(), before));
      ASSERT_NEAR(this->to_host(acc.matrix())(0, 0) / 8.1e299, 1, 1e-12) << doublings;
    }
    EXPECT_EQ(refused, "other");
    EXPECT_GT(doublings, 20);
    // updates by weight
    Autocorrelation heavy(this->context, 1, {method});
    refused.clear();
    for (double w = 1; refused.empty() && w < 1e300; w *= 1e3) {
      refused = refused_argument([&] { this->add(heavy, HostMatrix<double>{{1e145}}, {w}); });
      ASSERT_NEAR(this->to_host(heavy.matrix())(0, 0) / 1e290, 1, 1e-12) << w;
    }
    EXPECT_EQ(refused, "weights");
  }
}

TYPED_TEST(AutocorrelationTest, an_interrupt_between_blocks_changes_nothing) {
  const index_t n = 2, N = 4 * 65536 + 5;
  const HostMatrix<double> X = HostMatrix<double>::random(n, N, 16);
  const auto device = this->to_device(X);
  for (const auto& p : all_params()) {
    SCOPED_TRACE(text(p));
    auto left = std::make_shared<int>(-1);
    Context stoppable = this->context;
    stoppable.set_interrupt([left] { return (*left)-- == 0; });
    Autocorrelation acc(stoppable, n, p);
    this->add(acc, HostMatrix<double>{{1, 2}, {3, 5}});
    const AutocorrelationState before = acc.state();
    int interrupted = 0;
    for (;; ++interrupted) {
      *left = interrupted;
      try {
        acc.update(samples_of(device));
      } catch (const Interrupted&) {
        ASSERT_TRUE(same_bits(acc.state(), before)) << "after check " << interrupted;
        continue;
      }
      break;
    }
    EXPECT_EQ(interrupted, 5);  // one check a block
    EXPECT_EQ(acc.n_samples(), N + 2);
    HostMatrix<double> all(n, N + 2);
    all.data = {1, 3, 2, 5};
    all.data.insert(all.data.end(), X.data.begin(), X.data.end());
    EXPECT_LE(this->error(acc, sample_moments(all, {}, p.center)), 10 * tolerance(p));
  }
}

TYPED_TEST(AutocorrelationTest, a_check_that_throws_is_passed_on) {
  Context stoppable = this->context;
  stoppable.set_interrupt([]() -> bool { throw std::domain_error("ctrl-c"); });
  Autocorrelation acc(stoppable, 1);
  const auto device = this->to_device(HostMatrix<double>(1, 70000, 1.0));
  EXPECT_THROW(acc.update(samples_of(device)), std::domain_error);
  EXPECT_EQ(acc.n_samples(), 0);
}

TYPED_TEST(AutocorrelationTest, other_backends_are_refused) {
  if constexpr (TypeParam::apart) {
    Autocorrelation here(this->context, 1), there(Context{}, 1);
    this->add(here, HostMatrix<double>{{1}});
    const double two = 2;
    there.update(samples(&two, 1, 1));
    EXPECT_EQ(refused_argument([&] { here.merge(there); }), "other");
    EXPECT_EQ(refused_argument([&] { there.merge(here); }), "other");
    EXPECT_EQ(here.n_samples(), 1);
    // a state carries from one to another
    EXPECT_EQ(Autocorrelation(this->context, there.state()).n_samples(), 1);
  } else {
    Autocorrelation here(this->context, 1), there(Context{}, 1);  // default contexts share the host backend
    const double two = 2;
    there.update(samples(&two, 1, 1));
    here.merge(there);
    EXPECT_EQ(here.n_samples(), 1);
  }
}

// --- memory -------------------------------------------------------------------------------------------------------------

TEST(AutocorrelationMemory, a_failing_allocation_changes_nothing_and_leaks_nothing) {
  const auto backend = make_guarded_backend();
  const Context context{backend};
  const DeviceMatrix<double> few(*backend, HostMatrix<double>::random(3, 20, 20));
  const DeviceMatrix<double> many(*backend, HostMatrix<double>::random(3, 140000, 21));
  const std::vector<double> weights(140000, 0.5);
  for (const auto& p : all_params()) {
    SCOPED_TRACE(text(p));
    Autocorrelation acc(context, 3, p), other(context, 3, p), twin(context, 3, p);
    for (Autocorrelation* a : {&acc, &other, &twin}) a->update(samples_of(few));
    const AutocorrelationState before = acc.state();
    for (const auto* X : {&few, &many}) {
      for (const bool weighted : {false, true}) {
        for (std::size_t k = 0;; ++k) {
          const std::size_t live = backend->live_allocations();
          backend->fail_allocation_after(k);
          bool failed = false;
          try {
            acc.update(samples_of(*X), weighted ? weights.data() : nullptr);
          } catch (const OutOfMemory&) {
            failed = true;
          }
          backend->cancel_failure();
          ASSERT_EQ(backend->live_allocations(), live);
          if (!failed) {
            EXPECT_GE(k, 2u);
            break;
          }
          ASSERT_TRUE(same_bits(acc.state(), before)) << k;
        }
        twin.update(samples_of(*X), weighted ? weights.data() : nullptr);
        EXPECT_TRUE(same_bits(acc.state(), twin.state()));  // usable, as if nothing had failed
        acc = Autocorrelation(context, before);
        twin = Autocorrelation(context, before);
      }
    }
    for (std::size_t k = 0;; ++k) {
      backend->fail_allocation_after(k);
      bool failed = false;
      try {
        acc.merge(other);
      } catch (const OutOfMemory&) {
        failed = true;
      }
      backend->cancel_failure();
      if (!failed) break;
      ASSERT_TRUE(same_bits(acc.state(), before)) << k;
    }
    EXPECT_EQ(acc.n_samples(), 40);
    EXPECT_GE(sweep_failing_allocations(*backend, [&] { acc.matrix(); }), 1u);
    EXPECT_GE(sweep_failing_allocations(*backend, [&] { acc.state(); }), 1u);
    EXPECT_GE(sweep_failing_allocations(*backend, [&] { Autocorrelation(context, before); }), 1u);
    if (p.method == Method::qr) {
      EXPECT_GE(sweep_failing_allocations(*backend, [&] { acc.factor(); }), 1u);
    }
  }
}

}  // namespace
}  // namespace brockett::test
