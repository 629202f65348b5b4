#include "sample_blocks.hpp"

#include <cmath>

namespace brockett {

namespace {

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

}  // namespace

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

double check_sample_values(linalg::Backend& backend, const char* name, const SampleView& x,
                           const std::vector<double>& weights) {
  const index_t n = x.n_features;
  double magnitude = 0;
  for (const SampleRun& run : sample_runs(x.n_samples, weights, x.n_samples)) {
    const void* data = sample_at(x, run.first);
    const index_t at = backend.full().first_nonfinite(x.dtype, data, n, run.count, x.ld);
    if (at >= 0) throw NonFinite(name, run.first + at / n, at % n);
    if (x.dtype == DType::float64) {
      magnitude = std::max(magnitude, backend.full().max_abs({static_cast<const double*>(data), n, run.count, x.ld}));
    } else if (x.dtype == DType::float32) {
      magnitude = std::max(magnitude, backend.single().max_abs({static_cast<const float*>(data), n, run.count, x.ld}));
    } else {
      const index_t step = std::clamp<index_t>((index_t{1} << 20) / n, 1, run.count);
      linalg::Buffer<float> wide(backend.single(), n, step);
      for (index_t j = 0; j < run.count; j += step) {
        const auto part = wide.mat().columns(0, std::min(step, run.count - j));
        backend.single().convert_from(x.dtype, sample_at(x, run.first + j), x.ld, part);
        magnitude = std::max(magnitude, backend.single().max_abs(part));
      }
    }
  }
  return magnitude;
}

}  // namespace brockett
