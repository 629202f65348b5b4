// A power-law tail against other laws: maximum likelihood of each, and the ratio of likelihoods.
//
// On u = log(x / xmin) the truncated power law and the lognormal are one family, exp(-a u - k w(u)) / Z(a, k) on [0, L]
// with k >= 0: w = exp(u) - 1 for the first, w = u^2 for the second, both divided by their largest value in the sample.
// log Z is convex and its derivatives are moments, so that the likelihood has one maximum, found by Newton's method; at
// k = 0 the family is the power law itself. The exponential law has a = -1 and k free.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <numbers>
#include <utility>

#include "brockett/error.hpp"
#include "brockett/random_matrix.hpp"
#include "quadrature.hpp"
#include "tail.hpp"

namespace brockett {
namespace {

/// exp of what lies this far below the largest exponent is nothing in double precision.
constexpr double kDrop = 45;
/// What two exponents may differ by over one panel of 16 nodes, and the longest panel where exp(exp(u)) is integrated.
constexpr double kPanel = 1.5;

/// The second statistic of the family, and the tail it is scaled by.
class Statistic {
 public:
  Statistic(TailLaw law, double largest_u) : squares_(law == TailLaw::lognormal), top_(largest_u) {}
  double operator()(double u) const {
    if (squares_) return (u / top_) * (u / top_);
    // (e^u - 1) / (e^top - 1) for any top: neither overflows
    return top_ < 1 ? std::expm1(u) / std::expm1(top_) : (std::exp(u - top_) - std::exp(-top_)) / -std::expm1(-top_);
  }
  bool squares() const { return squares_; }
  double top() const { return top_; }
  /// log of what w was divided by.
  double log_scale() const { return squares_ ? 2 * std::log(top_) : top_ + std::log(-std::expm1(-top_)); }
  /// Where -a u - k w(u) is largest over u, the ends of the range aside.
  double peak(double a, double k) const {
    if (a >= 0 || k <= 0) return 0;
    return squares_ ? -0.5 * a / k * top_ * top_ : std::max(0.0, std::log(-a / k) + log_scale());
  }

 private:
  bool squares_;
  double top_;
};

/// log Z, and mean and covariance of (u, w) under the law.
struct Moments {
  double log_z = 0, u = 0, w = 0, uu = 0, uw = 0, ww = 0;
};

class Family {
 public:
  Family(const Statistic& w, double length) : w_(w), length_(length) {}

  Moments operator()(double a, double k) const {
    const auto exponent = [&](double u) { return k > 0 ? -a * u - k * w_(u) : -a * u; };
    const double peak = std::min(w_.peak(a, k), length_), top = exponent(peak);
    const auto low = [&](double u) { return exponent(u) < top - kDrop; };
    // the stretch on which the density is not negligible: the exponent is concave
    double left = 0, right = length_;
    if (low(0)) left = edge(0, peak, low);
    if (std::isinf(right) || low(right)) {
      double far = std::isinf(right) ? peak + 1 : right;
      while (std::isinf(right) && !low(far)) far = peak + 2 * (far - peak);
      right = low(far) ? edge(far, peak, low) : far;
    }
    double sum = 0, su = 0, sw = 0, suu = 0, suw = 0, sww = 0;
    // moments about the peak, so that narrow laws lose nothing
    const double w_peak = w_(peak);
    const auto integrate = [&](double from, double to) {
      const int panels = std::clamp(static_cast<int>(std::ceil((to - from) / kPanel)), 12, 2000);
      const double half = 0.5 * (to - from) / panels;
      if (!(half > 0)) return;
      for (int p = 0; p < panels; ++p) {
        for (std::size_t i = 0; i < rule().nodes.size(); ++i) {
          const double u = from + half * (2 * p + 1 + rule().nodes[i]), w = w_(u);
          const double f = half * rule().weights[i] * std::exp(k > 0 ? -a * u - k * w - top : -a * u - top),
                       du = u - peak, dw = w - w_peak;
          sum += f;
          su += f * du;
          sw += f * dw;
          suu += f * du * du;
          suw += f * du * dw;
          sww += f * dw * dw;
        }
      }
    };
    integrate(left, peak);
    integrate(peak, right);
    Moments m;
    m.log_z = top + std::log(sum);
    const double mu = su / sum, mw = sw / sum;
    m.u = peak + mu;
    m.w = w_peak + mw;
    m.uu = suu / sum - mu * mu;
    m.uw = suw / sum - mu * mw;
    m.ww = sww / sum - mw * mw;
    return m;
  }

 private:
  static const Quadrature& rule() {
    static const Quadrature q = gauss_legendre(16);
    return q;
  }
  /// Between `out`, where `low` holds, and `in`, where it does not.
  template <class F>
  static double edge(double out, double in, const F& low) {
    for (int step = 0; step < 40; ++step) {
      const double middle = 0.5 * (out + in);
      (low(middle) ? out : in) = middle;
    }
    return out;
  }

  const Statistic& w_;
  double length_;
};

struct Maximum {
  double a = 0, k = 0, log_z = 0;
};

/// The minimum of a mean_u + k mean_w + log Z(a, k) over k > 0, from an inner point: Newton's method, each step shortened
/// until it keeps k positive and lowers the function as its slope promises.
Maximum maximize(const Family& family, double mean_u, double mean_w, double a, double k) {
  const auto objective = [&](double at_a, double at_k, const Moments& m) {
    return at_a * mean_u + at_k * mean_w + m.log_z;
  };
  Moments m = family(a, k);
  double value = objective(a, k, m);
  for (int step = 0; step < 200; ++step) {
    const double gradient_a = mean_u - m.u, gradient_k = mean_w - m.w;
    const double ridge = 1e-14 * (m.uu * m.ww);
    const double det = std::max(m.uu * m.ww - m.uw * m.uw, ridge);
    if (!(det > 0)) break;
    const double step_a = -(m.ww * gradient_a - m.uw * gradient_k) / det;
    const double step_k = -(m.uu * gradient_k - m.uw * gradient_a) / det;
    const double slope = gradient_a * step_a + gradient_k * step_k;
    if (!(slope < -1e-24)) break;
    double t = step_k < 0 ? std::min(1.0, 0.9 * k / -step_k) : 1.0;
    bool moved = false;
    for (int halving = 0; halving < 60 && !moved; ++halving, t *= 0.5) {
      const Moments there = family(a + t * step_a, k + t * step_k);
      const double next = objective(a + t * step_a, k + t * step_k, there);
      if (!std::isfinite(next) || !(next <= value + 1e-4 * t * slope + 1e-15 * std::abs(value))) continue;
      a += t * step_a;
      k += t * step_k;
      m = there;
      value = next;
      moved = true;
      break;
    }
    if (!moved || slope > -1e-20) break;
  }
  return {a, k, m.log_z};
}

/// The same along k alone, a held: where the mean of w, which falls with k, is that of the sample.
Maximum maximize_held(const Family& family, double mean_w, double a, double k) {
  double low = 0, high = std::numeric_limits<double>::infinity();
  Moments m = family(a, k);
  for (int step = 0; step < 200; ++step) {
    (m.w > mean_w ? low : high) = k;
    // Newton's method on log k
    double next = k * std::exp(std::clamp((m.w - mean_w) / (m.ww * k), -3.0, 3.0));
    if (!(next > low && next < high)) next = std::isinf(high) ? 2 * k : 0.5 * (low + high);
    const bool done = std::abs(next - k) <= 1e-14 * k;
    k = next;
    m = family(a, k);
    if (done) break;
  }
  return {a, k, m.log_z};
}

double mean(const std::vector<double>& x) {
  double sum = 0;
  for (const double v : x) sum += v;
  return sum / static_cast<double>(x.size());
}

}  // namespace

TailComparison compare_power_law(std::span<const double> values, const PowerLawFit& fit, TailLaw law, double xmax) {
  if (!fit.found) throw InvalidArgument("fit", "there is no power law to compare with");
  if (!(fit.xmin > 0 && xmax > fit.xmin)) throw InvalidArgument("xmax", "expected a number above xmin > 0");
  std::vector<double> u;
  for (const double x : values) {
    if (x >= fit.xmin && x <= xmax) u.push_back(std::max(0.0, log_ratio(x, fit.xmin)));
  }
  if (u.empty()) throw InvalidArgument("values", "none lie in the tail of the fit");
  const double top = *std::max_element(u.begin(), u.end());
  TailComparison out;
  if (!(top > 0)) throw InvalidArgument("values", "all of the tail are equal");
  const double length = std::isfinite(xmax) ? log_ratio(xmax, fit.xmin) : std::numeric_limits<double>::infinity();
  const double rate = fit.alpha - 1, log_mass = std::log(std::abs(rate / mass_below(rate, length)));
  const Statistic w(law, top);
  std::vector<double> stretched;
  stretched.reserve(u.size());
  for (const double v : u) stretched.push_back(w(v));
  const double mean_u = mean(u), mean_w = mean(stretched), log_scale = w.log_scale();
  Maximum best;
  if (law == TailLaw::exponential) {
    // in w: density k exp(-k w) on [0, w(L)], a law like that of u; and du turns into dw with log(dw / du) = u - log_scale
    const double end = std::isinf(length) ? length : w(length);
    best.a = -1;
    best.k = rate_of_mean(mean_w, end);
    if (!(best.k > 0)) {  // uniform on [xmin, xmax]
      best.k = 0;
      out.degenerate = true;
      best.log_z = log_scale + std::log(end);
    } else {
      best.log_z = log_scale - std::log(best.k / mass_below(best.k, end));
    }
    out.first = std::exp(std::log(best.k) - log_scale - std::log(fit.xmin));
  } else {
    const Family family(w, length);
    const double at_zero = rate_of_mean(mean_u, length);
    // The power law is the maximum where more weight on large w would not help: mean_w is not below its expectation.
    double expected = std::numeric_limits<double>::infinity();
    if (std::isfinite(length)) {
      expected = family(at_zero, 0).w;
    } else if (w.squares()) {
      expected = 2 * (mean_u / top) * (mean_u / top);
    } else if (at_zero > 1) {
      expected = std::exp(-std::log(at_zero - 1) - log_scale);
    }
    if (mean_w >= expected) {
      out.degenerate = true;
      best.a = rate;
      best.log_z = -log_mass;
    } else {
      best = maximize(family, mean_u, mean_w, 0.5 * at_zero, 0.5 / mean_w);
      // an exponent below 1 is no power law any more; convex, so the best of the others lies on the border
      const double least = std::min(0.0, rate);
      if (law == TailLaw::truncated_power_law && best.a < least) best = maximize_held(family, mean_w, least, best.k);
    }
    if (law == TailLaw::truncated_power_law) {
      out.first = 1 + best.a;
      out.second = best.k > 0 ? std::exp(std::log(best.k) - log_scale - std::log(fit.xmin)) : 0;
    } else {
      const double curvature = 2 * best.k / (top * top);  // 1 / sigma^2
      const double infinite = std::numeric_limits<double>::infinity();
      out.first = out.degenerate ? -infinite : std::log(fit.xmin) - best.a / curvature;
      out.second = out.degenerate ? infinite : 1 / std::sqrt(curvature);
    }
  }
  double sum = 0;
  std::vector<double> terms(u.size());
  for (std::size_t i = 0; i < u.size(); ++i) {
    terms[i] = (log_mass - rate * u[i]) - (-best.a * u[i] - best.k * stretched[i] - best.log_z);
    sum += terms[i];
  }
  const double n = static_cast<double>(u.size()), average = sum / n;
  double variance = 0;
  for (const double term : terms) variance += (term - average) * (term - average);
  variance /= n;
  if (law != TailLaw::exponential && out.degenerate) sum = variance = 0;  // the same law twice, up to rounding
  out.ratio = sum;
  if (variance > 0) out.normalized = sum / std::sqrt(n * variance);
  if (law == TailLaw::truncated_power_law) {
    out.p_value = std::erfc(std::sqrt(std::abs(sum)));  // chi-square, one degree of freedom, at 2 |ratio|
  } else {
    out.p_value = variance > 0 ? std::erfc(std::abs(out.normalized) / std::numbers::sqrt2) : 1;
  }
  return out;
}

}  // namespace brockett
