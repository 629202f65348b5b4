// Streaming autocorrelation of the patches that a convolution sees, without forming the patches.
#pragma once

#include <array>
#include <memory>
#include <vector>

#include "brockett/autocorrelation.hpp"
#include "brockett/context.hpp"
#include "brockett/matrix_view.hpp"

namespace brockett {

/// Images of any supported element type, (n_images, channels, height, width) row-major. Sequences have height 1.
struct ImageView {
  DType dtype = DType::float64;
  const void* data = nullptr;
  index_t n_images = 0;
  index_t channels = 0;
  index_t height = 0;
  index_t width = 0;
  index_t ld = 0;  ///< elements between neighbouring images, at least channels height width
};

/// What a convolution layer takes from its input. Axis 0 is the height, axis 1 the width.
struct PatchParams {
  index_t in_channels = 1;
  std::array<index_t, 2> kernel{1, 1};
  std::array<index_t, 2> stride{1, 1};
  std::array<index_t, 2> dilation{1, 1};
  /// Rows above, rows below, columns left, columns right.
  std::array<index_t, 4> padding{0, 0, 0, 0};
  /// Channels are cut into this many equal groups, each with an R of its own.
  index_t groups = 1;
  /// Padding repeats the image around instead of setting zeros.
  bool circular = false;
  /// Report the covariance of the patches instead of their second moment.
  bool center = false;
};

/// Everything a PatchAutocorrelation holds, for saving and sending. All on the host, float64.
struct PatchAutocorrelationState {
  PatchParams params;
  index_t n_samples = 0;       ///< patches of images with a weight above zero
  double weight = 0;           ///< sum of the weights over patches
  std::vector<double> mean;    ///< groups x n
  std::vector<double> moment;  ///< groups x n x n, symmetric: the weighted sums
};

/// A streaming accumulator of R = E[x x^T] over the patches x of images, n = channels / groups x k1 x k2 entries each in
/// the order (channel, row, column) of an unfolded kernel.
///
/// Patches are not formed. With stride 1 the block of R between taps t and t' depends on t and t' only through t - t' and
/// which windows are cut off at the border, so sum_p x_c(p) x_c'(p + lag) is found once for each lag and each piece of the
/// border; with strides the same holds of each residue of the positions modulo the stride (polyphase). For a k x k kernel
/// that is 2 k^2 - 2 k + 1 products of C x C instead of k^4 / 2; and where there are many channels all lags along the width
/// come from the Fourier modes of the lines by the correlation theorem, at the price of two: 2 k. Memory: totals of n^2 / 2
/// numbers a group, and a few copies of the padded images, at most a fixed number of images at a time.
///
/// An update that throws leaves the accumulator exactly as it was. Not for use from two threads at once.
class BROCKETT_EXPORT PatchAutocorrelation {
 public:
  PatchAutocorrelation(const Context& context, const PatchParams& params);
  /// From a saved state; InvalidArgument names a field that does not fit.
  PatchAutocorrelation(const Context& context, const PatchAutocorrelationState& state);
  ~PatchAutocorrelation();
  PatchAutocorrelation(PatchAutocorrelation&&) noexcept;
  PatchAutocorrelation& operator=(PatchAutocorrelation&&) noexcept;

  /// Add the patches of images; their sizes may differ between updates. `weights` are n_images numbers >= 0 on the host, or
  /// null for ones. An image of weight 0 is skipped, and may hold NaN. NonFinite is indexed (image, offset in the image).
  void update(const ImageView& x, const double* weights = nullptr);
  /// Add what another accumulator of the same params holds.
  void merge(const PatchAutocorrelation& other);
  /// Hold nothing again, nor memory for sums.
  void clear();

  /// R of one group, (n, n), symmetric. InvalidArgument when nothing was accumulated.
  Array<double> matrix(index_t group = 0) const;
  /// E[x], groups x n numbers on the host; kept whether or not `center` is set.
  std::vector<double> mean() const;
  /// One group as the state of an Autocorrelation of n features, for functions that take one.
  AutocorrelationState group_state(index_t group = 0) const;

  /// n
  index_t n_features() const;
  index_t n_samples() const;
  double weight() const;
  const PatchParams& params() const;
  const Context& context() const;
  PatchAutocorrelationState state() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace brockett
