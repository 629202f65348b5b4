// The Marchenko-Pastur law, its bulk and spikes, and power-law tails, against sums, quadrature and brute force.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "brockett/error.hpp"
#include "brockett/random_matrix.hpp"
#include "reference.hpp"

namespace brockett::test {
namespace {

using Numbers = std::vector<double>;
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

Numbers pareto(index_t n, double alpha, unsigned seed) {
  std::mt19937_64 bits(seed);
  std::uniform_real_distribution<double> u(0, 1);
  Numbers x(static_cast<std::size_t>(n));
  for (double& v : x) v = std::pow(1 - u(bits), -1 / (alpha - 1));
  return x;
}

Numbers lognormal(index_t n, unsigned seed) {
  std::mt19937_64 bits(seed);
  std::normal_distribution<double> z;
  Numbers x(static_cast<std::size_t>(n));
  for (double& v : x) v = std::exp(z(bits));
  return x;
}

/// Every candidate, every value of its tail, in long double.
struct Brute {
  Real alpha = 0, distance = 2;
  double xmin = 0;
};
Brute brute_force(Numbers x, double low = 0, double high = kInf) {
  std::sort(x.begin(), x.end());
  Brute best;
  for (std::size_t i = 0; i + 1 < x.size(); ++i) {
    if ((i > 0 && x[i] == x[i - 1]) || x[i] == x.back() || x[i] < low || x[i] > high) continue;
    const Real n = static_cast<Real>(x.size() - i);
    Real sum = 0;
    for (std::size_t j = i; j < x.size(); ++j) sum += std::log(Real{x[j]} / x[i]);
    const Real rate = n / sum;
    Real distance = 0;
    for (std::size_t j = i; j < x.size(); ++j) {
      const auto below = std::lower_bound(x.begin(), x.end(), x[j]) - x.begin() - static_cast<std::ptrdiff_t>(i);
      const Real law = 1 - std::pow(Real{x[j]} / x[i], -rate);
      distance = std::max(distance, std::abs(law - static_cast<Real>(below) / n));
    }
    if (distance < best.distance - 1e-12L) best = {1 + rate, distance, x[i]};
  }
  return best;
}

/// The density's integral from the lower edge to 1 + s^2 - 2 s cos(angle), in long double, by Simpson's rule on the angle.
Real mass_up_to(Real Q, Real angle) {
  const Real s = 1 / std::sqrt(Q);
  const int n = 20000;
  Real sum = 0;
  for (int i = 0; i <= n; ++i) {
    const Real t = angle * i / n, sine = std::sin(t), half = std::sin(t / 2);
    const Real x = (1 - s) * (1 - s) + 4 * s * half * half;
    const Real f = x > 0 ? 2 * sine * sine / (std::numbers::pi_v<Real> * x) : 2 / std::numbers::pi_v<Real>;
    sum += f * (i == 0 || i == n ? 1 : i % 2 == 1 ? 4 : 2);
  }
  return sum * angle / n / 3;
}

TEST(MarchenkoPastur, of_four_rows_a_column_has_the_edges_of_the_paper) {
  const MarchenkoPastur law(4, 2);
  EXPECT_DOUBLE_EQ(law.lower(), 0.5);
  EXPECT_DOUBLE_EQ(law.upper(), 4.5);
  EXPECT_EQ(law.point_mass(), 0);
  // at x = 2: 4 sqrt(2.5 * 1.5) / (2 pi 2 2)
  EXPECT_NEAR(law.pdf(2), std::sqrt(3.75) / (2 * std::numbers::pi), 1e-15);
  for (const double x : {-1.0, 0.0, 0.5, 4.5, 5.0, kInf}) EXPECT_EQ(law.pdf(x), 0);
  EXPECT_EQ(law.cdf(0.5), 0);
  EXPECT_EQ(law.cdf(4.5), 1);
  EXPECT_EQ(law.cdf(-kInf), 0);
  EXPECT_TRUE(std::isnan(law.cdf(kNaN)) && std::isnan(law.pdf(kNaN)));
}

TEST(MarchenkoPastur, cdf_is_the_integral_of_the_density) {
  for (const double Q : {1.0, 1.2, 1.7, 4.0, 63.0, 65.0, 1e4, 1e8}) {
    const MarchenkoPastur law(Q, 0.3);
    const double s = 1 / std::sqrt(Q);
    for (const double angle : {0.01, 0.4, 1.5, 2.7, 3.1}) {
      const double x = 0.3 * (1 + s * s - 2 * s * std::cos(angle));
      // x carries eps, the width of the support is 4 s
      EXPECT_NEAR(law.cdf(x), static_cast<double>(mass_up_to(Q, angle)), 1e-12 + 1e-15 / s) << Q << " " << angle;
      EXPECT_NEAR(law.quantile(law.cdf(x)), x, 1e-11 * 0.3 * s + 4e-16) << Q << " " << angle;
    }
  }
}

TEST(MarchenkoPastur, of_fewer_rows_than_columns_has_a_point_mass) {
  const MarchenkoPastur wide(0.25, 2), tall(4, 2);
  EXPECT_DOUBLE_EQ(wide.point_mass(), 0.75);
  // the eigenvalues that do not vanish are those of the transpose, M / N = 4 times as large
  EXPECT_DOUBLE_EQ(wide.lower(), 4 * tall.lower());
  EXPECT_DOUBLE_EQ(wide.upper(), 4 * tall.upper());
  for (const double x : {1.0, 2.0, 3.0}) {
    EXPECT_NEAR(wide.cdf(4 * x), 0.75 + 0.25 * tall.cdf(x), 1e-15);
    EXPECT_NEAR(wide.pdf(4 * x), tall.pdf(x) / 16, 1e-15);
  }
  EXPECT_EQ(wide.cdf(-1e-9), 0);
  EXPECT_DOUBLE_EQ(wide.cdf(0), 0.75);
  EXPECT_EQ(wide.quantile(0.75), 0);
  EXPECT_GE(wide.quantile(0.76), wide.lower());
}

TEST(MarchenkoPastur, refuses_what_is_no_shape) {
  for (const double bad : {0.0, -1.0, kNaN, kInf}) {
    EXPECT_THROW(MarchenkoPastur(bad, 1), InvalidArgument);
    EXPECT_THROW(MarchenkoPastur(1, bad), InvalidArgument);
  }
  EXPECT_THROW(MarchenkoPastur(2).quantile(1.1), InvalidArgument);
  EXPECT_THROW(MarchenkoPastur(2).quantile(kNaN), InvalidArgument);
}

// Bejan (2005) and Prähofer's tables: quantiles of the law for real data, and its mean and variance.
TEST(TracyWidom, has_the_published_quantiles_and_moments) {
  EXPECT_NEAR(tracy_widom_quantile(0.90), 0.4501, 1e-4);
  EXPECT_NEAR(tracy_widom_quantile(0.95), 0.9793, 1e-4);
  EXPECT_NEAR(tracy_widom_quantile(0.99), 2.0234, 1e-4);
  Real mean = 0, square = 0;
  const double step = 0.05;
  for (double x = -8.5; x < 8; x += step) {
    const Real p = tracy_widom_cdf(x + step / 2) - tracy_widom_cdf(x - step / 2);
    mean += p * x;
    square += p * x * x;
  }
  EXPECT_NEAR(static_cast<double>(mean), -1.2065335745820, 1e-5);
  EXPECT_NEAR(static_cast<double>(square - mean * mean), 1.607781034581, 1e-3);
  EXPECT_EQ(tracy_widom_cdf(-kInf), 0);
  EXPECT_EQ(tracy_widom_cdf(kInf), 1);
  EXPECT_THROW(tracy_widom_quantile(0), InvalidArgument);
}

TEST(Bulk, of_exact_quantiles_has_their_variance_and_no_spikes) {
  for (const double Q : {1.0, 2.5, 30.0}) {
    const MarchenkoPastur law(Q, 3);
    Numbers x;
    for (int i = 0; i < 101; ++i) x.push_back(law.quantile((i + 0.5) / 101));
    const BulkFit fit = fit_bulk(x, Q);
    EXPECT_TRUE(fit.declined.empty());
    EXPECT_NEAR(fit.variance, 3, 1e-12);
    EXPECT_TRUE(fit.spikes.empty());
    EXPECT_NEAR(fit.distance, 0.5 / 101, 1e-12);
    EXPECT_NEAR(fit.soft_rank, law.upper() / x.back(), 1e-12);
    // with spikes: counted, the largest first, and their strengths solve the equation of the phase transition
    const double y = 1 / Q;
    for (const double strength : {20.0, 5.0}) x.push_back(3 * (1 + strength) * (y + strength) / strength);
    std::reverse(x.begin(), x.end());
    const BulkFit spiked = fit_bulk(x, Q);
    ASSERT_EQ(spiked.spikes.size(), 2u);
    EXPECT_GT(spiked.spikes[0], spiked.spikes[1]);
    EXPECT_NEAR(spiked.strengths[0], 60, 3);
    EXPECT_NEAR(spiked.strengths[1], 15, 1);
    EXPECT_NEAR(spiked.variance, 3, 0.1);
    EXPECT_GT(spiked.overlaps_larger[0], spiked.overlaps_larger[1]);
    EXPECT_LE(spiked.overlaps_larger[0], spiked.overlaps_smaller[0] + 1e-12);
  }
}

TEST(Bulk, is_declined_with_a_reason) {
  EXPECT_NE(fit_bulk(Numbers{}, 1).declined.find("no eigenvalues"), std::string::npos);
  EXPECT_NE(fit_bulk(Numbers(9, 1.0), 1).declined.find("9 eigenvalues"), std::string::npos);
  EXPECT_NE(fit_bulk(Numbers(40, 0.0), 1).declined.find("0 eigenvalues"), std::string::npos);
  Numbers steep;
  for (int i = 0; i < 40; ++i) steep.push_back(std::pow(2.0, i));
  EXPECT_NE(fit_bulk(steep, 1).declined.find("no bulk"), std::string::npos);
  EXPECT_THROW(fit_bulk(steep, 0.9), InvalidArgument);
  EXPECT_THROW(fit_bulk(steep, 1, {0.7, 1}), InvalidArgument);
  EXPECT_THROW(fit_bulk(steep, 1, {0.01, 0}), InvalidArgument);
  EXPECT_THROW(fit_bulk(Numbers{1, 2, -1}, 1), InvalidArgument);
  EXPECT_THROW(fit_bulk(Numbers{1, kNaN}, 1), NonFinite);
  // zeros are no part of a bulk
  Numbers some;
  for (int i = 0; i < 50; ++i) some.push_back(MarchenkoPastur(2).quantile((i + 0.5) / 50));
  some.insert(some.end(), 30, 0.0);
  const BulkFit fit = fit_bulk(some, 2);
  EXPECT_EQ(fit.n_zero, 30);
  EXPECT_GT(fit.variance, 0.5);
}

TEST(PowerLaw, of_three_values_by_hand) {
  // xmin = 1: 1 + 3 / (log 2 + log 4); xmin = 2: 1 + 2 / log 2; distances at 2 and 4, and at 4
  const PowerLawFit fit = fit_power_law(Context{}, Numbers{4, 1, 2});
  const double l = std::numbers::ln2, rate = 1 / l, other = 2 / l;
  const double first =
      std::max(std::abs(1 - std::exp(-rate * l) - 1.0 / 3), std::abs(1 - std::exp(-2 * rate * l) - 2.0 / 3));
  const double second = std::abs(1 - std::exp(-other * l) - 0.5);
  ASSERT_TRUE(fit.found);
  ASSERT_LT(first, second);
  EXPECT_DOUBLE_EQ(fit.alpha, 1 + rate);
  EXPECT_DOUBLE_EQ(fit.distance, first);
  EXPECT_EQ(fit.xmin, 1);
  EXPECT_EQ(fit.n_tail, 3);
  EXPECT_DOUBLE_EQ(fit.sigma, rate / std::sqrt(3.0));
}

TEST(PowerLaw, scan_equals_brute_force) {
  for (unsigned seed = 0; seed < 12; ++seed) {
    Numbers x = seed % 2 ? pareto(300 + 7 * seed, 2.3, seed) : lognormal(250 + 11 * seed, seed);
    if (seed % 3 == 0) {
      for (double& v : x) v = std::ceil(v * 8) / 8;  // many ties
    }
    const Brute best = brute_force(x);
    PowerLawParams whole;
    whole.keep_scan = true;
    for (const PowerLawParams& p : {PowerLawParams{}, whole}) {
      const PowerLawFit fit = fit_power_law(Context{}, x, p);
      EXPECT_EQ(fit.xmin, best.xmin) << seed;
      EXPECT_NEAR(fit.alpha, static_cast<double>(best.alpha), 1e-12 * fit.alpha) << seed;
      EXPECT_NEAR(fit.distance, static_cast<double>(best.distance), 1e-13) << seed;
    }
    Numbers sorted = x;
    std::sort(sorted.begin(), sorted.end());
    PowerLawParams range;
    range.xmin_low = sorted[40];
    range.xmin_high = sorted[120];
    const Brute within = brute_force(x, range.xmin_low, range.xmin_high);
    const PowerLawFit fit = fit_power_law(Context{}, x, range);
    EXPECT_EQ(fit.xmin, within.xmin) << seed;
    EXPECT_NEAR(fit.distance, static_cast<double>(within.distance), 1e-13) << seed;
  }
}

TEST(PowerLaw, takes_any_unit) {
  const Numbers x = lognormal(200, 5);
  const PowerLawFit fit = fit_power_law(Context{}, x);
  for (const double unit : {0x1p-900, 1e-300, 3e-7, 1e200, 0x1p900}) {
    Numbers y = x;
    for (double& v : y) v *= unit;
    const PowerLawFit scaled = fit_power_law(Context{}, y);
    EXPECT_NEAR(scaled.alpha, fit.alpha, 1e-12 * fit.alpha) << unit;
    EXPECT_NEAR(scaled.distance, fit.distance, 1e-12) << unit;
    EXPECT_EQ(scaled.xmin, fit.xmin * unit) << unit;
  }
  // values that differ in their last digits only: logarithms keep their differences
  Numbers close;
  for (int i = 0; i < 40; ++i) close.push_back(1 + i * i * 1e-13);
  const PowerLawFit narrow = fit_power_law(Context{}, close);
  const Brute best = brute_force(close);
  EXPECT_NEAR(narrow.alpha / static_cast<double>(best.alpha), 1, 1e-12);
  EXPECT_EQ(narrow.xmin, best.xmin);
}

TEST(PowerLaw, cut_at_xmax_solves_its_own_likelihood_equation) {
  const Numbers x = pareto(400, 2.2, 8);
  for (const double xmax : {3.0, 10.0, 1e6}) {
    PowerLawParams p;
    p.xmin = 1.2;
    p.xmax = xmax;
    p.alpha_low = -50;
    const PowerLawFit fit = fit_power_law(Context{}, x, p);
    Real sum = 0, n = 0;
    for (const double v : x) {
      if (v >= p.xmin && v <= xmax) sum += std::log(Real{v} / p.xmin), n += 1;
    }
    // derivative of log(g / (1 - exp(-g L))) - g mean at g = alpha - 1
    const Real g = fit.alpha - 1, L = std::log(Real{xmax} / p.xmin);
    EXPECT_NEAR(static_cast<double>((1 / g - L / std::expm1(g * L)) * n / sum), 1, 1e-12) << xmax;
    EXPECT_EQ(fit.n_tail, static_cast<index_t>(n));
    const Real variance = 1 / (g * g) - L * L * std::exp(g * L) / (std::expm1(g * L) * std::expm1(g * L));
    EXPECT_NEAR(fit.sigma, static_cast<double>(1 / std::sqrt(n * variance)), 1e-9) << xmax;
  }
  PowerLawParams far;
  far.xmax = 1e300;
  EXPECT_NEAR(fit_power_law(Context{}, x, far).alpha, fit_power_law(Context{}, x).alpha, 1e-9);
}

TEST(PowerLaw, keeps_to_its_ranges) {
  const Numbers x = lognormal(300, 3);
  PowerLawParams p;
  p.alpha_high = 2;
  EXPECT_LT(fit_power_law(Context{}, x, p).alpha, 2);
  p.alpha_high = 1.01;
  EXPECT_FALSE(fit_power_law(Context{}, x, p).found);
  p = {};
  p.min_tail = 150;
  EXPECT_GE(fit_power_law(Context{}, x, p).n_tail, 150);
  EXPECT_FALSE(fit_power_law(Context{}, Numbers(20, 3.0)).found);
  EXPECT_FALSE(fit_power_law(Context{}, Numbers{1}).found);
  EXPECT_FALSE(fit_power_law(Context{}, Numbers{}).found);
  EXPECT_THROW(fit_power_law(Context{}, Numbers{1, 0, 2}), InvalidArgument);
  EXPECT_THROW(fit_power_law(Context{}, Numbers{1, -2}), InvalidArgument);
  EXPECT_THROW(fit_power_law(Context{}, Numbers{1, kInf}), NonFinite);
  for (const PowerLawParams& bad :
       {PowerLawParams{-1}, PowerLawParams{kNaN}, PowerLawParams{0, 2, 1}, PowerLawParams{2, 0, kInf, 1},
        PowerLawParams{0, 0, kInf, kInf, 3, 2}, PowerLawParams{0, 0, kInf, kInf, 1, kInf, 1}}) {
    EXPECT_THROW(fit_power_law(Context{}, x, bad), InvalidArgument);
  }
}

TEST(PowerLaw, bootstrap_is_the_same_on_any_number_of_threads) {
  const Numbers x = pareto(200, 2.5, 4);
  const PowerLawFit fit = fit_power_law(Context{}, x);
  const int before = threads();
  Numbers one, three;
  set_threads(1);
  one = bootstrap_power_law(Context{}, x, fit, {}, 40, 9);
  set_threads(3);
  three = bootstrap_power_law(Context{}, x, fit, {}, 40, 9);
  set_threads(before);
  EXPECT_EQ(one, three);
  EXPECT_NE(one, bootstrap_power_law(Context{}, x, fit, {}, 40, 10));
  // the first replicas do not depend on how many there are
  const Numbers few = bootstrap_power_law(Context{}, x, fit, {}, 7, 9);
  EXPECT_TRUE(std::equal(few.begin(), few.end(), one.begin()));
  // a true power law is not ruled out, a uniform sample is
  EXPECT_GT(std::count_if(one.begin(), one.end(), [&](double d) { return d >= fit.distance; }), 2);
  Numbers even(400);
  std::iota(even.begin(), even.end(), 1000.0);
  PowerLawParams all;
  all.xmin = 1000;
  const PowerLawFit wrong = fit_power_law(Context{}, even, all);
  for (const double d : bootstrap_power_law(Context{}, even, wrong, all, 40)) EXPECT_LT(d, wrong.distance);
  EXPECT_THROW(bootstrap_power_law(Context{}, x, PowerLawFit{}, {}, 10), InvalidArgument);
  EXPECT_THROW(bootstrap_power_law(Context{}, x, fit, {}, 0), InvalidArgument);
}

/// Log-likelihood of a law on [xmin, xmax] by Simpson's rule for its normalization, in u = log(x / xmin).
template <class F>
Real log_likelihood(const Numbers& x, double xmin, Real end, const F& log_density) {
  const int n = 40000;
  Real z = 0;
  for (int i = 0; i <= n; ++i) {
    const Real u = end * i / n;
    z += std::exp(log_density(u)) * (i == 0 || i == n ? 1 : i % 2 == 1 ? 4 : 2);
  }
  z *= end / n / 3;
  Real sum = 0;
  for (const double v : x) {
    const Real u = std::log(Real{v} / xmin);
    if (u >= 0 && u <= end) sum += log_density(u) - std::log(z);
  }
  return sum;
}

TEST(TailLaws, are_fitted_to_their_maximum) {
  for (const double xmax : {kInf, 6.0}) {
    const Numbers x = lognormal(400, 21);
    PowerLawParams p;
    p.xmin = 0.7;
    p.xmax = xmax;
    const PowerLawFit fit = fit_power_law(Context{}, x, p);
    const Real end = std::isinf(xmax) ? 40 : std::log(Real{xmax} / p.xmin), rate = fit.alpha - 1;
    const Real own = log_likelihood(x, p.xmin, end, [&](Real u) { return -rate * u; });
    const auto at = [&](TailLaw law, Real a, Real b) {
      return log_likelihood(x, p.xmin, end, [&](Real u) -> Real {
        const Real v = p.xmin * std::exp(u);
        if (law == TailLaw::lognormal) return -(std::log(v) - a) * (std::log(v) - a) / (2 * b * b);
        if (law == TailLaw::exponential) return -a * v + u;
        return (1 - a) * u - b * v;
      });
    };
    for (const TailLaw law : {TailLaw::truncated_power_law, TailLaw::lognormal, TailLaw::exponential}) {
      const TailComparison c = compare_power_law(x, fit, law, xmax);
      const Real best = at(law, c.first, c.second);
      EXPECT_FALSE(c.degenerate);
      EXPECT_NEAR(c.ratio, static_cast<double>(own - best), 1e-7 * std::abs(c.ratio)) << static_cast<int>(law);
      // no neighbour is likelier; an exponent of 1 is the border of the first law
      for (const Real d : {-1e-2L, 1e-2L}) {
        if (law != TailLaw::truncated_power_law || c.first + d >= 1) {
          EXPECT_LT(at(law, c.first + d, c.second), best);
        }
        if (law != TailLaw::exponential) {
          EXPECT_LT(at(law, c.first, c.second + d), best);
        }
      }
    }
  }
}

TEST(TailLaws, that_contain_the_power_law_are_never_less_likely) {
  for (unsigned seed = 0; seed < 20; ++seed) {
    const Numbers x = pareto(60, 2.5, 100 + seed);
    const PowerLawFit fit = fit_power_law(Context{}, x);
    for (const TailLaw law : {TailLaw::truncated_power_law, TailLaw::lognormal}) {
      const TailComparison c = compare_power_law(x, fit, law);
      EXPECT_LE(c.ratio, 1e-10);
      EXPECT_EQ(c.degenerate, c.ratio == 0 && c.p_value == 1);
    }
  }
  EXPECT_THROW(compare_power_law(Numbers{1, 2}, PowerLawFit{}, TailLaw::lognormal), InvalidArgument);
}

}  // namespace
}  // namespace brockett::test
