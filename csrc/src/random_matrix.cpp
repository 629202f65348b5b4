// The Marchenko-Pastur law in closed form, and the bulk and spikes of a spectrum.
//
// With s = Q^(-1/2) <= 1 and unit variance, x = 1 + s^2 - 2 s cos(t), 0 <= t <= pi, runs over the support, and
//   cdf = t / pi + (sin(t) / s - (1 / s^2 - 1) psi) / pi,  psi = arg(1 - s exp(-i t)) = sum_k s^k sin(k t) / k.
#include "brockett/random_matrix.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numbers>

#include "brockett/error.hpp"

namespace brockett {
namespace {

using std::numbers::pi;

constexpr double kEps = std::numeric_limits<double>::epsilon();
/// Fewer eigenvalues carry no verdict on a law.
constexpr index_t kFewest = 10;

std::string text(double x) {
  char out[32];
  std::snprintf(out, sizeof out, "%.17g", x);
  return out;
}

void check_positive(const char* name, double value) {
  if (!(value > 0) || !std::isfinite(value)) {
    throw InvalidArgument(name, "expected a finite number above 0, got " + text(value));
  }
}

double median(std::span<const double> ascending) {
  const std::size_t n = ascending.size();
  // halves first: the sum of two large ones may overflow
  return 0.5 * ascending[(n - 1) / 2] + 0.5 * ascending[n / 2];
}

/// Both sides of each step of the empirical distribution.
double distance_from(const MarchenkoPastur& law, std::span<const double> ascending) {
  const double n = static_cast<double>(ascending.size());
  double largest = 0;
  for (std::size_t i = 0; i < ascending.size(); ++i) {
    const double F = law.cdf(ascending[i]), j = static_cast<double>(i);
    largest = std::max({largest, F - j / n, (j + 1) / n - F});
  }
  return largest;
}

}  // namespace

MarchenkoPastur::MarchenkoPastur(double Q, double variance) {
  check_positive("Q", Q);
  check_positive("variance", variance);
  // Q < 1: the eigenvalues that do not vanish are those of W W^T / M, whose Q is 1 / Q, times M / N
  weight_ = std::min(1.0, Q);
  unit_ = variance / weight_;
  s_ = std::sqrt(Q < 1 ? Q : 1 / Q);
  lower_ = unit_ * (1 - s_) * (1 - s_);
  upper_ = unit_ * (1 + s_) * (1 + s_);
  if (!std::isfinite(upper_)) throw InvalidArgument("variance", "the law's upper edge overflows at Q = " + text(Q));
}

double MarchenkoPastur::pdf(double x) const {
  if (!(x > lower_ && x < upper_)) return std::isnan(x) ? x : 0;
  return weight_ * std::sqrt((upper_ - x) / x) * std::sqrt((x - lower_) / x) / (2 * pi * s_ * s_ * unit_);
}

double MarchenkoPastur::cdf_at(double angle) const {
  if (s_ < 0.125) {  // the closed form loses eps / s here; 20 terms of its series do not
    double sum = angle - 0.5 * std::sin(2 * angle), power = s_;
    for (int k = 1; power > 0.01 * kEps; ++k, power *= s_) {
      sum += power * (std::sin(k * angle) / k - std::sin((k + 2) * angle) / (k + 2));
    }
    return sum / pi;
  }
  const double sine = std::sin(angle), half = std::sin(0.5 * angle);
  // 1 - s cos t without cancellation
  const double psi = std::atan2(s_ * sine, (1 - s_) + 2 * s_ * half * half);
  return (angle + sine / s_ - (1 / (s_ * s_) - 1) * psi) / pi;
}

double MarchenkoPastur::cdf(double x) const {
  if (std::isnan(x)) return x;
  if (x < 0) return 0;
  if (x >= upper_) return 1;  // first: a support may have collapsed to one point
  if (x <= lower_) return point_mass();
  const double angle = 2 * std::atan2(std::sqrt(x - lower_), std::sqrt(upper_ - x));
  return point_mass() + weight_ * std::clamp(cdf_at(angle), 0.0, 1.0);
}

double MarchenkoPastur::quantile(double p) const {
  if (!(p >= 0 && p <= 1)) throw InvalidArgument("p", "expected a probability, got " + text(p));
  if (weight_ < 1 && p <= point_mass()) return 0;
  const double target = (p - point_mass()) / weight_;
  if (target <= 0) return lower_;
  if (target >= 1) return upper_;
  // Newton's method on the angle, in which the law has a bounded density, 2 sin^2(t) / (pi (1 + s^2 - 2 s cos t)), kept in
  // a bracket that halves where it does not help
  double low = 0, high = pi, angle = 0.5 * pi;
  for (int step = 0; step < 200 && high - low > 4 * kEps * high; ++step) {
    const double error = cdf_at(angle) - target;
    if (error == 0) break;
    (error > 0 ? high : low) = angle;
    const double sine = std::sin(angle), half = std::sin(0.5 * angle);
    const double slope = 2 * sine * sine / (pi * ((1 - s_) * (1 - s_) + 4 * s_ * half * half));
    const double next = angle - error / slope;
    if (std::abs(next - angle) <= kEps * angle) break;
    angle = next > low && next < high ? next : 0.5 * (low + high);
  }
  const double half = std::sin(0.5 * angle);
  return std::clamp(lower_ + 4 * s_ * unit_ * half * half, lower_, upper_);
}

TracyWidomEdge tracy_widom_edge(double larger, double smaller, double variance) {
  check_positive("variance", variance);
  if (!(smaller >= 1)) throw InvalidArgument("smaller", "expected 1 or more, got " + text(smaller));
  if (!(larger >= smaller) || !std::isfinite(larger)) {
    throw InvalidArgument("larger", "expected a finite number of at least smaller, got " + text(larger));
  }
  const double a = std::sqrt(larger - 0.5), b = std::sqrt(smaller - 0.5), unit = variance / larger;
  return {unit * (a + b) * (a + b), unit * (a + b) * std::cbrt(1 / a + 1 / b)};
}

BulkFit fit_bulk(std::span<const double> eigenvalues, double Q, const BulkParams& params) {
  if (!(Q >= 1) || !std::isfinite(Q)) {
    throw InvalidArgument("Q", "expected larger / smaller, a finite number of at least 1, got " + text(Q));
  }
  if (!(params.significance >= 1e-6 && params.significance < 0.5)) {
    throw InvalidArgument("significance", "expected a number from 1e-6 to 0.5, got " + text(params.significance));
  }
  if (params.pooled < 1) throw InvalidArgument("pooled", "expected 1 or more, got " + std::to_string(params.pooled));
  std::vector<double> sorted(eigenvalues.begin(), eigenvalues.end());
  const index_t n = static_cast<index_t>(sorted.size());
  for (index_t i = 0; i < n; ++i) {
    if (!std::isfinite(sorted[static_cast<std::size_t>(i)])) throw NonFinite("eigenvalues", 0, i);
  }
  std::sort(sorted.begin(), sorted.end());
  BulkFit out;
  if (n == 0) {
    out.declined = "no eigenvalues";
    return out;
  }
  const double largest = sorted.back(), noise = kEps * static_cast<double>(n) * Q * std::max(largest, 0.0);
  if (sorted.front() < -noise) {
    throw InvalidArgument("eigenvalues", "expected numbers of at least 0, got " + text(sorted.front()));
  }
  // eigenvalues are squares: what a rounding of the singular values leaves of a zero lies far below this
  out.n_zero = std::upper_bound(sorted.begin(), sorted.end(), noise) - sorted.begin();
  const std::span<const double> positive(sorted.begin() + out.n_zero, sorted.end());
  const index_t m = n - out.n_zero;
  if (m < kFewest) {
    out.declined = std::to_string(m) + " eigenvalues above rounding, a fit needs " + std::to_string(kFewest);
    return out;
  }
  // Without its zero columns, and without k spikes, W is a (larger - k) x (m - k) matrix of noise.
  const double matrices = static_cast<double>(params.pooled), larger = Q * static_cast<double>(n) / matrices;
  const double quantile = tracy_widom_quantile(std::min(1 - 1e-6, std::pow(1 - params.significance, 1 / matrices)));
  index_t k = 0;
  double share = 1;
  for (;;) {
    const double rows = larger - static_cast<double>(k) / matrices, columns = static_cast<double>(m - k) / matrices;
    share = rows / larger;
    const double middle = MarchenkoPastur(rows / columns).quantile(0.5);
    out.variance = median(positive.first(static_cast<std::size_t>(m - k))) / middle / share;
    const TracyWidomEdge edge = tracy_widom_edge(rows, std::max(1.0, columns), share * out.variance);
    out.cut = edge.location + quantile * edge.scale;
    const index_t above = positive.end() - std::upper_bound(positive.begin(), positive.end(), out.cut);
    if (above <= k) break;
    k = above;  // grows, so this ends
    if (2 * k > m) {
      out.declined = std::to_string(k) + " of " + std::to_string(m) + " eigenvalues lie above the bulk's edge: no bulk";
      return out;
    }
  }
  const double y = static_cast<double>(m - k) / (larger * matrices - static_cast<double>(k));
  const MarchenkoPastur law(1 / y, share * out.variance);
  out.lower = law.lower();
  out.upper = law.upper();
  out.distance = distance_from(law, positive.first(static_cast<std::size_t>(m - k)));
  out.soft_rank = out.upper / largest;
  out.spikes.assign(positive.rbegin(), positive.rbegin() + k);
  for (const double spike : out.spikes) {
    // l^2 - (x - 1 - y) l + y = 0, its larger root: the smaller one lies below the threshold sqrt(y)
    const double x = spike / (share * out.variance), half = 0.5 * (x - 1 - y);
    const double l = half + std::sqrt(std::max(0.0, half * half - y));
    out.strengths.push_back(share * out.variance * l);
    out.overlaps_larger.push_back(std::max(0.0, 1 - (y + l) / (l * (l + 1))));
    out.overlaps_smaller.push_back(std::max(0.0, 1 - (1 + l) / (l * (l / y + 1))));
  }
  return out;
}

}  // namespace brockett
