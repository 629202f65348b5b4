#include "sample_blocks.hpp"

#include <cmath>

namespace brockett {

index_t bytes_of(DType type) {
  switch (type) {
    case DType::float16:
    case DType::bfloat16:
      return 2;
    case DType::float32:
      return 4;
    case DType::float64:
      return 8;
  }
  return 0;
}

const void* sample_at(const SampleView& x, index_t i) {
  return static_cast<const char*>(x.data) + i * x.ld * bytes_of(x.dtype);
}

void check_samples(const char* name, const SampleView& x, index_t n) {
  if (x.n_features != n) {
    throw InvalidArgument(
        name, "must have shape (n_samples, " + std::to_string(n) + "), has " + shape_text(x.n_samples, x.n_features));
  }
  if (x.n_samples < 0 || (x.n_samples > 0 && (x.data == nullptr || x.ld < n))) {
    throw InvalidArgument(name, "is not a readable (n_samples, n_features) array");
  }
}

SampleWeights check_weights(const double* weights, index_t n_samples) {
  SampleWeights out;
  out.sum = static_cast<double>(n_samples);
  if (!weights) return out;
  out.values.assign(weights, weights + n_samples);
  out.sum = out.largest = 0;
  bool ones = true;
  for (index_t i = 0; i < n_samples; ++i) {
    const double w = weights[i];
    if (!std::isfinite(w) || w < 0) {
      throw InvalidArgument("weights",
                            "must be finite and >= 0, is " + std::to_string(w) + " at index " + std::to_string(i));
    }
    out.sum += w;
    out.largest = std::max(out.largest, w);
    ones = ones && w == 1;
  }
  if (ones) out.values.clear();
  return out;
}

std::vector<SampleRun> sample_runs(index_t n_samples, const std::vector<double>& weights, index_t longest) {
  std::vector<SampleRun> runs;
  for (index_t i = 0; i < n_samples;) {
    if (!weights.empty() && weights[static_cast<std::size_t>(i)] == 0) {
      ++i;
      continue;
    }
    index_t end = i + 1;
    const index_t last = std::min(n_samples, i + longest);
    if (weights.empty()) end = last;
    while (end < last && weights[static_cast<std::size_t>(end)] != 0) ++end;
    runs.push_back({i, end - i});
    i = end;
  }
  return runs;
}

namespace {

// Each run is read with a call of its own; of more than this they are gathered first, for a GPU waits for every one.
constexpr std::size_t kManyRuns = 16;
constexpr index_t kGatherElements = index_t{1} << 20;

// The same of scattered samples: copies of them side by side, in a type that holds what theirs does.
template <class T>
double check_gathered(linalg::Backend& backend, const char* name, const SampleView& x,
                      const std::vector<SampleRun>& runs) {
  auto& la = linalg::of<T>(backend);
  const index_t n = x.n_features, width = std::max<index_t>(1, kGatherElements / n);
  const linalg::Buffer<T> buffer(la, n, width);
  double magnitude = 0;
  std::vector<SampleRun> held;
  index_t filled = 0;
  const auto flush = [&] {
    const auto part = buffer.mat().columns(0, filled);
    const double largest = la.max_abs_of(dtype_of<T>(), part.data, n, filled, n);
    if (!std::isfinite(largest)) {
      index_t at = la.first_nonfinite(dtype_of<T>(), part.data, n, filled, n);
      std::size_t k = 0;
      for (; at / n >= held[k].count; ++k) at -= held[k].count * n;
      throw NonFinite(name, held[k].first + at / n, at % n);
    }
    magnitude = std::max(magnitude, largest);
    held.clear();
    filled = 0;
  };
  for (const SampleRun& run : runs) {
    for (index_t done = 0; done < run.count;) {
      const index_t count = std::min(run.count - done, width - filled);
      la.convert_from(x.dtype, sample_at(x, run.first + done), x.ld, buffer.mat().columns(filled, count));
      held.push_back({run.first + done, count});
      filled += count;
      done += count;
      if (filled == width) flush();
    }
  }
  if (filled > 0) flush();
  return magnitude;
}

}  // namespace

double check_sample_values(linalg::Backend& backend, const char* name, const SampleView& x,
                           const std::vector<double>& weights) {
  const index_t n = x.n_features;
  const std::vector<SampleRun> runs = sample_runs(x.n_samples, weights, x.n_samples);
  if (runs.size() > kManyRuns) {
    return x.dtype == DType::float64 ? check_gathered<double>(backend, name, x, runs)
                                     : check_gathered<float>(backend, name, x, runs);
  }
  double magnitude = 0;
  for (const SampleRun& run : runs) {
    const void* data = sample_at(x, run.first);
    const double largest = backend.full().max_abs_of(x.dtype, data, n, run.count, x.ld);
    if (!std::isfinite(largest)) {
      const index_t at = backend.full().first_nonfinite(x.dtype, data, n, run.count, x.ld);
      throw NonFinite(name, run.first + at / n, at % n);
    }
    magnitude = std::max(magnitude, largest);
  }
  return magnitude;
}

}  // namespace brockett
