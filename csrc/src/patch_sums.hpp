// Second moments of the patches of a few images, as one block of channels x channels for each pair of taps.
#pragma once

#include <vector>

#include "brockett/context.hpp"
#include "brockett/patch_autocorrelation.hpp"
#include "linalg/buffer.hpp"
#include "patch_plan.hpp"

namespace brockett {

/// Where the block of a pair of taps t >= t' is kept. Small groups are bundled, as products of a few channels are slow: a
/// bundle holds all products between its channels, of which only those within a group are ever read.
struct PatchBlocks {
  struct Bundle {
    index_t first = 0, channels = 0;
    index_t offset = 0;  ///< of its blocks in the store, in elements
  };

  explicit PatchBlocks(const PatchParams& params);
  /// First element of sum_p x(p + t') x(p + t)^T, channels x channels, column-major. The blocks of t with t' = 0 … t lie on
  /// top of each other: ld(bundle, t) apart from column to column.
  index_t at(const Bundle& bundle, index_t t, index_t other) const {
    return bundle.offset + (t * (t + 1) / 2 * bundle.channels + other) * bundle.channels;
  }
  static index_t ld(const Bundle& bundle, index_t t) { return (t + 1) * bundle.channels; }
  const Bundle& of_group(index_t group) const { return bundles[static_cast<std::size_t>(group / bundled_groups)]; }

  index_t taps = 0;
  index_t group_channels = 0;
  index_t bundled_groups = 1;
  std::vector<Bundle> bundles;
  index_t size = 0;  ///< elements of the store
};

/// The sums over the patches of some images.
struct PatchSums {
  linalg::Buffer<double> blocks;  ///< as PatchBlocks says
  std::vector<double> first;  ///< sum of x: taps x channels
};

/// Adds sum_p w x x^T and sum_p w x over all patches of x to `into`, where x stands for the image less `pivot` (one number a
/// channel, on the host; empty: zeros). `weights`: one number > 0 for each image, or empty.
void add_patches(const Context& context, const PatchParams& params, const PatchBlocks& layout, const ImageView& x,
                 const std::vector<double>& weights, const std::vector<double>& pivot, PatchSums& into);

/// How many images add_patches should be given at once.
index_t images_at_once(const PatchParams& params, const ImageView& x);

/// Mean of each channel over all positions of the images, with one weight an image.
std::vector<double> channel_means(const Context& context, const ImageView& x, const std::vector<double>& weights);

/// Image i.
const void* image_at(const ImageView& x, index_t i);

}  // namespace brockett
