// How the taps of a kernel meet the positions of one axis: phases, windows, and the pieces that windows are cut into.
#pragma once

#include <string>
#include <vector>

#include "brockett/patch_autocorrelation.hpp"

namespace brockett {

/// One axis of a convolution. Padded positions are p = residue + stride v; the positions of one residue are a phase, in which
/// tap t (at position dilation t of a window) of window o reads entry v = offset(t) + o.
struct PatchAxis {
  /// Entries [first, last) of a phase that the windows of all these taps contain.
  struct Piece {
    index_t first = 0, last = 0;
    std::vector<index_t> taps;
    index_t length() const { return last - first; }
  };
  /// Entries target, target + 1, … of a phase come from source, source + stride, … of the image; the rest is padding.
  struct Run {
    index_t target = 0, source = 0, count = 0;
  };
  struct Phase {
    index_t residue = 0;
    index_t length = 0;  ///< entries that any window reads
    std::vector<index_t> taps;
    std::vector<Run> runs;
    std::vector<Piece> shared;  ///< the windows of all taps, cut where one of them begins or ends
    std::vector<Piece> windows;  ///< the window of each tap by itself
  };
  /// Where tap t - lag of the same window is, seen from tap t of a phase.
  struct Partner {
    std::size_t phase = 0;
    index_t shift = 0;
  };

  index_t kernel = 1, stride = 1, dilation = 1;
  index_t out = 0;  ///< windows
  index_t length = 0;  ///< of the longest phase
  bool skips_zeros = false;  ///< padding is zero, so that nothing in it counts
  std::vector<Phase> phases;
  std::vector<std::size_t> phase_of;  ///< of each tap
  std::vector<index_t> offset_of;

  Partner partner(const Phase& phase, index_t lag) const;
  /// Is tap t - lag of a window for any of these taps t?
  bool reachable(const std::vector<index_t>& taps, index_t lag) const;
  /// Does the partner of a piece lie in padding that counts for nothing?
  bool is_padding(const Partner& partner, const Piece& piece) const;
  /// What of the pieces of a phase pairs of taps t, t - lag need: with these t alone, those of the same t as one.
  std::vector<Piece> pieces_at(const Phase& phase, const std::vector<Piece>& pieces, index_t lag) const;
};

/// The plan of an axis of `size` entries; InvalidArgument "X" when the kernel is larger than the padded axis. Pieces in zero
/// padding are left out if `skip_zeros`.
PatchAxis plan_axis(const PatchParams& params, int axis, index_t size, bool skip_zeros);

/// InvalidArgument names the field that makes no sense.
void check_patch_params(const PatchParams& params);

}  // namespace brockett
