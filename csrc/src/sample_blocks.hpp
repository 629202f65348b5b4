// Samples of any element type, checked, and handed out in float blocks.
#pragma once

#include <algorithm>
#include <vector>

#include "check.hpp"

namespace brockett {

/// A run of neighbouring samples that count.
struct SampleRun {
  index_t first = 0;
  index_t count = 0;
};

/// Weights of an update: none means all one.
struct SampleWeights {
  std::vector<double> values;  // empty: all one
  double sum = 0;
  double largest = 1;
};

/// Shape and strides of an update of samples with n features.
void check_samples(const char* name, const SampleView& x, index_t n);
/// Finite and >= 0, named "weights"; all-one weights come back empty.
SampleWeights check_weights(const double* weights, index_t n_samples);
/// No NaN or Inf in the samples that count (NonFinite names the first); returns their largest magnitude.
double check_sample_values(linalg::Backend& backend, const char* name, const SampleView& x,
                           const std::vector<double>& weights);

/// The runs of samples of non-zero weight, cut so that none is longer than `longest`.
std::vector<SampleRun> sample_runs(index_t n_samples, const std::vector<double>& weights, index_t longest);

/// Size of an element.
index_t bytes_of(DType type);

/// Address of sample i.
const void* sample_at(const SampleView& x, index_t i);

/// The samples need no conversion: blocks of them can be read where they lie.
template <class T>
bool readable_in_place(const SampleView& x, const std::vector<double>& weights) {
  return x.dtype == dtype_of<T>() && weights.empty();
}

/// Calls f(X, w) for blocks X (n_features x b) of the samples of non-zero weight, converted to T; w are their weights,
/// empty when all are one. f may change X only if it says so by `writes`: else X may be the caller's own memory.
template <class T, class F>
void for_each_sample_block(linalg::Backend& backend, const SampleView& x, const std::vector<double>& weights,
                           index_t block, bool writes, F&& f) {
  auto& la = linalg::of<T>(backend);
  block = std::min(block, x.n_samples);
  if (!writes && readable_in_place<T>(x, weights)) {
    T* data = const_cast<T*>(static_cast<const T*>(x.data));
    for (index_t i = 0; i < x.n_samples; i += block) {
      f(linalg::Mat<T>(data + i * x.ld, x.n_features, std::min(block, x.n_samples - i), x.ld), std::vector<double>());
    }
    return;
  }
  linalg::Buffer<T> buffer(la, x.n_features, block);
  std::vector<double> w;
  index_t filled = 0;
  const auto flush = [&] {
    if (filled) f(buffer.mat().columns(0, filled), w);
    filled = 0;
    w.clear();
  };
  for (const SampleRun& run : sample_runs(x.n_samples, weights, block)) {
    if (filled + run.count > block) flush();
    la.convert_from(x.dtype, sample_at(x, run.first), x.ld, buffer.mat().columns(filled, run.count));
    if (!weights.empty()) {
      w.insert(w.end(), weights.begin() + run.first, weights.begin() + run.first + run.count);
    }
    filled += run.count;
  }
  flush();
}

}  // namespace brockett
