// Streaming autocorrelation R = E[x x^T] of the inputs of a layer.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "brockett/context.hpp"
#include "brockett/matrix_view.hpp"

namespace brockett {

/// Samples of any supported element type, (n_samples, n_features) row-major: row i is sample i.
struct SampleView {
  DType dtype = DType::float64;
  const void* data = nullptr;
  index_t n_samples = 0;
  index_t n_features = 0;
  index_t ld = 0;  ///< elements between neighbouring samples, at least n_features
};

inline SampleView samples(const float* data, index_t n_samples, index_t n_features) {
  return {DType::float32, data, n_samples, n_features, n_features};
}
inline SampleView samples(const double* data, index_t n_samples, index_t n_features) {
  return {DType::float64, data, n_samples, n_features, n_features};
}

struct AutocorrelationParams {
  /// What is summed: `gram` adds up x x^T; `qr` streams the square root L of it (R = L L^T) by LQ, about twice the
  /// cost, for data whose condition number is beyond 1e7, where the Gram matrix loses the small end of the spectrum.
  enum class Method { gram, qr } method = Method::gram;
  /// `full`: float64 products and totals, whatever the data. `single`: float32 products of each block, float64 totals;
  /// half the cost, at 1e-7 relative to the largest eigenvalue. `tf32`, `bf16`, `fp16`: the same with samples rounded to 10,
  /// 7 and 10 bits of mantissa (5e-4, 4e-3, 5e-4 each), on the tensor units of a GPU; an update on the host is Unsupported.
  /// Data that come in that type lose nothing but in the float32 sums. Only `full` with `qr`.
  enum class Precision { full, single, tf32, bf16, fp16 } precision = Precision::full;
  /// Report the covariance E[(x - mean)(x - mean)^T] instead of E[x x^T].
  bool center = false;
};

/// Everything an Autocorrelation holds, for saving and sending. All on the host, float64.
struct AutocorrelationState {
  AutocorrelationParams params;
  index_t n_features = 0;
  index_t n_samples = 0;  ///< samples with a weight above zero
  double weight = 0;  ///< sum of the weights
  std::vector<double> mean;  ///< n_features
  std::vector<double>
      moment;  ///< n_features^2, row-major, symmetric: the weighted sum (gram) or its square root L (qr)
};

/// A streaming accumulator of R = sum_i w_i x_i x_i^T / sum_i w_i; memory O(n_features^2) however many samples pass.
///
/// An update that throws leaves the accumulator exactly as it was. Not for use from two threads at once.
class BROCKETT_EXPORT Autocorrelation {
 public:
  explicit Autocorrelation(const Context& context, index_t n_features, const AutocorrelationParams& params = {});
  /// From a saved state; InvalidArgument names a field that does not fit.
  Autocorrelation(const Context& context, const AutocorrelationState& state);
  ~Autocorrelation();
  Autocorrelation(Autocorrelation&&) noexcept;
  Autocorrelation& operator=(Autocorrelation&&) noexcept;

  /// Add samples (n_samples, n_features); `weights` are n_samples numbers >= 0 on the host, or null for ones. A sample of
  /// weight 0 is skipped, and may hold NaN. n_samples n_features^2 flops.
  void update(const SampleView& x, const double* weights = nullptr);
  /// The same for samples in host memory, whatever the context: on a GPU they go through pinned buffers, the next piece on
  /// its way while this one is summed, so that they may be more than the GPU's memory holds. A piece is at most 128 MB.
  void update_from_host(const SampleView& x, const double* weights = nullptr);
  /// Add what another accumulator of the same n_features and params holds.
  void merge(const Autocorrelation& other);
  /// Hold nothing again, in the same memory: for sums that are taken over and over.
  void clear();

  /// R, (n_features, n_features), symmetric. InvalidArgument when nothing was accumulated.
  Array<double> matrix() const;
  /// L with R = L L^T, (n_features, n_features), lower triangular, row-major. Only with Method::qr.
  Array<double> factor() const;
  /// E[x], n_features numbers on the host; kept whether or not `center` is set.
  std::vector<double> mean() const;

  index_t n_features() const;
  index_t n_samples() const;
  double weight() const;
  const AutocorrelationParams& params() const;
  /// Where it lies.
  const Context& context() const;
  AutocorrelationState state() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace brockett
