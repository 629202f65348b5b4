#include "patch_cut.hpp"

#include <algorithm>
#include <utility>

#include "line_modes.hpp"

namespace brockett {

namespace {

using Piece = PatchAxis::Piece;
using Phase = PatchAxis::Phase;

/// A stretch of one axis: entries that products run over, and how many pairs of taps share it, for each lag.
struct Reach {
  index_t entries = 0;
  bool wide = false;
  std::vector<index_t> pairs;
};

// Of the rows, for one lag; the pieces that share their pairs are one.
std::vector<Reach> reaches_of_rows(const PatchAxis& axis, bool shared, index_t lag) {
  std::vector<Reach> all;
  for (const Phase& phase : axis.phases) {
    for (const Piece& piece : axis.pieces_at(phase, shared ? phase.shared : phase.windows, lag)) {
      all.push_back({piece.length(), false, {static_cast<index_t>(piece.taps.size())}});
    }
  }
  return all;
}

// Of the columns, for the lags from least_lag on; each piece is a strip that serves all of them.
std::vector<Reach> reaches_of_columns(const PatchAxis& axis, bool shared, index_t least_lag) {
  std::vector<Reach> all;
  for (const Phase& phase : axis.phases) {
    for (const Piece& piece : shared ? phase.shared : phase.windows) {
      const bool wide = is_wide(piece, axis.length);
      Reach reach{wide ? axis.length : piece.length(), wide, {}};
      for (index_t lag = least_lag; lag < axis.kernel; ++lag) {
        const auto own = axis.pieces_at(phase, {piece}, lag);
        if (!own.empty()) reach.pairs.push_back(static_cast<index_t>(own[0].taps.size()));
      }
      all.push_back(std::move(reach));
    }
  }
  return all;
}

// Seconds of a cut: products at 45 GFLOP/s or by modes, additions of blocks at 8 GB/s, a few microseconds a call.
double estimate(const PatchAxis& rows, const PatchAxis& cols, const PatchBlocks& layout, index_t images, Cut cut) {
  const auto channels = static_cast<double>(layout.bundles.front().channels);
  const double dims = channels < kFewChannels ? channels + 4 : channels;
  const double rate = dims * dims * static_cast<double>(images) / 22.5e9;
  const double addition = 1e-7 + channels * channels * 24 / 8e9;
  double seconds = 0;
  for (index_t lag = 0; lag < rows.kernel; ++lag) {
    const auto across = reaches_of_columns(cols, cut.shared_cols, lag ? 1 - cols.kernel : 0);
    for (const Reach& r : reaches_of_rows(rows, cut.shared_rows, lag)) {
      for (const Reach& c : across) {
        const auto shifts = static_cast<index_t>(c.pairs.size());
        seconds += static_cast<double>(shifts) * (2e-6 + rate * static_cast<double>(r.entries * c.entries));
        for (const index_t pairs : c.pairs) {
          const auto count = static_cast<double>(r.pairs[0] * pairs);
          if (count > 1) seconds += (count + 1) * addition;
        }
        if (c.wide) seconds -= std::max(0.0, saved_by_modes(layout, r.entries * images, cols.length, shifts));
      }
    }
  }
  return seconds;
}

}  // namespace

Cut best_cut(const PatchAxis& rows, const PatchAxis& cols, const PatchBlocks& layout, index_t images) {
  Cut best;
  double least = 0;
  for (const bool r : {true, false}) {
    for (const bool c : {true, false}) {
      const Cut cut{r, c};
      const double seconds = estimate(rows, cols, layout, images, cut);
      if ((r && c) || seconds < least) {
        least = seconds;
        best = cut;
      }
    }
  }
  return best;
}

// Products of the lines themselves run at 45 GFLOP/s. Those of their modes are products of small matrices, 35 GFLOP/s, whose
// results are read and written a few times and then joined for every shift.
double saved_by_modes(const PatchBlocks& layout, index_t lines, index_t pitch, index_t shifts) {
  const auto channels = static_cast<double>(layout.bundles.front().channels);
  const auto count = static_cast<double>(lines), n_shifts = static_cast<double>(shifts);
  const double direct = count * static_cast<double>(pitch) * n_shifts / 22.5e9;
  const double modes = static_cast<double>(LineModes::length_for(pitch)) * (count / 8.75e9 + 3e-9 + n_shifts * 2e-10);
  return channels * channels * static_cast<double>(layout.bundles.size()) * (direct - modes);
}

double seconds_of_transforms(index_t numbers, index_t pitch, bool by_products) {
  const double each = by_products ? static_cast<double>(LineModes::length_for(pitch)) / 22.5e9 : 3e-9;
  return each * static_cast<double>(numbers);
}

}  // namespace brockett
