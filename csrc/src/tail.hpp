// The logarithms of a sample in ascending order, and the power law with rate gamma = alpha - 1 that they follow in a tail.
//
// With u = log(x / xmin) a power law is an exponential law of u: density gamma exp(-gamma u) on [0, L], L = log(xmax / xmin)
// or infinite. All that follows is written in u, so the unit of x drops out.
#pragma once

#include <span>
#include <vector>

#include "brockett/matrix_view.hpp"

namespace brockett {

/// log(x / reference) of positive numbers of any magnitude, to rounding also where x is close to the reference.
double log_ratio(double x, double reference);

/// Distinct values of a sample, as logarithms relative to a reference.
struct LogSample {
  std::vector<double> logs;  ///< ascending, distinct
  std::vector<double> below;  ///< how many values lie below each
  std::vector<double> excess;  ///< sum over the values from each on of log(value) - log(each)
  double count = 0;

  /// From ascending logarithms, equal ones being neighbours.
  explicit LogSample(std::span<const double> ascending);
  index_t size() const { return static_cast<index_t>(logs.size()); }
  double tail(index_t i) const { return count - below[static_cast<std::size_t>(i)]; }
};

/// Rate of the exponential law on [0, length] (length may be infinite) whose mean is `mean`: the maximum of the
/// likelihood. Negative where the mean is above length / 2.
double rate_of_mean(double mean, double length);

/// 1 - exp(-rate length): the mass on [0, length] of the law that is not cut; for rates of either sign.
double mass_below(double rate, double length);

}  // namespace brockett
