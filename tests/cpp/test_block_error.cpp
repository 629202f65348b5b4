#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "descramble_fixture.hpp"

namespace brockett::test {
namespace {

template <class E>
class BlockErrorTest : public DescrambleFixture<E> {};
TYPED_TEST_SUITE(BlockErrorTest, Engines, EngineNames);

/// sqrt(min(d, (1/N) sum_{i in b, j not in b} m_ij / (s_i - s_j)^2))
std::vector<Real> error_bars(const Problem& p, index_t N, const RealMatrix& m) {
  std::vector<Real> out;
  for (std::size_t b = 0; b + 1 < p.blocks.size(); ++b) {
    Real sum = 0;
    for (index_t i = p.blocks[b]; i < p.blocks[b + 1]; ++i) {
      for (index_t j = 0; j < p.n(); ++j) {
        if (j >= p.blocks[b] && j < p.blocks[b + 1]) continue;
        const Real gap = p.variances[static_cast<std::size_t>(i)] - p.variances[static_cast<std::size_t>(j)];
        sum += gap == 0 ? std::numeric_limits<Real>::infinity() : m(i, j) / (gap * gap);
      }
    }
    out.push_back(std::sqrt(std::min(static_cast<Real>(p.blocks[b + 1] - p.blocks[b]), sum / static_cast<Real>(N))));
  }
  return out;
}

TYPED_TEST(BlockErrorTest, error_bars_by_hand) {
  // n = 2, variances 4 and 1, N = 8: both blocks have sqrt(4 * 1 / (4 - 1)^2 / 8)
  const auto r = this->run(this->covariance(RealMatrix{{4, 0}, {0, 1}}, 8));
  ASSERT_EQ(r.block_error.size(), 2u);
  EXPECT_NEAR(r.block_error[0], std::sqrt(4.0 / 9 / 8), 1e-15);
  EXPECT_NEAR(r.block_error[1], std::sqrt(4.0 / 9 / 8), 1e-15);
  EXPECT_EQ(r.error_model, "gaussian");
  // equal variances across blocks: nothing is known, the cap sqrt(d) holds; n = 3 has blocks of 1 and 2
  const auto white = this->run(this->covariance(RealMatrix::identity(3), 1000));
  ASSERT_EQ(white.block_error.size(), 2u);
  EXPECT_EQ(white.block_error[0], 1);
  EXPECT_NEAR(white.block_error[1], std::sqrt(2.0), 1e-15);
  EXPECT_EQ(this->run(this->covariance(RealMatrix(3, 3), 5)).block_error[0], 1);
  // one sample y = (3, 4): z = (5, 0), so the mixed moment is 0
  const auto one = this->to_device(HostMatrix<double>{{3}, {4}});
  const auto m = this->run(Preactivations::from_samples(this->context, samples_of(one)));
  EXPECT_EQ(m.error_model, "moments");
  EXPECT_NEAR(m.block_error[0], 0, 1e-15);
}

TYPED_TEST(BlockErrorTest, a_null_space_that_crosses_blocks_is_arbitrary_in_both) {
  // rank 2 of 5, blocks {0}, {1, 2}, {3, 4}: the zeros come as 1e-17 or so, whose ratios mean nothing
  for (const unsigned seed : {1u, 2u, 3u, 4u, 5u, 6u}) {
    const auto r = this->run(this->covariance(with_eigenvalues({7, 3, 0, 0, 0}, seed), 100000));
    ASSERT_EQ(r.block_error.size(), 3u);
    EXPECT_LT(r.block_error[0], 0.1);
    EXPECT_NEAR(r.block_error[1], std::sqrt(2.0), 1e-15);
    EXPECT_NEAR(r.block_error[2], std::sqrt(2.0), 1e-15);
  }
}

TYPED_TEST(BlockErrorTest, error_bars_equal_their_formulas) {
  using T = typename TypeParam::T;
  const index_t n = 7, N = 400;
  RealMatrix Y =
      times(random_orthonormal(n, n, 360), times(RealMatrix::diagonal(falling(n, 0.7L)), random_real(n, N, 361)));
  for (index_t j = 0; j < N; ++j) {
    for (index_t i = 0; i < n; ++i) Y(i, j) *= j % 5 ? 1 : 3;  // heavy tails
  }
  const HostMatrix<double> samples64 = Y.as<double>();
  const auto device = this->to_device(samples64);
  const auto I = this->to_device(HostMatrix<T>::identity(n));
  for (const bool center : {false, true}) {
    const SampleMoments moments = sample_moments(samples64, {}, center);
    const Problem p(fourier_penalty(n, 2), moments.R);
    RealMatrix gaussian(n, n), fourth(n, n);
    RealMatrix Z = real(samples64);
    for (index_t j = 0; j < N && center; ++j) {
      for (index_t i = 0; i < n; ++i) Z(i, j) -= moments.mean[static_cast<std::size_t>(i)];
    }
    Z = times(p.U.transposed(), Z);
    for (index_t i = 0; i < n; ++i) {
      for (index_t j = 0; j < n; ++j) {
        gaussian(i, j) = p.variances[static_cast<std::size_t>(i)] * p.variances[static_cast<std::size_t>(j)];
        for (index_t k = 0; k < N; ++k) fourth(i, j) += Z(i, k) * Z(i, k) * Z(j, k) * Z(j, k) / static_cast<Real>(N);
      }
    }
    const auto want_g = error_bars(p, N, gaussian), want_m = error_bars(p, N, fourth);
    AutocorrelationParams ap;
    ap.center = center;
    Autocorrelation acc(this->context, n, ap);
    acc.update(samples_of(device));
    const auto g = this->run(Preactivations::from_autocorrelation<T>(this->context, I.view(), acc, nullptr, center));
    const auto m = this->run(Preactivations::from_samples(this->context, samples_of(device), center));
    const auto mi =
        this->run(Preactivations::from_inputs<T>(this->context, I.view(), samples_of(device), nullptr, center));
    ASSERT_EQ(g.block_error.size(), want_g.size());
    for (std::size_t b = 0; b < want_g.size(); ++b) {
      EXPECT_NEAR(g.block_error[b], static_cast<double>(want_g[b]), 1e-10);
      EXPECT_NEAR(m.block_error[b], static_cast<double>(want_m[b]), 1e-10);
      EXPECT_NEAR(mi.block_error[b], static_cast<double>(want_m[b]), 1e-10);
    }
    EXPECT_GT(std::abs(want_m[0] / want_g[0] - 1), 0.2L);  // the two models differ here
  }
  DescrambleParams quick;
  quick.verify = false;
  const auto off = this->run(Preactivations::from_samples(this->context, samples_of(device)), quick);
  EXPECT_TRUE(off.block_error.empty());
  EXPECT_EQ(off.error_model, "");
  EXPECT_TRUE(std::isnan(off.cost));
  EXPECT_TRUE(std::isnan(off.identity_cost));
  EXPECT_GT(off.optimum, 0);
}

/// Mean over `repeats` draws of N samples of what f(Y, seed) makes of them.
std::vector<Real> mean_over_draws(int repeats, index_t n,
                                  const std::function<std::vector<Real>(const HostMatrix<double>&)>& f,
                                  const std::vector<Real>& deviations, index_t N, bool heavy) {
  std::vector<Real> mean;
  for (int t = 0; t < repeats; ++t) {
    HostMatrix<double> Y = HostMatrix<double>::random(n, N, 5000 + static_cast<unsigned>(t));
    std::mt19937_64 bits(static_cast<unsigned>(t));
    for (index_t j = 0; j < N; ++j) {
      const double radius = !heavy ? 1 : bits() % 5 ? 0.5 : 2;  // E r^2 = 1, E r^4 = 3.25
      for (index_t i = 0; i < n; ++i) Y(i, j) *= radius * static_cast<double>(deviations[static_cast<std::size_t>(i)]);
    }
    const auto v = f(Y);
    mean.resize(v.size());
    for (std::size_t i = 0; i < v.size(); ++i) mean[i] += v[i] / static_cast<Real>(repeats);
  }
  return mean;
}

TEST(BlockErrorMonteCarlo, are_what_a_monte_carlo_finds) {
  const Context context;
  const index_t n = 4, N = 500;
  const std::vector<Real> deviations{3, 2, 1.5L, 0.8L};
  const RealMatrix A = fourier_penalty(n, 2);  // blocks {0}, {1, 2}, {3}; the truth is U = I
  const std::vector<index_t> blocks{0, 1, 3, 4};
  const auto sines = [&](const HostMatrix<double>& Y) {  // ||sin Theta_b||_F^2 of the sample's subspaces
    const Problem p(A, sample_moments(Y).R);
    std::vector<Real> out;
    for (std::size_t b = 0; b + 1 < blocks.size(); ++b) {
      Real sum = 0;
      for (index_t j = blocks[b]; j < blocks[b + 1]; ++j) {
        for (index_t i = 0; i < n; ++i) sum += i >= blocks[b] && i < blocks[b + 1] ? 0 : p.U(i, j) * p.U(i, j);
      }
      out.push_back(sum);
    }
    return out;
  };
  const auto squares = [](const std::vector<double>& e) {
    std::vector<Real> out;
    for (const double v : e) out.push_back(static_cast<Real>(v) * v);
    return out;
  };
  HostMatrix<double> C(n, n);
  for (index_t i = 0; i < n; ++i)
    C(i, i) = static_cast<double>(deviations[static_cast<std::size_t>(i)] * deviations[static_cast<std::size_t>(i)]);
  const auto gaussian =
      squares(descramble<double>(context, Preactivations::from_covariance(context, C.view(), N), {}).block_error);
  const auto normal = mean_over_draws(400, n, sines, deviations, N, false);
  const auto heavy = mean_over_draws(400, n, sines, deviations, N, true);
  const auto moments = mean_over_draws(
      100, n,
      [&](const HostMatrix<double>& Y) {
        const SampleView v = samples(Y.data.data(), N, n);
        return squares(descramble<double>(context, Preactivations::from_samples(context, v), {}).block_error);
      },
      deviations, N, true);
  for (std::size_t b = 0; b < 3; ++b) {
    EXPECT_NEAR(static_cast<double>(gaussian[b] / normal[b]), 1, 0.2) << b;
    EXPECT_NEAR(static_cast<double>(moments[b] / heavy[b]), 1, 0.3) << b;
    EXPECT_LT(gaussian[b] / heavy[b], 0.5L) << b;  // the Gaussian formula is for Gaussian data
  }
}

}  // namespace
}  // namespace brockett::test
