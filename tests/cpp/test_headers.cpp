// The public headers as a program that embeds brockett uses them: host memory, the default Context, nothing private.
#include <gtest/gtest.h>
#include <brockett/brockett.hpp>

#include <atomic>
#include <cmath>
#include <cstring>
#include <future>
#include <limits>
#include <numbers>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

namespace {

using brockett::index_t;
using brockett::MatrixView;
using brockett::Order;

// --- what the types promise -------------------------------------------------------------------------------------------------

static_assert(std::is_trivially_copyable_v<MatrixView<float>>);
static_assert(std::is_trivially_copyable_v<brockett::SampleView>);
static_assert(std::is_convertible_v<MatrixView<double>, MatrixView<const double>>);
static_assert(!std::is_convertible_v<MatrixView<const double>, MatrixView<double>>);
static_assert(!std::is_convertible_v<MatrixView<float>, MatrixView<const double>>);
static_assert(std::is_copy_constructible_v<brockett::Context>);
static_assert(std::is_nothrow_move_constructible_v<brockett::Autocorrelation>);
static_assert(std::is_nothrow_move_assignable_v<brockett::Autocorrelation>);
static_assert(
    !std::is_copy_constructible_v<brockett::Autocorrelation>);  // n^2 numbers are not copied by accident: state()
static_assert(std::is_nothrow_move_constructible_v<brockett::Preactivations>);
static_assert(!std::is_copy_constructible_v<brockett::Preactivations>);
static_assert(std::is_copy_constructible_v<brockett::Descrambling<float>>);
static_assert(std::is_copy_constructible_v<brockett::Svd<double>>);
static_assert(std::is_base_of_v<std::runtime_error, brockett::Error>);
static_assert(std::is_base_of_v<brockett::Error, brockett::NonFinite>);
static_assert(std::is_base_of_v<brockett::InvalidArgument, brockett::NonFinite>);
static_assert(!std::is_base_of_v<brockett::InvalidArgument, brockett::OutOfMemory>);

TEST(Headers, views_read_memory_as_it_is_said_to_lie) {
  double x[12] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
  const MatrixView<double> rows(x, 3, 4), columns(x, 3, 4, Order::column_major), padded(x, 2, 3, 5, Order::row_major);
  EXPECT_EQ(rows.ld, 4);
  EXPECT_EQ(columns.ld, 3);
  EXPECT_EQ(rows(1, 2), 6);
  EXPECT_EQ(columns(1, 2), 7);
  EXPECT_EQ(padded(1, 2), 7);
  EXPECT_EQ(rows.transposed()(2, 1), 6);
  EXPECT_EQ(rows.transposed().rows, 4);
  EXPECT_EQ(&rows.transposed().transposed()(2, 3), &rows(2, 3));
  EXPECT_EQ(rows.size(), 12);
  EXPECT_TRUE(MatrixView<double>().empty());
  rows(0, 0) = 5;
  const MatrixView<const double> same = rows;
  EXPECT_EQ(same(0, 0), 5);
}

TEST(Headers, arrays_share_what_they_own) {
  brockett::Array<double> a;
  EXPECT_TRUE(a.empty());
  std::weak_ptr<double> watch;
  {
    const double D[] = {4, 0, 0, 9};
    brockett::Svd<double> r = brockett::svd(brockett::Context(), MatrixView<const double>(D, 2, 2));
    a = r.U;
    watch = r.U.owner();
    EXPECT_EQ(a.data(), r.U.data());
  }
  EXPECT_FALSE(watch.expired());
  EXPECT_EQ(a.rows(), 2);
  EXPECT_EQ(std::abs(a(1, 0)), 1);  // usable after the result and its Context are gone
  EXPECT_EQ(a.transposed()(0, 1), a(1, 0));
  EXPECT_EQ(a.view()(1, 0), a(1, 0));
  a = {};
  EXPECT_TRUE(watch.expired());
}

// --- a pipeline, as in the README: samples in batches, R, P, the descrambled layer ------------------------------------------

/// Circular moving sums of white noise: neighbouring inputs are alike.
std::vector<float> smooth_samples(int n_samples, int n, unsigned seed) {
  std::vector<float> x(static_cast<std::size_t>(n_samples * n));
  std::uint64_t state = seed;
  for (int i = 0; i < n_samples; ++i) {
    std::vector<double> z(static_cast<std::size_t>(n));
    for (double& v : z) {
      state = state * 6364136223846793005ULL + 1442695040888963407ULL;
      v = static_cast<double>(state >> 11) * 0x1p-53 - 0.5;
    }
    for (int j = 0; j < n; ++j) {
      double sum = 0;
      for (int k = 0; k < 5; ++k) sum += z[static_cast<std::size_t>((j + k) % n)];
      x[static_cast<std::size_t>(i * n + j)] = static_cast<float>(sum);
    }
  }
  return x;
}

TEST(Headers, a_pipeline_from_batches_to_a_descrambled_layer) {
  const int n = 12, m = 12, n_samples = 2000, batch = 128;
  const std::vector<float> x = smooth_samples(n_samples, m, 1);
  std::vector<float> W(static_cast<std::size_t>(n * m));  // a permutation of the inputs: scrambled on purpose
  for (int i = 0; i < n; ++i) W[static_cast<std::size_t>(i * m + i * 5 % m)] = 1;

  const brockett::Context context;
  brockett::Autocorrelation R(context, m);
  for (int i = 0; i < n_samples; i += batch) {
    R.update(brockett::samples(x.data() + i * m, std::min(batch, n_samples - i), m));
  }
  const MatrixView<const float> layer(W.data(), n, m);
  const auto y = brockett::Preactivations::from_autocorrelation(context, layer, R);
  const brockett::Descrambling<float> d = brockett::descramble(context, y, layer);

  EXPECT_EQ(R.n_samples(), n_samples);
  EXPECT_NEAR(d.cost / d.optimum, 1, 1e-5);
  EXPECT_LT(d.optimum, 0.2 * d.identity_cost);
  EXPECT_EQ(d.rank, n);
  EXPECT_EQ(d.block_error.size() + 1, d.blocks.size());
  EXPECT_EQ(d.error_model, "gaussian");
  for (index_t i = 0; i < n; ++i) {
    for (index_t j = 0; j < m; ++j) {
      float pw = 0;
      for (index_t k = 0; k < n; ++k) pw += d.P(i, k) * layer(k, j);
      EXPECT_NEAR(d.weights(i, j), pw, 1e-5);
    }
  }
  // the order of neurons that undoes the scrambling
  brockett::DescrambleParams p;
  p.group = brockett::DescrambleParams::Group::permutation;
  const auto q = brockett::descramble(context, y, layer, p);
  for (std::size_t i = 0; i + 1 < q.permutation.size(); ++i) {
    const auto input = [&](std::size_t k) { return q.permutation[k] * 5 % m; };
    const auto step = (input(i + 1) - input(i) + m) % m;
    EXPECT_TRUE(step == 1 || step == m - 1) << "neighbours in the order read neighbouring inputs";
  }
}

TEST(Headers, every_function_is_there_in_both_precisions) {
  const brockett::Context context;
  const auto check = [&]<class T>(T) {
    const T W[] = {3, 1, 0, 2};
    const MatrixView<const T> w(W, 2, 2);
    const double I[] = {1, 0, 0, 1}, bias[] = {1, 2};
    const MatrixView<const double> identity(I, 2, 2);
    EXPECT_EQ(brockett::svd(context, w).s.size(), 2u);
    EXPECT_NEAR(brockett::singular_values(context, w).values[0] * brockett::singular_values(context, w).values[1], 6,
                1e-5);
    EXPECT_NEAR(brockett::whitened_svd(context, w, identity, 1).error, brockett::svd(context, w).s[1], 1e-5);
    EXPECT_EQ(brockett::Preactivations::from_matrix(context, w, identity, 7).n_samples(), 7);
    EXPECT_EQ(brockett::Preactivations::isotropic(context, w, bias).matrix()(0, 0), 11);
    const T x[] = {1, 2, 3, 4};
    const auto y = brockett::Preactivations::from_inputs(context, w, brockett::samples(x, 2, 2), bias, true);
    EXPECT_EQ(brockett::descramble(context, y, w).P.rows(), 2);
    EXPECT_GT(brockett::diagonalize(context, w).value, 4.9);
  };
  check(1.0F);
  check(1.0);
  const double I[] = {1, 0, 0, 1};
  const MatrixView<const double> identity(I, 2, 2);
  EXPECT_NEAR(brockett::brockett_cost(context, identity, identity).value, 1, 1e-15);
  EXPECT_EQ(brockett::eigenvalues(context, brockett::grid({2, 2}, 1), 4), std::vector<double>({0, 1, 1, 2}));
  EXPECT_NEAR(brockett::basis(context, brockett::finite_difference(1, brockett::Boundary::neumann), 2)(0, 0),
              1 / std::numbers::sqrt2, 1e-15);
  EXPECT_NEAR(brockett::matrix(context, brockett::fourier_derivative(), 2)(0, 1), -0.5, 1e-15);
}

// --- errors, interrupts, threads --------------------------------------------------------------------------------------------

TEST(Headers, errors_are_one_family_that_tells_what_and_where) {
  const brockett::Context context;
  const double bad[] = {1, 2, std::numeric_limits<double>::quiet_NaN(), 4};
  try {
    brockett::svd(context, MatrixView<const double>(bad, 2, 2));
    FAIL();
  } catch (const brockett::Error& e) {
    EXPECT_STREQ(e.what(), "A: NaN or Inf at index (1, 0)");
    const auto* where = dynamic_cast<const brockett::NonFinite*>(&e);
    ASSERT_NE(where, nullptr);
    EXPECT_EQ(where->argument(), "A");
    EXPECT_EQ(where->row(), 1);
    EXPECT_EQ(where->column(), 0);
  }
  EXPECT_THROW(brockett::fourier_derivative(-1), brockett::InvalidArgument);
  EXPECT_THROW(brockett::Context(std::shared_ptr<brockett::linalg::Backend>()), brockett::InvalidArgument);
  EXPECT_STREQ(brockett::Interrupted().what(), "interrupted");
}

TEST(Headers, an_interrupt_stops_work_and_copies_of_a_context_keep_their_own) {
  brockett::Context context;
  const brockett::Context calm = context;
  int asked = 0;
  context.set_interrupt([&] { return ++asked > 0; });
  const double A[] = {2, 1, 1, 3};
  brockett::SvdParams p;
  p.method = brockett::SvdParams::Method::quick;
  EXPECT_THROW(brockett::svd(context, MatrixView<const double>(A, 2, 2), p), brockett::Interrupted);
  EXPECT_EQ(asked, 1);
  EXPECT_EQ(brockett::svd(calm, MatrixView<const double>(A, 2, 2), p).s.size(), 2u);
  EXPECT_NO_THROW(calm.check_interrupt());
  EXPECT_THROW(context.check_interrupt(), brockett::Interrupted);
  EXPECT_EQ(&calm.backend(), &context.backend());
}

TEST(Headers, a_context_serves_several_threads) {
  const brockett::Context context;
  const std::vector<float> x = smooth_samples(400, 9, 3);
  const auto work = [&] {
    brockett::Autocorrelation R(context, 9);
    R.update(brockett::samples(x.data(), 400, 9));
    const brockett::Array<double> C = R.matrix();
    const MatrixView<const double> c = C.view();
    return brockett::descramble<double>(context, brockett::Preactivations::from_covariance(context, c, 400), {}).cost;
  };
  const double want = work();
  std::vector<std::future<double>> results;
  for (int i = 0; i < 4; ++i) results.push_back(std::async(std::launch::async, work));
  for (auto& r : results) EXPECT_EQ(r.get(), want);
}

TEST(Headers, parallel_for_runs_every_index_once_and_passes_errors_on) {
  const brockett::Context context;
  std::vector<std::atomic<int>> seen(100);
  brockett::parallel_for(context, 100, [&](std::int64_t i) { ++seen[static_cast<std::size_t>(i)]; });
  for (const auto& s : seen) EXPECT_EQ(s, 1);
  brockett::parallel_for(context, 0, [&](std::int64_t) { FAIL(); });
  try {
    brockett::parallel_for(context, 50, [&](std::int64_t i) {
      if (i >= 7) throw brockett::InvalidArgument("item", std::to_string(i));
    });
    FAIL();
  } catch (const brockett::InvalidArgument& e) {
    EXPECT_STREQ(e.what(), "item: 7");
  }
}

TEST(Headers, threads_are_counted_and_versions_told) {
  const int before = brockett::threads();
  EXPECT_GE(before, 1);
  brockett::set_threads(1);
  EXPECT_EQ(brockett::threads(), 1);
  brockett::set_threads(0);
  EXPECT_EQ(brockett::threads(), before);
  int major = -1, minor = -1, patch = -1;
  EXPECT_EQ(std::sscanf(brockett::version(), "%d.%d.%d", &major, &minor, &patch), 3);
  EXPECT_GE(major, 0);
  EXPECT_FALSE(brockett::blas_info().empty());
}

}  // namespace
