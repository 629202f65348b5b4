// What the sums of patches cost, and the cut of the windows that costs least.
#pragma once

#include <vector>

#include "patch_plan.hpp"
#include "patch_sums.hpp"

namespace brockett {

/// Products of fewer channels than this run below half of the rate of large ones: 5 GFLOP/s at 3 channels, 13 at 4, 37 at 8,
/// 45 at 64 (Zen 4, OpenBLAS 0.3.34, inner dimension 1024).
constexpr index_t kFewChannels = 8;

/// Which cut of the windows each axis uses.
struct Cut {
  bool shared_rows = true, shared_cols = true;
  const std::vector<PatchAxis::Piece>& rows(const PatchAxis::Phase& phase) const {
    return shared_rows ? phase.shared : phase.windows;
  }
  const std::vector<PatchAxis::Piece>& cols(const PatchAxis::Phase& phase) const {
    return shared_cols ? phase.shared : phase.windows;
  }
};

Cut best_cut(const PatchAxis& rows, const PatchAxis& cols, const PatchBlocks& layout, index_t images);

/// A narrow strip of columns is gathered; a wide one is read in place, with zeros in the factor that is not shifted.
inline bool is_wide(const PatchAxis::Piece& piece, index_t pitch) { return 2 * piece.length() >= pitch; }

/// Seconds that LineModes saves over direct products of lines of `pitch` positions at some shifts, without the transforms.
double saved_by_modes(const PatchBlocks& layout, index_t lines, index_t pitch, index_t shifts);
/// Seconds of the transforms of lines of `pitch` positions, of so many numbers: by FFT, or as products with the matrix of modes
/// as on a GPU, where a number takes the longer the longer its line is.
double seconds_of_transforms(index_t numbers, index_t pitch, bool by_products);

}  // namespace brockett
