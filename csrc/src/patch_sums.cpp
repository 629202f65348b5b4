#include "patch_sums.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <numeric>
#include <set>
#include <span>

#include "check.hpp"
#include "linalg/linalg.hpp"
#include "line_modes.hpp"
#include "patch_cut.hpp"

namespace brockett {

using linalg::Buffer;
using linalg::LinAlg;
using linalg::Mat;
using linalg::Op;

namespace {

using Piece = PatchAxis::Piece;
using Phase = PatchAxis::Phase;

// Doubles of the padded images that are held at once (8 MiB): they stay in the last cache.
constexpr index_t kChunk = index_t{1} << 20;
// Doubles of a factor that one product reads.
constexpr index_t kStretch = index_t{1} << 13;
// Rows of a product of stacked lags: with 64 rows BLAS spends a quarter of its time on packing the factors.
constexpr index_t kStacked = 384;

index_t bytes_of(DType type) { return type == DType::float64 ? 8 : type == DType::float32 ? 4 : 2; }

/// A pair of taps, as block of the store.
struct Pair {
  index_t tap, other;
};

// Pairs of taps (t, t - lag) whose windows contain a piece of each axis, t not before t - lag.
std::vector<Pair> pairs_of(const PatchAxis& rows, const PatchAxis& cols, const Piece& piece_r, const Piece& piece_c,
                           index_t lag_r, index_t lag_c) {
  std::vector<Pair> pairs;
  for (const index_t r : piece_r.taps) {
    if (r - lag_r < 0 || r - lag_r >= rows.kernel) continue;
    for (const index_t c : piece_c.taps) {
      if (c - lag_c < 0 || c - lag_c >= cols.kernel) continue;
      pairs.push_back({r * cols.kernel + c, (r - lag_r) * cols.kernel + c - lag_c});
    }
  }
  return pairs;
}

// Doubles that products by modes hold at once, besides the result.
constexpr index_t kModeSums = index_t{1} << 18;

/// The sums of one chunk of images.
class Chunk {
 public:
  Chunk(const Context& context, const PatchParams& params, const PatchBlocks& layout, const ImageView& x,
        const std::vector<double>& weights, const std::vector<double>& pivot, PatchSums& into)
      : context_(context),
        la_(context.backend().full()),
        layout_(layout),
        x_(x),
        weights_(weights),
        pivot_(pivot),
        into_(into),
        rows_(plan_axis(params, 0, x.height, pivot.empty() && !params.circular)),
        cols_(plan_axis(params, 1, x.width, pivot.empty() && !params.circular)),
        pitch_(cols_.length),
        cut_(best_cut(rows_, cols_, layout, x.n_images)) {}

  void run() {
    lay_out();
    for (std::size_t r = 0; r < rows_.phases.size(); ++r) {
      for (std::size_t c = 0; c < cols_.phases.size(); ++c) {
        for (const Piece& strip : cut_.cols(cols_.phases[c])) add_strip(r, c, strip);
      }
    }
  }

 private:
  // Phases in columns of C channels, position (row v, image i, column w) at (v n + i) pitch + w: so a shift by rows and
  // columns is a shift of the pointer, for all images at once.
  void lay_out() {
    const index_t channels = x_.channels, area = x_.height * x_.width, n = x_.n_images;
    for (const Phase& r : rows_.phases) {
      for (std::size_t c = 0; c < cols_.phases.size(); ++c) {
        phases_.emplace_back(la_, channels, r.length * n * pitch_);
        la_.fill(phases_.back(), 0.0);
      }
    }
    modes_.resize(phases_.size());
    Buffer<double> shift, ones;
    if (!pivot_.empty()) {  // padding is zero less the pivot
      shift = Buffer<double>(la_, channels, 1);
      la_.upload(pivot_.data(), shift);
      index_t longest = area;
      for (const auto& phase : phases_) longest = std::max(longest, phase.cols());
      ones = Buffer<double>(la_, 1, longest);
      la_.fill(ones, 1.0);
      for (const auto& phase : phases_) {
        la_.multiply(Op::none, Op::none, -1.0, shift, ones.mat().columns(0, phase.cols()), 0.0, phase);
      }
    }
    Buffer<double> wide(la_, x_.dtype == DType::float64 ? 0 : area, channels), image(la_, channels, area);
    for (index_t i = 0; i < n; ++i) {
      const void* data = image_at(x_, i);
      if (x_.dtype == DType::float64) {
        la_.transpose(Mat<const double>(static_cast<const double*>(data), area, channels), image);
      } else {
        la_.convert_from(x_.dtype, data, area, wide);
        la_.transpose(wide, image);
      }
      if (!pivot_.empty()) {
        la_.multiply(Op::none, Op::none, -1.0, shift, ones.mat().columns(0, area), 1.0, image);
      }
      for (std::size_t r = 0; r < rows_.phases.size(); ++r) {
        for (std::size_t c = 0; c < cols_.phases.size(); ++c) place(image, i, r, c);
      }
    }
  }

  // One image (channels x positions) into one pair of phases.
  void place(Mat<const double> image, index_t i, std::size_t r, std::size_t c) {
    const index_t channels = x_.channels;
    double* const target = phase(r, c).data;
    for (const auto& run_c : cols_.phases[c].runs) {
      for (const auto& run_r : rows_.phases[r].runs) {
        const double* from = image.data + (run_r.source * x_.width + run_c.source) * channels;
        double* to = target + ((run_r.target * x_.n_images + i) * pitch_ + run_c.target) * channels;
        if (cols_.stride == 1) {  // rows are contiguous: all at once
          la_.copy(Mat<const double>(from, channels * run_c.count, run_r.count, rows_.stride * x_.width * channels),
                   Mat<double>(to, channels * run_c.count, run_r.count, x_.n_images * pitch_ * channels));
          continue;
        }
        for (index_t v = 0; v < run_r.count; ++v) {
          la_.copy(Mat<const double>(from + v * rows_.stride * x_.width * channels, channels, run_c.count,
                                     cols_.stride * channels),
                   Mat<double>(to + v * x_.n_images * pitch_ * channels, channels, run_c.count));
        }
      }
    }
  }

  Mat<double> phase(std::size_t r, std::size_t c) const { return phases_[r * cols_.phases.size() + c]; }

  /// The columns of a strip in all rows of a phase: `data` is the factor that is not shifted, `pitch` apart from row to row.
  struct Strip {
    Buffer<double> kept;
    Mat<const double> data;
    index_t pitch = 0, first = 0, last = 0;
  };

  Strip strip_of(std::size_t r, std::size_t c, const Piece& piece) {
    const Mat<double> all = phase(r, c);
    const index_t channels = x_.channels, lines = rows_.phases[r].length * x_.n_images, width = piece.length();
    const bool wide = is_wide(piece, pitch_);
    Strip strip;
    strip.pitch = wide ? pitch_ : width;
    strip.first = wide ? piece.first : 0;
    strip.last = strip.first + width;
    if (wide && width == pitch_ && weights_.empty()) {
      strip.data = all;
      return strip;
    }
    strip.kept = Buffer<double>(la_, channels, lines * strip.pitch);
    if (width < strip.pitch) la_.fill(strip.kept, 0.0);
    la_.copy(Mat<const double>(all.data + piece.first * channels, channels * width, lines, channels * pitch_),
             Mat<double>(strip.kept.data() + strip.first * channels, channels * width, lines, channels * strip.pitch));
    if (!weights_.empty()) {
      std::vector<double> w;
      w.reserve(static_cast<std::size_t>(lines * strip.pitch));
      for (index_t line = 0; line < lines; ++line) {
        w.insert(w.end(), static_cast<std::size_t>(strip.pitch),
                 weights_[static_cast<std::size_t>(line % x_.n_images)]);
      }
      la_.scale_columns(strip.kept, w.data());
    }
    strip.data = strip.kept;
    return strip;
  }

  // All products in which the tap that comes later reads this strip.
  void add_strip(std::size_t r, std::size_t c, const Piece& piece) {
    const Strip strip = strip_of(r, c, piece);
    add_first(r, strip, piece);
    std::map<std::pair<std::size_t, index_t>, Buffer<double>> gathered;
    LineModes modes;
    if (is_wide(piece, pitch_)) {
      modes = modes_of(r, c, piece, strip);
    } else {
      gather(r, c, piece, gathered);
    }
    const auto n_bundles = static_cast<index_t>(layout_.bundles.size());
    context_.backend().for_each(
        n_bundles * rows_.kernel,
        [&](index_t task) {
          const auto& bundle = layout_.bundles[static_cast<std::size_t>(task % n_bundles)];
          for (const Piece& piece_r : rows_at(r, task / n_bundles)) {
            add_lags(r, c, piece_r, piece, strip, modes, task / n_bundles, bundle, gathered);
          }
        },
        [&] { context_.check_interrupt(); });
  }

  // The partners of a narrow strip, for every lag along the width.
  void gather(std::size_t r, std::size_t c, const Piece& piece,
              std::map<std::pair<std::size_t, index_t>, Buffer<double>>& out) {
    const index_t channels = x_.channels, width = piece.length();
    for (index_t lag_r = 0; lag_r < rows_.kernel; ++lag_r) {
      if (!rows_.reachable(rows_.phases[r].taps, lag_r)) continue;
      const auto row = rows_.partner(rows_.phases[r], lag_r);
      for (index_t lag_c = 1 - cols_.kernel; lag_c < cols_.kernel; ++lag_c) {
        if (!cols_.reachable(piece.taps, lag_c) || out.contains({row.phase, lag_c})) continue;
        const auto col = cols_.partner(cols_.phases[c], lag_c);
        if (cols_.is_padding(col, piece)) continue;
        const Mat<double> all = phase(row.phase, col.phase);
        const index_t lines = rows_.phases[row.phase].length * x_.n_images;
        Buffer<double> strip(la_, channels, lines * width);
        la_.copy(Mat<const double>(all.data + (piece.first + col.shift) * channels, channels * width, lines,
                                   channels * pitch_),
                 Mat<double>(strip.data(), channels * width, lines));
        out.emplace(std::pair{row.phase, lag_c}, std::move(strip));
      }
    }
  }

  /// One product sum_f b_f a_f^T of a strip a and its partner b, and the pairs of taps it is for.
  struct Product {
    PatchAxis::Partner col;
    index_t lag = 0;  // along the width
    std::vector<Pair> pairs;
    const double* partner = nullptr;
  };

  std::vector<Piece> rows_at(std::size_t r, index_t lag) const {
    return rows_.pieces_at(rows_.phases[r], cut_.rows(rows_.phases[r]), lag);
  }

  // The products of one stretch of rows and columns and one lag along the height, by the phase of the columns of the partner.
  std::map<std::size_t, std::vector<Product>> products_of(std::size_t c, const Piece& piece_r, const Piece& piece_c,
                                                          index_t lag_r) const {
    std::map<std::size_t, std::vector<Product>> products;
    for (index_t lag_c = lag_r ? 1 - cols_.kernel : 0; lag_c < cols_.kernel; ++lag_c) {
      auto pairs = pairs_of(rows_, cols_, piece_r, piece_c, lag_r, lag_c);
      if (pairs.empty()) continue;
      const auto col = cols_.partner(cols_.phases[c], lag_c);
      if (!cols_.is_padding(col, piece_c)) products[col.phase].push_back({col, lag_c, std::move(pairs)});
    }
    return products;
  }

  double saved(const Piece& piece_r, std::size_t shifts) const {
    return saved_by_modes(layout_, piece_r.length() * x_.n_images, pitch_, static_cast<index_t>(shifts));
  }

  // The modes of a wide strip; those of its partners are kept. Nothing where they would not save time.
  LineModes modes_of(std::size_t r, std::size_t c, const Piece& piece_c, const Strip& strip) {
    std::set<std::size_t> partners;
    double gain = 0;
    for (index_t lag_r = 0; lag_r < rows_.kernel; ++lag_r) {
      for (const Piece& piece_r : rows_at(r, lag_r)) {
        for (const auto& [col, products] : products_of(c, piece_r, piece_c, lag_r)) {
          const double seconds = saved(piece_r, products.size());
          if (seconds <= 0) continue;
          gain += seconds;
          partners.insert(rows_.partner(rows_.phases[r], lag_r).phase * cols_.phases.size() + col);
        }
      }
    }
    index_t columns = strip.data.cols;
    for (const std::size_t at : partners) {
      if (modes_[at].empty()) columns += phases_[at].cols();
    }
    const bool by_products = context_.backend().batch_size(1) > 1;
    if (gain <= seconds_of_transforms(columns * x_.channels, pitch_, by_products)) return {};
    for (const std::size_t at : partners) {
      if (modes_[at].empty()) modes_[at] = LineModes(la_, phases_[at], pitch_);
    }
    return {la_, strip.data, pitch_};
  }

  // The products of one strip, one stretch of rows and one lag along the height, for all lags along the width.
  void add_lags(std::size_t r, std::size_t c, const Piece& piece_r, const Piece& piece_c, const Strip& strip,
                const LineModes& modes, index_t lag_r, const PatchBlocks::Bundle& bundle,
                const std::map<std::pair<std::size_t, index_t>, Buffer<double>>& gathered) {
    for (auto& [col, products] : products_of(c, piece_r, piece_c, lag_r)) {
      const auto row = rows_.partner(rows_.phases[r], lag_r);
      if (!modes.empty() && saved(piece_r, products.size()) > 0) {
        const index_t n = x_.n_images, lines = piece_r.length() * n;
        add_by_modes({modes, piece_r.first * n, lines, bundle.first, bundle.channels},
                     {modes_[row.phase * cols_.phases.size() + col], (piece_r.first + row.shift) * n, lines,
                      bundle.first, bundle.channels},
                     products, bundle);
        continue;
      }
      const bool wide = is_wide(piece_c, pitch_);
      const index_t channels = x_.channels, line = x_.n_images * strip.pitch;
      const index_t begin = piece_r.first * line + strip.first;
      const index_t end = (piece_r.last * x_.n_images - 1) * strip.pitch + strip.last;
      for (Product& product : products) {
        const index_t at = begin + row.shift * line;
        product.partner = bundle.first + (wide ? phase(row.phase, col).data + (at + product.col.shift) * channels
                                               : gathered.at({row.phase, product.lag}).data() + at * channels);
      }
      std::sort(products.begin(), products.end(),
                [](const Product& a, const Product& b) { return std::less<>()(a.partner, b.partner); });
      const Mat<const double> a(strip.data.data + begin * channels + bundle.first, bundle.channels, end - begin,
                                channels);
      // lags side by side make one product
      const index_t most = wide && bundle.channels == channels ? std::max<index_t>(1, kStacked / channels) : 1;
      for (std::size_t first = 0, last; first < products.size(); first = last) {
        last = first + 1;
        while (last < products.size() && static_cast<index_t>(last - first) < most &&
               products[last].partner == products[last - 1].partner + channels) {
          ++last;
        }
        add_window(a, {products.data() + first, last - first}, bundle);
      }
    }
  }

  void add_by_modes(const LineModes::Part& a, const LineModes::Part& b, const std::vector<Product>& products,
                    const PatchBlocks::Bundle& bundle) {
    std::vector<index_t> shifts;
    for (const Product& product : products) shifts.push_back(product.col.shift);
    const Buffer<double> sums = LineModes::products(la_, a, b, shifts, kModeSums);
    const index_t n = bundle.channels;
    for (std::size_t j = 0; j < products.size(); ++j) {
      for (const Pair& pair : products[j].pairs) {
        la_.add(1.0, Mat<const double>(sums.data() + static_cast<index_t>(j) * n * n, n, n), block(bundle, pair));
      }
    }
  }

  // Products whose partners begin one, two, … columns later. A run of w columns of b is a column of w channels entries in a
  // matrix with w times fewer columns, which one product joins with every w-th column of a: for each of the w residues.
  void add_window(Mat<const double> a, std::span<const Product> products, const PatchBlocks::Bundle& bundle) {
    const auto w = static_cast<index_t>(products.size());
    const index_t n = bundle.channels, channels = x_.channels;
    const bool direct = w == 1 && products[0].pairs.size() == 1;
    Buffer<double> sums(la_, direct ? 0 : w * n, n);
    la_.fill(sums, 0.0);
    const Mat<double> target = direct ? block(bundle, products[0].pairs[0]) : sums.mat();
    const index_t stretch = stretch_length(n) * w;  // pieces that stay in the cache
    for (index_t f = 0; f < a.cols; f += stretch) {
      const index_t count = std::min(stretch, a.cols - f);
      for (index_t residue = 0; residue < std::min(w, count); ++residue) {
        const index_t columns = (count - residue + w - 1) / w, at = (f + residue) * channels;
        const Mat<const double> every(a.data + at, n, columns, w * channels);
        const Mat<const double> runs(products[0].partner + at, w == 1 ? n : w * channels, columns, w * channels);
        la_.multiply(Op::none, Op::transpose, 1.0, runs, every, 1.0, target);
      }
    }
    if (direct) return;
    for (index_t j = 0; j < w; ++j) {
      for (const Pair& pair : products[static_cast<std::size_t>(j)].pairs) {
        la_.add(1.0, sums.mat().block(j * n, 0, n, n), block(bundle, pair));
      }
    }
  }

  Mat<double> block(const PatchBlocks::Bundle& bundle, const Pair& pair) const {
    return {into_.blocks.data() + layout_.at(bundle, pair.tap, pair.other), bundle.channels, bundle.channels,
            PatchBlocks::ld(bundle, pair.tap)};
  }

  index_t stretch_length(index_t n) const {
    const index_t length = std::clamp<index_t>(kStretch / n, 192, 4096);
    const auto bytes = static_cast<std::size_t>(length * n) * sizeof(double);
    return length * std::max<index_t>(1, context_.backend().batch_size(bytes));
  }

  // sum of x over the windows of the taps of a strip
  void add_first(std::size_t r, const Strip& strip, const Piece& piece_c) {
    const index_t channels = x_.channels, line = x_.n_images * strip.pitch;
    Buffer<double> sum(la_, channels, 1);
    std::vector<double> host(static_cast<std::size_t>(channels));
    index_t longest = 0;
    for (const Piece& piece_r : cut_.rows(rows_.phases[r])) longest = std::max(longest, piece_r.length() * line);
    Buffer<double> ones(la_, longest, 1);
    la_.fill(ones, 1.0);
    for (const Piece& piece_r : cut_.rows(rows_.phases[r])) {
      const index_t begin = piece_r.first * line + strip.first;
      const index_t count = (piece_r.last * x_.n_images - 1) * strip.pitch + strip.last - begin;
      la_.multiply(Op::none, Op::none, 1.0, strip.data.columns(begin, count), ones.mat().block(0, 0, count, 1), 0.0,
                   sum);
      la_.download(sum, host.data());
      for (const index_t t_r : piece_r.taps) {
        for (const index_t t_c : piece_c.taps) {
          double* const to = into_.first.data() + (t_r * cols_.kernel + t_c) * channels;
          for (std::size_t i = 0; i < host.size(); ++i) to[i] += host[i];
        }
      }
    }
  }

  const Context& context_;
  LinAlg<double>& la_;
  const PatchBlocks& layout_;
  const ImageView& x_;
  const std::vector<double>& weights_;
  const std::vector<double>& pivot_;
  PatchSums& into_;
  PatchAxis rows_, cols_;
  index_t pitch_;
  Cut cut_;
  std::vector<Buffer<double>> phases_;
  std::vector<LineModes> modes_;  // of each of them, where products are taken of modes
};

}  // namespace

PatchBlocks::PatchBlocks(const PatchParams& params)
    : taps(params.kernel[0] * params.kernel[1]), group_channels(params.in_channels / params.groups) {
  bundled_groups = std::min(params.groups, (kFewChannels + group_channels - 1) / group_channels);
  for (index_t group = 0; group < params.groups; group += bundled_groups) {
    const index_t channels = std::min(bundled_groups, params.groups - group) * group_channels;
    bundles.push_back({group * group_channels, channels, size});
    size += taps * (taps + 1) / 2 * channels * channels;
  }
}

const void* image_at(const ImageView& x, index_t i) {
  return static_cast<const char*>(x.data) + i * x.ld * bytes_of(x.dtype);
}

index_t images_at_once(const PatchParams& p, const ImageView& x) {
  const index_t area = (x.height + p.padding[0] + p.padding[1]) * (x.width + p.padding[2] + p.padding[3]);
  return std::max<index_t>(1, kChunk / (area * x.channels));
}

void add_patches(const Context& context, const PatchParams& params, const PatchBlocks& layout, const ImageView& x,
                 const std::vector<double>& weights, const std::vector<double>& pivot, PatchSums& into) {
  Chunk(context, params, layout, x, weights, pivot, into).run();
}

std::vector<double> channel_means(const Context& context, const ImageView& x, const std::vector<double>& weights) {
  auto& la = context.backend().full();
  const index_t area = x.height * x.width;
  Buffer<double> wide(la, area, x.channels), ones(la, area, 1), sum(la, x.channels, 1);
  la.fill(ones, 1.0);
  la.fill(sum, 0.0);
  double total = 0;
  for (index_t i = 0; i < x.n_images; ++i) {
    const double w = weights.empty() ? 1 : weights[static_cast<std::size_t>(i)];
    total += w;
    la.convert_from(x.dtype, image_at(x, i), area, wide);
    la.multiply(Op::transpose, Op::none, w / static_cast<double>(area), wide, ones, 1.0, sum);
  }
  la.scale(1 / total, sum);
  std::vector<double> means(static_cast<std::size_t>(x.channels));
  la.download(sum, means.data());
  return means;
}

}  // namespace brockett
