// Plans: factors, twiddles, the order of the results, and lengths with large prime factors.
#include "linalg/lapack/fft.hpp"

#include <algorithm>
#include <list>
#include <mutex>

#include "linalg/lapack/fft_passes.hpp"

namespace brockett::linalg::lapack {
namespace {

// A block of this many doubles stays in the first-level cache through all its remaining levels.
constexpr index_t kCached = 2048;

bool has_large_prime(index_t n) {
  for (int p : {2, 3, 5, 7, 11, 13}) {
    while (n % p == 0) n /= p;
  }
  return n > 1;
}

}  // namespace

Fft::Fft(index_t n) : n_(n) {
  for (index_t k = 0; 2 * k <= n; ++k) quarters_.push_back(rotation(k, 4 * n));
  if (has_large_prime(n)) {
    plan_convolution();
  } else {
    plan_levels();
  }
}

void Fft::plan_levels() {
  index_t length = n_;
  while (length > 1) {
    const int radix = *std::find_if(std::begin(kRadices), std::end(kRadices), [&](int r) { return length % r == 0; });
    Level level{radix, length / radix, {}};
    for (index_t j = 0; j < level.span && level.span > 1; ++j) {
      for (index_t p = 1; p < radix; ++p) {
        const Rotation w = rotation(j * p % length, length);
        level.twiddles.insert(level.twiddles.end(), {w.cosine, -w.sine});
      }
    }
    levels_.push_back(std::move(level));
    length /= radix;
  }
  // The first level sends frequency k to block k mod radix, where it is frequency k / radix.
  slots_.resize(static_cast<std::size_t>(n_));
  for (index_t k = 0; k < n_; ++k) {
    index_t slot = 0, rest = k;
    for (const Level& level : levels_) {
      slot += rest % level.radix * level.span;
      rest /= level.radix;
    }
    slots_[static_cast<std::size_t>(k)] = slot;
  }
}

// X_k = c_k sum_j (c_j x_j) conj(c_{k-j}), c_j = exp(-i pi j^2 / n): a convolution, by transforms of length m >= 2 n
// - 1.
void Fft::plan_convolution() {
  inner_ = std::make_unique<const Fft>(smooth_length(2 * n_ - 1));
  const index_t m = inner_->n();
  chirp_.reserve(static_cast<std::size_t>(2 * n_));
  index_t square = 0;  // j^2 mod 2 n, exactly
  for (index_t j = 0; j < n_; ++j) {
    const Rotation c = rotation(square, 2 * n_);
    chirp_.insert(chirp_.end(), {c.cosine, -c.sine});
    square = (square + 2 * j + 1) % (2 * n_);
  }
  std::vector<double> b(static_cast<std::size_t>(m * kStride), 0.0);
  for (index_t j = 0; j < n_; ++j) {
    for (const index_t at : {j, (m - j) % m}) {
      b[static_cast<std::size_t>(at * kStride)] = chirp_[static_cast<std::size_t>(2 * j)];
      b[static_cast<std::size_t>(at * kStride + kLanes)] = -chirp_[static_cast<std::size_t>(2 * j + 1)];
    }
  }
  inner_->forward(b.data());
  kernel_.reserve(static_cast<std::size_t>(2 * m));
  for (index_t i = 0; i < m; ++i) {
    kernel_.insert(kernel_.end(), {b[static_cast<std::size_t>(i * kStride)] / static_cast<double>(m),
                                   b[static_cast<std::size_t>(i * kStride + kLanes)] / static_cast<double>(m)});
  }
}

index_t Fft::work_size() const { return kStride * (inner_ ? 2 * inner_->n() : n_); }

namespace {

// (re, im) of all lanes of `from`, times the complex number w, to `to`.
inline void multiply_lanes(const double* from, const double* w, double* to) {
  constexpr int lanes = Fft::kLanes;
  for (int l = 0; l < lanes; ++l) {
    const double re = from[l], im = from[lanes + l];
    to[l] = re * w[0] - im * w[1];
    to[lanes + l] = re * w[1] + im * w[0];
  }
}

// Swapping real and imaginary parts before and after turns a transform into its inverse (times n).
inline void swap_parts(double* x) { std::swap_ranges(x, x + Fft::kLanes, x + Fft::kLanes); }

}  // namespace

void Fft::convolve(double* x) const {
  const index_t m = inner_->n();
  double* y = x + m * kStride;
  for (index_t j = 0; j < n_; ++j)
    multiply_lanes(x + j * kStride, &chirp_[static_cast<std::size_t>(2 * j)], x + j * kStride);
  std::fill(x + n_ * kStride, y, 0.0);
  inner_->forward(x);
  for (index_t k = 0; k < m; ++k) {
    const index_t slot = inner_->slot(k);
    multiply_lanes(x + slot * kStride, &kernel_[static_cast<std::size_t>(2 * slot)], y + k * kStride);
    swap_parts(y + k * kStride);
  }
  inner_->forward(y);
  for (index_t k = 0; k < n_; ++k) {
    double* from = y + inner_->slot(k) * kStride;
    swap_parts(from);
    multiply_lanes(from, &chirp_[static_cast<std::size_t>(2 * k)], x + k * kStride);
  }
}

void Fft::forward(double* x) const {
  if (inner_) return convolve(x);
  // Depth first while blocks are larger than the cache, level by level within it.
  const auto run = [this](const auto& self, std::size_t depth, double* block) -> void {
    if (depth == levels_.size()) return;
    const Level& level = levels_[depth];
    const index_t length = level.radix * level.span;
    if (length * kStride > kCached) {
      fft_pass(level.radix, block, 1, level.span, level.twiddles.data());
      for (int p = 0; p < level.radix; ++p) self(self, depth + 1, block + p * level.span * kStride);
      return;
    }
    for (std::size_t d = depth; d < levels_.size(); ++d) {
      const Level& inner = levels_[d];
      fft_pass(inner.radix, block, length / (inner.radix * inner.span), inner.span, inner.twiddles.data());
    }
  };
  run(run, 0, x);
}

std::shared_ptr<const Fft> fft_plan(index_t n) {
  constexpr std::size_t most = 8;
  static std::mutex mutex;
  static std::list<std::shared_ptr<const Fft>> cache;  // the latest used first
  {
    const std::lock_guard lock(mutex);
    const auto at = std::find_if(cache.begin(), cache.end(), [n](const auto& plan) { return plan->n() == n; });
    if (at != cache.end()) {
      cache.splice(cache.begin(), cache, at);
      return cache.front();
    }
  }
  auto plan = std::make_shared<const Fft>(n);  // outside the lock: others need not wait; made twice at worst
  const std::lock_guard lock(mutex);
  cache.push_front(plan);
  if (cache.size() > most) cache.pop_back();
  return plan;
}

}  // namespace brockett::linalg::lapack
