// Power-law tails: maximum likelihood for every xmin, the best xmin, and the bootstrap of its distance.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numbers>
#include <string>
#include <utility>

#include "brockett/error.hpp"
#include "brockett/random_matrix.hpp"
#include "philox.hpp"
#include "tail.hpp"

namespace brockett {

double log_ratio(double x, double reference) {
  int e = 0, f = 0;
  const double m = std::frexp(x, &e), r = std::frexp(reference, &f);
  return (e - f) * std::numbers::ln2 + std::log1p((m - r) / r);
}

LogSample::LogSample(std::span<const double> ascending) : count(static_cast<double>(ascending.size())) {
  logs.reserve(ascending.size());
  below.reserve(ascending.size());
  for (std::size_t i = 0; i < ascending.size(); ++i) {
    if (i > 0 && ascending[i] <= ascending[i - 1]) continue;
    logs.push_back(ascending[i]);
    below.push_back(static_cast<double>(i));
  }
  // from the top, so that all terms are positive and nothing cancels
  excess.assign(logs.size(), 0.0);
  for (std::size_t i = logs.size(); i-- > 1;) excess[i - 1] = excess[i] + (count - below[i]) * (logs[i] - logs[i - 1]);
}

double mass_below(double rate, double length) { return std::isinf(length) ? 1 : -std::expm1(-rate * length); }

double rate_of_mean(double mean, double length) {
  if (std::isinf(length)) return 1 / mean;
  // With y = rate length: mean / length = 1 / y - 1 / (exp(y) - 1), which falls from 1 to 0.
  const double target = mean / length;
  const auto share = [](double y) {
    if (std::abs(y) < 1e-2) return 0.5 - y / 12 * (1 - y * y / 60 * (1 - y * y / 42));
    return 1 / y - 1 / std::expm1(y);
  };
  // 1 / y is a bound from above for y > 0, and the curve is symmetric: share(-y) = 1 - share(y)
  const double near = std::min(target, 1 - target);
  if (!(near > 0)) return std::copysign(std::numeric_limits<double>::infinity(), 0.5 - target);
  double low = 0, high = 1 / near;
  while (share(high) > near) high *= 2;
  double y = high;
  for (int step = 0; step < 200 && high - low > 1e-16 * high; ++step) {
    const double error = share(y) - near;
    (error > 0 ? low : high) = y;
    // derivative -1 / y^2 + exp(y) / (exp(y) - 1)^2 = -1 / y^2 + 1 / (4 sinh^2(y / 2))
    const double sinh = std::sinh(0.5 * std::min(y, 700.0));
    const double slope = y < 1e-2 ? -1.0 / 12 + y * y / 240 : -1 / (y * y) + 1 / (4 * sinh * sinh);
    const double next = y - error / slope;
    if (std::abs(next - y) <= 1e-16 * y) break;
    y = next > low && next < high ? next : 0.5 * (low + high);
  }
  return (target <= 0.5 ? y : -y) / length;
}

namespace {

/// Distances this close are equal: the smallest xmin among them is taken, whatever rounding says.
constexpr double kTie = 1e-12;

/// An interval of the tail, and the law at its ends.
struct Stretch {
  index_t first, last;
  double law_first, law_last;
};

/// max over the tail of |F - E|, F the law and E the share of the tail below a value; both rise, so over the inside of a
/// stretch the difference is bounded by its ends. Stretches that cannot hold the maximum are never looked into, and the
/// search ends as soon as it exceeds `stop`.
class Distance {
 public:
  explicit Distance(const LogSample& sample) : sample_(sample) {}

  double operator()(index_t first, double origin, double rate, double length, double stop) {
    first_ = first;
    origin_ = origin;
    rate_ = rate;
    mass_ = mass_below(rate, length);
    largest_ = 0;
    const index_t last = sample_.size() - 1;
    // where the neighbouring candidate had its maximum this one has nearly its own
    if (at_ > first && at_ < last && look(at_, law(at_)) > stop) return largest_;
    open_.assign(1, {first, last, law(first), law(last)});
    look(first, open_[0].law_first);
    if (look(last, open_[0].law_last) > stop) return largest_;
    while (!open_.empty()) {
      next_.clear();
      for (const Stretch& s : open_) {
        if (bound(s) <= largest_) continue;
        const index_t middle = s.first + (s.last - s.first) / 2;
        const double at_middle = law(middle);
        if (look(middle, at_middle) > stop) return largest_;
        for (const Stretch& half :
             {Stretch{s.first, middle, s.law_first, at_middle}, Stretch{middle, s.last, at_middle, s.law_last}}) {
          if (half.last - half.first > 1 && bound(half) > largest_) next_.push_back(half);
        }
      }
      open_.swap(next_);
    }
    return largest_;
  }

 private:
  double law(index_t k) const {
    return -std::expm1(-rate_ * (sample_.logs[static_cast<std::size_t>(k)] - origin_)) / mass_;
  }
  double empirical(index_t k) const {
    const double start = sample_.below[static_cast<std::size_t>(first_)];
    return (sample_.below[static_cast<std::size_t>(k)] - start) / (sample_.count - start);
  }
  double look(index_t k, double law_k) {
    const double gap = std::abs(law_k - empirical(k));
    if (gap > largest_) {
      largest_ = gap;
      at_ = k;
    }
    return largest_;
  }
  double bound(const Stretch& s) const {
    if (s.last - s.first <= 1) return 0;
    return std::max(s.law_last - empirical(s.first + 1), empirical(s.last - 1) - s.law_first);
  }

  const LogSample& sample_;
  std::vector<Stretch> open_, next_;
  index_t first_ = 0, at_ = -1;
  double origin_ = 0, rate_ = 0, mass_ = 1, largest_ = 0;
};

/// What PowerLawParams means on the logarithms of a sample, all relative to one reference.
struct Range {
  double given = std::numeric_limits<double>::quiet_NaN();
  double low, high, end, rate_low, rate_high, min_tail;
};

struct Candidate {
  index_t first = -1;
  double origin = 0, rate = 0, distance = 0;
};

/// Maximum likelihood for xmin = origin, whose tail starts at `first`; no candidate where the law has no rate in range.
Candidate candidate(const LogSample& s, const Range& range, index_t first, double origin) {
  Candidate c{-1, origin, 0, 0};
  if (first >= s.size() - 1 && !(first == s.size() - 1 && s.logs.back() > origin)) return c;
  const double n = s.tail(first);
  const double excess =
      s.excess[static_cast<std::size_t>(first)] + n * (s.logs[static_cast<std::size_t>(first)] - origin);
  if (n < range.min_tail || !(excess > 0) || !(range.end > origin)) return c;
  c.rate = rate_of_mean(excess / n, range.end - origin);
  if (std::isfinite(c.rate) && c.rate > range.rate_low && c.rate < range.rate_high) c.first = first;
  return c;
}

/// The candidate with the smallest distance; first < 0 where there is none. `scan` takes all of them where it is not null.
Candidate best_of(const LogSample& s, const Range& range, std::vector<Candidate>* scan) {
  Distance distance(s);
  const double infinite = std::numeric_limits<double>::infinity();
  const auto length = [&](const Candidate& c) { return range.end - c.origin; };
  if (!std::isnan(range.given)) {
    const index_t first = std::lower_bound(s.logs.begin(), s.logs.end(), range.given) - s.logs.begin();
    Candidate c = candidate(s, range, first, range.given);
    if (c.first >= 0) c.distance = distance(c.first, c.origin, c.rate, length(c), infinite);
    if (scan && c.first >= 0) scan->push_back(c);
    return c;
  }
  const auto begin = std::lower_bound(s.logs.begin(), s.logs.end(), range.low);
  const auto end = std::upper_bound(s.logs.begin(), s.logs.end(), range.high);
  const index_t from = begin - s.logs.begin(), to = std::min<index_t>(end - s.logs.begin(), s.size() - 1);
  std::vector<Candidate> kept;
  double smallest = infinite;
  const auto consider = [&](index_t i) {
    Candidate c = candidate(s, range, i, s.logs[static_cast<std::size_t>(i)]);
    if (c.first < 0) return;
    c.distance = distance(i, c.origin, c.rate, length(c), scan ? infinite : smallest + kTie);
    if (scan) scan->push_back(c);
    if (c.distance > smallest + kTie) return;
    smallest = std::min(smallest, c.distance);
    kept.push_back(c);
  };
  // a few spread over the range first: a small distance early lets the others go early
  const index_t stride = scan ? 1 : std::max<index_t>(1, (to - from) / 64);
  for (index_t i = from; i < to; i += stride) consider(i);
  if (stride > 1) {
    for (index_t i = from; i < to; ++i) {
      if ((i - from) % stride != 0) consider(i);
    }
  }
  Candidate best;
  for (const Candidate& c : kept) {
    if (c.distance <= smallest + kTie && (best.first < 0 || c.first < best.first)) best = c;
  }
  return best;
}

std::string text(double x) {
  char out[32];
  std::snprintf(out, sizeof out, "%.17g", x);
  return out;
}

/// The values up to xmax in ascending order, all checked.
std::vector<double> checked(std::span<const double> values, double xmax) {
  std::vector<double> sorted;
  sorted.reserve(values.size());
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (!std::isfinite(values[i])) throw NonFinite("values", 0, static_cast<index_t>(i));
    if (!(values[i] > 0)) throw InvalidArgument("values", "expected numbers above 0, got " + text(values[i]));
    if (values[i] <= xmax) sorted.push_back(values[i]);
  }
  std::sort(sorted.begin(), sorted.end());
  return sorted;
}

void check(const PowerLawParams& p) {
  if (!(p.xmin >= 0) || !std::isfinite(p.xmin)) {
    throw InvalidArgument("xmin", "expected a finite number above 0, or 0 for the best, got " + text(p.xmin));
  }
  if (!(p.xmin_low >= 0 && p.xmin_low <= p.xmin_high)) {
    throw InvalidArgument("xmin",
                          "expected a range (low, high), got (" + text(p.xmin_low) + ", " + text(p.xmin_high) + ")");
  }
  if (!(p.xmax > p.xmin)) throw InvalidArgument("xmax", "expected a number above xmin, got " + text(p.xmax));
  if (!(p.alpha_low < p.alpha_high)) {
    throw InvalidArgument("alpha_range", "expected (low, high) with low < high, got (" + text(p.alpha_low) + ", " +
                                             text(p.alpha_high) + ")");
  }
  if (p.min_tail < 2) throw InvalidArgument("min_tail", "expected 2 or more, got " + std::to_string(p.min_tail));
}

Range range_of(const PowerLawParams& p, double reference) {
  const double infinite = std::numeric_limits<double>::infinity();
  Range r;
  if (p.xmin > 0) r.given = log_ratio(p.xmin, reference);
  r.low = p.xmin_low > 0 ? log_ratio(p.xmin_low, reference) : -infinite;
  r.high = std::isfinite(p.xmin_high) ? (p.xmin_high > 0 ? log_ratio(p.xmin_high, reference) : -infinite) : infinite;
  r.end = std::isfinite(p.xmax) ? log_ratio(p.xmax, reference) : infinite;
  r.rate_low = p.alpha_low - 1;
  r.rate_high = p.alpha_high - 1;
  r.min_tail = static_cast<double>(p.min_tail);
  return r;
}

std::vector<double> logs_of(std::span<const double> ascending, double reference) {
  std::vector<double> logs;
  logs.reserve(ascending.size());
  for (const double x : ascending) logs.push_back(log_ratio(x, reference));
  return logs;
}

}  // namespace

PowerLawFit fit_power_law(const Context& context, std::span<const double> values, const PowerLawParams& params) {
  check(params);
  context.check_interrupt();
  const std::vector<double> sorted = checked(values, params.xmax);
  PowerLawFit out;
  if (sorted.size() < 2) return out;
  const double reference = sorted.back();
  const LogSample sample(logs_of(sorted, reference));
  const Range range = range_of(params, reference);
  std::vector<Candidate> scan;
  const Candidate best = best_of(sample, range, params.keep_scan ? &scan : nullptr);
  // the caller's own numbers, not exp of their logarithms
  const auto value_of = [&](const Candidate& c) {
    return params.xmin > 0 ? params.xmin
                           : sorted[static_cast<std::size_t>(sample.below[static_cast<std::size_t>(c.first)])];
  };
  for (const Candidate& c : scan) {
    out.xmins.push_back(value_of(c));
    out.alphas.push_back(1 + c.rate);
    out.distances.push_back(c.distance);
  }
  if (best.first < 0) return out;
  out.found = true;
  out.alpha = 1 + best.rate;
  out.xmin = value_of(best);
  out.distance = best.distance;
  out.n_tail = static_cast<index_t>(sample.tail(best.first));
  // Fisher information of one value: the variance of u
  double information = 1 / (best.rate * best.rate);
  if (std::isfinite(range.end)) {
    const double length = range.end - best.origin, y = best.rate * length, sinh = std::sinh(0.5 * std::min(y, 700.0));
    information = std::abs(y) < 1e-2 ? length * length * (1.0 / 12 - y * y / 240)
                                     : information - length * length / (4 * sinh * sinh);
  }
  out.sigma = 1 / std::sqrt(static_cast<double>(out.n_tail) * information);
  return out;
}

std::vector<double> bootstrap_power_law(const Context& context, std::span<const double> values, const PowerLawFit& fit,
                                        const PowerLawParams& params, index_t replicas, std::uint64_t seed) {
  check(params);
  if (!fit.found) throw InvalidArgument("fit", "there is no power law to draw from");
  if (replicas < 1) throw InvalidArgument("replicas", "expected 1 or more, got " + std::to_string(replicas));
  const std::vector<double> sorted = checked(values, params.xmax);
  const double reference = sorted.empty() ? fit.xmin : sorted.back(), origin = log_ratio(fit.xmin, reference);
  const std::vector<double> logs = logs_of(sorted, reference);
  const Range range = range_of(params, reference);
  const std::size_t n = sorted.size();
  const std::size_t n_below = std::lower_bound(sorted.begin(), sorted.end(), fit.xmin) - sorted.begin();
  const bool given = params.xmin > 0;
  const double rate = fit.alpha - 1, mass = mass_below(rate, range.end - origin);
  const double share = given ? 1.0 : static_cast<double>(n - n_below) / static_cast<double>(n);
  const std::size_t drawn = given ? n - n_below : n;
  std::vector<double> distances(static_cast<std::size_t>(replicas), 1.0);
  parallel_for(context, replicas, [&](index_t r) {
    std::vector<double> replica(drawn);
    for (std::size_t j = 0; j < drawn; ++j) {
      const std::uint64_t pair = static_cast<std::uint64_t>(r) * n + j;
      const auto w = philox::block(seed, pair);
      const double choice = philox::to_uniform(w[0], w[1]), place = philox::to_uniform(w[2], w[3]);
      if (choice < share) {
        replica[j] = origin - std::log1p(-place * mass) / rate;
      } else {
        replica[j] = logs[std::min(n_below - 1, static_cast<std::size_t>(place * static_cast<double>(n_below)))];
      }
    }
    std::sort(replica.begin(), replica.end());
    const Candidate best = best_of(LogSample(replica), range, nullptr);
    // a replica without a fit is as far from the law as can be
    distances[static_cast<std::size_t>(r)] = best.first < 0 ? 1.0 : best.distance;
  });
  return distances;
}

}  // namespace brockett
