#include "patch_plan.hpp"

#include <algorithm>
#include <iterator>
#include <set>

#include "brockett/error.hpp"

namespace brockett {

namespace {

constexpr index_t kLargestParameter = index_t{1} << 30;

index_t floor_div(index_t a, index_t b) { return a / b - (a % b < 0); }
index_t modulo(index_t a, index_t b) { return a - floor_div(a, b) * b; }

// Entries of a phase that hold data, as runs of equally spaced source positions.
std::vector<PatchAxis::Run> runs_of(const PatchAxis& axis, const PatchAxis::Phase& phase, index_t before, index_t size,
                                    bool circular) {
  std::vector<PatchAxis::Run> runs;
  for (index_t v = 0; v < phase.length; ++v) {
    index_t source = phase.residue + axis.stride * v - before;
    if (circular) source = modulo(source, size);
    if (source < 0 || source >= size) continue;
    if (!runs.empty()) {
      PatchAxis::Run& last = runs.back();
      if (last.target + last.count == v && last.source + axis.stride * last.count == source) {
        ++last.count;
        continue;
      }
    }
    runs.push_back({v, source, 1});
  }
  return runs;
}

// [first, last) of a phase outside of which all is zero
std::pair<index_t, index_t> extent(const PatchAxis::Phase& phase, bool skip_zeros) {
  if (!skip_zeros) return {0, phase.length};
  if (phase.runs.empty()) return {0, 0};
  return {phase.runs.front().target, phase.runs.back().target + phase.runs.back().count};
}

std::vector<PatchAxis::Piece> shared_pieces(const PatchAxis& axis, const PatchAxis::Phase& phase, index_t first,
                                            index_t last) {
  std::set<index_t> cuts{first, last};
  for (const index_t t : phase.taps) {
    const index_t q = axis.offset_of[static_cast<std::size_t>(t)];
    for (const index_t cut : {q, q + axis.out}) {
      if (first < cut && cut < last) cuts.insert(cut);
    }
  }
  std::vector<PatchAxis::Piece> pieces;
  for (auto cut = cuts.begin(); std::next(cut) != cuts.end(); ++cut) {
    PatchAxis::Piece piece{*cut, *std::next(cut), {}};
    for (const index_t t : phase.taps) {
      const index_t q = axis.offset_of[static_cast<std::size_t>(t)];
      if (q <= piece.first && piece.last <= q + axis.out) piece.taps.push_back(t);
    }
    if (!piece.taps.empty()) pieces.push_back(std::move(piece));
  }
  return pieces;
}

std::vector<PatchAxis::Piece> window_pieces(const PatchAxis& axis, const PatchAxis::Phase& phase, index_t first,
                                            index_t last) {
  std::vector<PatchAxis::Piece> pieces;
  for (const index_t t : phase.taps) {
    const index_t q = axis.offset_of[static_cast<std::size_t>(t)];
    const index_t begin = std::max(q, first), end = std::min(q + axis.out, last);
    if (begin < end) pieces.push_back({begin, end, {t}});
  }
  return pieces;
}

void check_count(const char* name, index_t value, index_t least) {
  if (value < least || value > kLargestParameter) {
    throw InvalidArgument(name, "must be at least " + std::to_string(least) + ", is " + std::to_string(value));
  }
}

}  // namespace

PatchAxis::Partner PatchAxis::partner(const Phase& phase, index_t lag) const {
  const index_t at = phase.residue - dilation * lag, residue = modulo(at, stride);
  for (std::size_t i = 0; i < phases.size(); ++i) {
    if (phases[i].residue == residue) return {i, floor_div(at, stride)};
  }
  throw InvalidArgument("kernel_size", "no tap lies there");
}

bool PatchAxis::reachable(const std::vector<index_t>& taps, index_t lag) const {
  return std::any_of(taps.begin(), taps.end(), [&](index_t t) { return t - lag >= 0 && t - lag < kernel; });
}

bool PatchAxis::is_padding(const Partner& partner, const Piece& piece) const {
  const auto& runs = phases[partner.phase].runs;
  return skips_zeros && std::none_of(runs.begin(), runs.end(), [&](const Run& run) {
           return run.target < piece.last + partner.shift && piece.first + partner.shift < run.target + run.count;
         });
}

std::vector<PatchAxis::Piece> PatchAxis::pieces_at(const Phase& phase, const std::vector<Piece>& pieces,
                                                   index_t lag) const {
  std::vector<Piece> some;
  for (const Piece& piece : pieces) {
    if (!reachable(piece.taps, lag) || is_padding(partner(phase, lag), piece)) continue;
    Piece own{piece.first, piece.last, {}};
    std::copy_if(piece.taps.begin(), piece.taps.end(), std::back_inserter(own.taps),
                 [&](index_t t) { return t - lag >= 0 && t - lag < kernel; });
    if (!some.empty() && some.back().last == own.first && some.back().taps == own.taps) {
      some.back().last = own.last;
    } else {
      some.push_back(std::move(own));
    }
  }
  return some;
}

PatchAxis plan_axis(const PatchParams& params, int axis_number, index_t size, bool skip_zeros) {
  const auto a = static_cast<std::size_t>(axis_number);
  const index_t before = params.padding[2 * a], after = params.padding[2 * a + 1];
  PatchAxis axis;
  axis.kernel = params.kernel[a];
  axis.stride = params.stride[a];
  axis.dilation = params.dilation[a];
  axis.skips_zeros = skip_zeros;
  const index_t span = axis.dilation * (axis.kernel - 1) + 1, padded = size + before + after;
  if (size < 1 || padded < span) {
    throw InvalidArgument("X", std::string("is too small for the kernel: its ") + (a == 0 ? "height" : "width") +
                                   " is " + std::to_string(size) + ", " + std::to_string(padded) +
                                   " with padding, and a patch spans " + std::to_string(span));
  }
  axis.out = (padded - span) / axis.stride + 1;
  for (index_t t = 0; t < axis.kernel; ++t) {
    const index_t at = axis.dilation * t, residue = at % axis.stride, q = at / axis.stride;
    std::size_t i = 0;
    while (i < axis.phases.size() && axis.phases[i].residue != residue) ++i;
    if (i == axis.phases.size()) {
      axis.phases.emplace_back();
      axis.phases.back().residue = residue;
    }
    PatchAxis::Phase& phase = axis.phases[i];
    phase.taps.push_back(t);
    phase.length = std::max(phase.length, q + axis.out);
    axis.length = std::max(axis.length, phase.length);
    axis.phase_of.push_back(i);
    axis.offset_of.push_back(q);
  }
  for (PatchAxis::Phase& phase : axis.phases) {
    phase.runs = runs_of(axis, phase, before, size, params.circular);
    const auto [first, last] = extent(phase, skip_zeros);
    if (first == last) continue;
    phase.shared = shared_pieces(axis, phase, first, last);
    phase.windows = window_pieces(axis, phase, first, last);
  }
  return axis;
}

void check_patch_params(const PatchParams& p) {
  check_count("in_channels", p.in_channels, 1);
  check_count("groups", p.groups, 1);
  if (p.in_channels % p.groups != 0) {
    throw InvalidArgument("groups",
                          std::to_string(p.groups) + " do not divide " + std::to_string(p.in_channels) + " channels");
  }
  for (std::size_t a = 0; a < 2; ++a) {
    check_count("kernel_size", p.kernel[a], 1);
    check_count("stride", p.stride[a], 1);
    check_count("dilation", p.dilation[a], 1);
    check_count("padding", p.padding[2 * a], 0);
    check_count("padding", p.padding[2 * a + 1], 0);
  }
  if (p.kernel[0] * p.kernel[1] > kLargestParameter || p.in_channels * p.kernel[0] * p.kernel[1] > kLargestParameter) {
    throw InvalidArgument("kernel_size", "a patch would have more than 2^30 entries");
  }
}

}  // namespace brockett
