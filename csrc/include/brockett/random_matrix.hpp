// Random-matrix statistics of a layer: Marchenko-Pastur bulk and spikes, power-law tails. Host mathematics on spectra.
//
// W (larger x smaller, or its transpose) is a weight matrix, its eigenvalues are lambda = sigma^2 / larger, Q = larger /
// smaller. A common factor of all eigenvalues changes nothing but the quantities that carry their unit.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "brockett/context.hpp"
#include "brockett/matrix_view.hpp"

namespace brockett {

/// Limit law of the eigenvalues of W^T W / N, W (N, M) with independent entries of mean 0 and `variance`, Q = N / M.
///
/// Density Q sqrt((b - x)(x - a)) / (2 pi variance x) on [a, b], a, b = variance (1 -+ Q^(-1/2))^2; Q < 1 adds a point
/// mass 1 - Q at 0, for the M - N eigenvalues that vanish. Marchenko, Pastur, Mat. Sb. 72 (1967) 507.
class BROCKETT_EXPORT MarchenkoPastur {
 public:
  explicit MarchenkoPastur(double Q, double variance = 1);
  double lower() const { return lower_; }  ///< a
  double upper() const { return upper_; }  ///< b
  double point_mass() const { return 1 - weight_; }  ///< at 0: max(0, 1 - Q)
  /// Density of the continuous part; 0 at the edges and outside of them (for Q = 1 it has no bound near 0).
  double pdf(double x) const;
  /// P(lambda <= x) in closed form, to rounding (1e-14) for any Q; right-continuous at the point mass.
  double cdf(double x) const;
  /// The smallest x with cdf(x) >= p, 0 <= p <= 1.
  double quantile(double p) const;

 private:
  double cdf_at(double angle) const;
  double weight_, unit_, s_, lower_, upper_;
};

/// Where the largest eigenvalue of pure noise lies: location + scale * TW, TW of Tracy and Widom's law for real data.
struct TracyWidomEdge {
  double location = 0;
  double scale = 0;
};
/// Of W^T W / larger, with the centring of Ma (Bernoulli 18 (2012) 322), which errs by O(smaller^(-2/3)):
/// mu = (sqrt(larger - 1/2) + sqrt(smaller - 1/2))^2, scale mu^(1/2) (1/sqrt(larger - 1/2) + 1/sqrt(smaller - 1/2))^(1/3).
BROCKETT_EXPORT TracyWidomEdge tracy_widom_edge(double larger, double smaller, double variance = 1);
/// F_1(x) = det(1 - T), T(u, v) = Ai((u + v) / 2) / 2 on (x, inf) (Ferrari, Spohn, J. Phys. A 38 (2005) L557), by
/// Gauss-Legendre quadrature (Bornemann, Math. Comp. 79 (2010) 871). Absolute error below 1e-8.
BROCKETT_EXPORT double tracy_widom_cdf(double x);
/// The x with F_1(x) = p, 1e-6 <= p <= 1 - 1e-6; to 1e-6 or better where the density is not tiny.
BROCKETT_EXPORT double tracy_widom_quantile(double p);

struct BulkParams {
  /// Chance that the largest eigenvalue of pure noise is called a spike.
  double significance = 0.01;
  /// Matrices of one shape whose eigenvalues are pooled (the k^2 slices of a convolution): Q is that of each, spikes are
  /// taken to be spread over all of them, and none of all should have a false one.
  index_t pooled = 1;
};

/// The Marchenko-Pastur bulk of a spectrum, and what stands out of it.
struct BulkFit {
  double variance = 0;  ///< of the entries of W, in the unit of the eigenvalues
  double lower = 0;  ///< edges of the bulk
  double upper = 0;
  double cut = 0;  ///< eigenvalues above are spikes: the Tracy-Widom quantile of the significance
  index_t n_zero = 0;  ///< eigenvalues at rounding level, left out of the fit
  std::vector<double> spikes;  ///< descending
  /// variance * l of each spike, l > Q^(-1/2) from lambda = variance (1 + l)(1 / Q + l) / l: the eigenvalue that the
  /// low-rank part of W would have without the noise. In the spiked-covariance model the population's is this + variance.
  std::vector<double> strengths;
  /// Squared cosines of a spike's singular vectors with those of the low-rank part, on the side of length `larger` and on
  /// that of length `smaller` (Benaych-Georges, Nadakuditi, J. Multivar. Anal. 111 (2012) 120).
  std::vector<double> overlaps_larger;
  std::vector<double> overlaps_smaller;
  double distance = 0;  ///< Kolmogorov-Smirnov distance of the rest from the law, both sides of each step
  double soft_rank = 0;  ///< upper / largest eigenvalue (Martin, Mahoney, arXiv 1810.01075)
  std::string declined;  ///< why there is no verdict; empty when there is one
};

/// Variance from the median of the eigenvalues that are not spikes, spikes from the Tracy-Widom quantile at that variance,
/// until both stay. `eigenvalues` in any order, all >= 0 but for rounding; Q >= 1. O(n log n).
BROCKETT_EXPORT BulkFit fit_bulk(std::span<const double> eigenvalues, double Q, const BulkParams& params = {});

struct PowerLawParams {
  double xmin = 0;  ///< > 0: given; 0: the candidate with the smallest distance
  double xmin_low = 0;  ///< candidates are the distinct values in [xmin_low, xmin_high], but the largest value
  double xmin_high = std::numeric_limits<double>::infinity();
  double xmax = std::numeric_limits<double>::infinity();  ///< the law, and the values that are used, end here
  double alpha_low = 1;  ///< only candidates with an exponent strictly between these two count
  double alpha_high = std::numeric_limits<double>::infinity();
  index_t min_tail = 2;  ///< fewest values in the tail of a candidate
  bool keep_scan = false;  ///< also return the distance of every candidate, which costs the whole O(n^2)
};

/// p(x) = (alpha - 1) / xmin (x / xmin)^(-alpha) for x >= xmin (up to xmax, and normalized there).
struct PowerLawFit {
  bool found = false;  ///< false: no candidate has two distinct values, enough of a tail and an exponent within range
  double alpha = 0;
  double xmin = 0;
  double distance = 0;  ///< max over the tail of |F(x) - share of the tail below x|
  double sigma = 0;  ///< standard error of alpha from the Fisher information; (alpha - 1) / sqrt(n_tail) without xmax
  index_t n_tail = 0;
  std::vector<double> xmins, alphas, distances;  ///< keep_scan: of all candidates within range
};

/// Maximum likelihood of alpha for every xmin, and the xmin with the smallest Kolmogorov-Smirnov distance (the smallest
/// of those within 1e-12 of it).
///
/// All values > 0 and finite, in any order. Exact: candidates and stretches of the tail are left out only where a bound
/// shows that they cannot matter. About n log n for data that follow no law, O(n^2) at worst. The distance is that of
/// Clauset, Shalizi and Newman (SIAM Review 51 (2009) 661): against the empirical distribution from the left.
BROCKETT_EXPORT PowerLawFit fit_power_law(const Context& context, std::span<const double> values,
                                          const PowerLawParams& params = {});

/// Distances of `replicas` synthetic data sets, each fitted as the data were: with probability n_tail / n from the law,
/// else from the values below xmin (with xmin given: n_tail from the law). The p-value is the share not below `distance`.
///
/// Numbers r n … r n + n - 1 (pairs) of the Philox stream `seed` make replica r: the same on any number of threads.
BROCKETT_EXPORT std::vector<double> bootstrap_power_law(const Context& context, std::span<const double> values,
                                                        const PowerLawFit& fit, const PowerLawParams& params,
                                                        index_t replicas, std::uint64_t seed = 0);

/// The laws a power-law tail is compared with, each on the same [xmin, xmax].
enum class TailLaw {
  truncated_power_law,  ///< x^-alpha exp(-rate x), rate >= 0, alpha >= 1; parameters alpha, rate
  lognormal,  ///< parameters mu, sigma of log x
  exponential  ///< rate exp(-rate (x - xmin)); parameter rate
};
struct TailComparison {
  double ratio = 0;  ///< sum of log p_power_law(x) - log p_law(x): positive where the power law is likelier
  double normalized = 0;  ///< ratio / (sqrt(n) standard deviation of the terms); 0 where the terms are all equal
  /// Chance of a ratio that far from 0 if neither is better: Vuong's normal law; for truncated_power_law, which contains
  /// the power law, chi-square of 2 |ratio| with one degree of freedom.
  double p_value = 1;
  double first = 0;  ///< parameters
  double second = 0;
  /// The maximum lies at the power law itself, a limit of truncated_power_law (rate 0) and lognormal (sigma infinite).
  bool degenerate = false;
};
/// Maximum likelihood of the other law on the tail of `fit`, by Newton's method on its convex log-partition function.
BROCKETT_EXPORT TailComparison compare_power_law(std::span<const double> values, const PowerLawFit& fit, TailLaw law,
                                                 double xmax = std::numeric_limits<double>::infinity());

}  // namespace brockett
