#include "brockett/patch_autocorrelation.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "check.hpp"
#include "linalg/buffer.hpp"
#include "linalg/linalg.hpp"
#include "patch_plan.hpp"
#include "patch_sums.hpp"
#include "sample_blocks.hpp"

namespace brockett {

using linalg::Buffer;
using linalg::LinAlg;
using linalg::Mat;
using linalg::Op;

namespace {

/// Sums that can be added: of x x^T, about the mean where centred.
struct Moments {
  Buffer<double> blocks;     // as PatchBlocks says; may be empty where the weight is 0
  std::vector<double> mean;  // taps x channels
  double weight = 0;
  index_t n_samples = 0;
};

bool same_params(const PatchParams& a, const PatchParams& b) {
  return a.in_channels == b.in_channels && a.kernel == b.kernel && a.stride == b.stride && a.dilation == b.dilation &&
         a.padding == b.padding && a.groups == b.groups && a.circular == b.circular && a.center == b.center;
}

void check_images(const ImageView& x, const PatchParams& p) {
  if (x.channels != p.in_channels || x.height < 1 || x.width < 1) {
    throw InvalidArgument("X", "must have shape (n_images, " + std::to_string(p.in_channels) +
                                   ", height, width), has (" + std::to_string(x.n_images) + ", " +
                                   std::to_string(x.channels) + ", " + std::to_string(x.height) + ", " +
                                   std::to_string(x.width) + ")");
  }
  if (x.n_images < 0 || (x.n_images > 0 && (x.data == nullptr || x.ld < x.channels * x.height * x.width))) {
    throw InvalidArgument("X", "is not a readable (n_images, channels, height, width) array");
  }
}

/// A saved moment is one that could have been accumulated.
void check_moment(const std::vector<double>& moment, index_t n, index_t groups) {
  const auto size = static_cast<std::size_t>(n);
  for (std::size_t g = 0; g < static_cast<std::size_t>(groups); ++g) {
    const double* m = moment.data() + g * size * size;
    double largest = 0;
    for (std::size_t i = 0; i < size * size; ++i) largest = std::max(largest, std::abs(m[i]));
    for (std::size_t i = 0; i < size; ++i) {
      if (m[i * size + i] < 0) throw InvalidArgument("moment", "must not have a negative diagonal");
      for (std::size_t j = i + 1; j < size; ++j) {
        if (std::abs(m[i * size + j] - m[j * size + i]) > 1e-8 * largest) {
          throw InvalidArgument("moment", "must be symmetric");
        }
      }
    }
  }
}

}  // namespace

struct PatchAutocorrelation::Impl {
  Context context;
  PatchParams params;
  PatchBlocks layout;
  index_t n;  // entries of a patch, of one group
  Moments total;
  double largest = 0;  // magnitude of x accepted so far

  Impl(const Context& context_, const PatchParams& params_)
      : context(context_), params(params_), layout(params_), n(layout.group_channels * layout.taps) {
    total.mean.resize(static_cast<std::size_t>(layout.taps * params.in_channels));
  }

  LinAlg<double>& la() const { return context.backend().full(); }

  Moments empty() const {
    Moments m{Buffer<double>(la(), layout.size, 1),
              std::vector<double>(static_cast<std::size_t>(layout.taps * params.in_channels)), 0, 0};
    la().fill(m.blocks, 0.0);
    return m;
  }

  // blocks <- blocks + alpha v v^T, v of taps x channels
  void add_outer(double alpha, const std::vector<double>& v, Mat<double> blocks) const {
    for (const auto& bundle : layout.bundles) {
      const index_t b = bundle.channels;
      std::vector<double> own;
      for (index_t t = 0; t < layout.taps; ++t) {
        const auto from = v.begin() + t * params.in_channels + bundle.first;
        own.insert(own.end(), from, from + b);
      }
      Buffer<double> column(la(), b * layout.taps, 1);
      la().upload(own.data(), column);
      for (index_t t = 0; t < layout.taps; ++t) {  // the blocks of t with 0 … t lie on top of each other
        const Mat<const double> of_tap(column.data() + t * b, 1, b, 1), all(column.data(), b * (t + 1), 1);
        la().multiply(Op::none, Op::none, alpha, all, of_tap, 1.0,
                      Mat<double>(blocks.data + layout.at(bundle, t, 0), b * (t + 1), b));
      }
    }
  }

  // into += the patches of a run of images of weights w (empty: ones)
  void add_images(Moments& into, const ImageView& x, const std::vector<double>& w) const {
    const double windows = static_cast<double>(plan_axis(params, 0, x.height, false).out) *
                           static_cast<double>(plan_axis(params, 1, x.width, false).out);
    const double weight =
        windows * (w.empty() ? static_cast<double>(x.n_images) : std::accumulate(w.begin(), w.end(), 0.0));
    std::vector<double> pivot;
    if (params.center) pivot = channel_means(context, x, w);
    PatchSums sums{std::move(into.blocks), std::vector<double>(into.mean.size())};
    const auto give_back = [&] { into.blocks = std::move(sums.blocks); };
    try {
      add_patches(context, params, layout, x, w, pivot, sums);
    } catch (...) {
      give_back();
      throw;
    }
    give_back();
    std::vector<double> mean = sums.first;
    for (double& m : mean) m /= weight;
    if (params.center) {
      // about the mean of these patches instead of the pivot, and what the means of both sets add to that about their own
      add_outer(-weight, mean, into.blocks);
      for (std::size_t i = 0; i < mean.size(); ++i) mean[i] += pivot[i % pivot.size()];
      add_gap(into, mean, weight, into.blocks);
    }
    advance(into, mean, weight, static_cast<index_t>(windows) * x.n_images);
  }

  // blocks += w_a w_b / (w_a + w_b) (m_b - m_a)(m_b - m_a)^T  (Chan, Golub, LeVeque 1983, eq. 2.1)
  void add_gap(const Moments& a, const std::vector<double>& mean, double weight, Mat<double> blocks) const {
    if (!params.center || a.weight == 0) return;
    std::vector<double> gap(mean.size());
    for (std::size_t i = 0; i < gap.size(); ++i) gap[i] = mean[i] - a.mean[i];
    add_outer(a.weight * (weight / (a.weight + weight)), gap, blocks);
  }

  static void advance(Moments& into, const std::vector<double>& mean, double weight, index_t count) {
    const double sum = into.weight + weight, share = weight / sum;
    for (std::size_t i = 0; i < into.mean.size(); ++i) into.mean[i] += share * (mean[i] - into.mean[i]);
    into.weight = sum;
    into.n_samples += count;
  }

  // total += other; what can fail comes first
  void join(Moments& other) {
    if (total.weight == 0) {
      total = std::move(other);
      return;
    }
    add_gap(total, other.mean, other.weight, other.blocks);
    la().add(1.0, other.blocks, total.blocks);
    advance(total, other.mean, other.weight, other.n_samples);
  }

  void check_magnitudes(double magnitude, double weight, double heaviest) const {
    const double size = std::max(magnitude, largest);
    if (magnitude > 0) check_magnitude("X", size);
    const double weighted = magnitude * std::sqrt(heaviest);
    if ((weighted > 0 && weighted < kSmallestMagnitude) || weighted >= kLargestMagnitude ||
        !(4 * size * size * (total.weight + weight) < std::numeric_limits<double>::max())) {
      throw InvalidArgument("weights", "the weighted sum leaves float64; rescale the weights");
    }
  }

  void check_filled() const {
    if (total.weight == 0) throw InvalidArgument("PatchAutocorrelation", "no images have been accumulated");
  }

  void check_group(index_t group) const {
    if (group < 0 || group >= params.groups) {
      throw InvalidArgument("group",
                            "must be below " + std::to_string(params.groups) + ", is " + std::to_string(group));
    }
  }

  // Calls f(index of an entry of the store of the group's bundle, row, column) for all entries of the lower triangle of the
  // block matrix of a group, rows and columns in the order (channel, tap).
  template <class F>
  void for_each_entry(index_t group, F&& f) const {
    const auto& bundle = layout.of_group(group);
    const index_t first = group * layout.group_channels - bundle.first, taps = layout.taps;
    for (index_t t = 0; t < taps; ++t) {
      for (index_t other = 0; other <= t; ++other) {
        const index_t block = layout.at(bundle, t, other) - bundle.offset;
        const index_t ld = PatchBlocks::ld(bundle, t);
        for (index_t j = 0; j < layout.group_channels; ++j) {
          for (index_t i = t == other ? j : 0; i < layout.group_channels; ++i) {
            f(static_cast<std::size_t>(block + first + i + (first + j) * ld), j * taps + t, i * taps + other);
          }
        }
      }
    }
  }

  // out (n x n) <- scale * the sums of a group, symmetric, with a diagonal that rounding has not left below 0
  void write_group(index_t group, double scale, Mat<double> out) const {
    const auto& bundle = layout.of_group(group);
    const index_t c = layout.group_channels, taps = layout.taps, first = group * c - bundle.first;
    Buffer<double> columns(la(), taps * c, c);  // of one tap, rows in the order (tap, channel)
    for (index_t t = 0; t < taps; ++t) {
      for (index_t other = 0; other < taps; ++other) {
        const index_t later = std::max(t, other), earlier = std::min(t, other);
        const Mat<const double> block(
            total.blocks.data() + layout.at(bundle, later, earlier) + first + first * PatchBlocks::ld(bundle, later), c,
            c, PatchBlocks::ld(bundle, later));
        const Mat<double> to = columns.mat().block(other * c, 0, c, c);
        other <= t ? la().copy(block, to) : la().transpose(block, to);
      }
      la().mirror_lower(columns.mat().block(t * c, 0, c, c));
      la().scale(scale, columns);
      for (index_t j = 0; j < c; ++j) {
        la().transpose(Mat<const double>(columns.data() + j * taps * c, c, taps),
                       Mat<double>(out.data + (j * taps + t) * n, taps, c));
      }
    }
    // what is subtracted for a mean, and products by modes, are off by more than a channel that hardly varies does
    const Mat<double> diagonal(out.data, 1, n, n + 1);
    std::vector<double> host(static_cast<std::size_t>(n));
    la().download(diagonal, host.data());
    if (std::none_of(host.begin(), host.end(), [](double v) { return v < 0; })) return;
    for (double& v : host) v = std::max(v, 0.0);
    la().upload(host.data(), diagonal);
  }

  // The sums of a group, n x n, on the host; out holds zeros.
  void download_group(index_t group, double* out) const {
    if (total.weight == 0) return;
    Buffer<double> whole(la(), n, n);
    write_group(group, 1, whole);
    la().download(whole, out);
  }

  std::vector<double> mean_of(index_t first_channel, index_t channels) const {
    std::vector<double> out;
    out.reserve(static_cast<std::size_t>(channels * layout.taps));
    for (index_t c = first_channel; c < first_channel + channels; ++c) {
      for (index_t t = 0; t < layout.taps; ++t) {
        out.push_back(total.mean[static_cast<std::size_t>(t * params.in_channels + c)]);
      }
    }
    return out;
  }
};

PatchAutocorrelation::PatchAutocorrelation(const Context& context, const PatchParams& params) {
  check_patch_params(params);
  impl_ = std::make_unique<Impl>(context, params);
}

PatchAutocorrelation::PatchAutocorrelation(const Context& context, const PatchAutocorrelationState& state)
    : PatchAutocorrelation(context, state.params) {
  auto& impl = *impl_;
  const auto n = static_cast<std::size_t>(impl.n), groups = static_cast<std::size_t>(impl.params.groups);
  const auto finite = [](double v) { return std::isfinite(v); };
  if (state.mean.size() != n * groups || !std::all_of(state.mean.begin(), state.mean.end(), finite)) {
    throw InvalidArgument("mean", "must be " + std::to_string(n * groups) + " finite numbers");
  }
  if (state.moment.size() != n * n * groups || !std::all_of(state.moment.begin(), state.moment.end(), finite)) {
    throw InvalidArgument("moment", "must be " + std::to_string(n * n * groups) + " finite numbers");
  }
  if (!(state.weight >= 0) || !std::isfinite(state.weight)) throw InvalidArgument("weight", "must be finite and >= 0");
  if (state.n_samples < 0 || (state.n_samples == 0) != (state.weight == 0)) {
    throw InvalidArgument("n_samples", "must be >= 0, and 0 exactly when weight is 0");
  }
  check_moment(state.moment, impl.n, impl.params.groups);
  std::vector<double> store(static_cast<std::size_t>(impl.layout.size));
  double largest = 0;
  for (index_t g = 0; g < impl.params.groups; ++g) {
    const double* moment = state.moment.data() + static_cast<std::size_t>(g) * n * n;
    const auto offset = static_cast<std::size_t>(impl.layout.of_group(g).offset);
    impl.for_each_entry(g, [&](std::size_t at, index_t row, index_t col) {
      store[offset + at] = moment[row * impl.n + col];
      largest = std::max(largest, std::abs(store[offset + at]));
    });
  }
  // the block of a tap with itself is written by halves above: both are read by sums to come
  for (const auto& bundle : impl.layout.bundles) {
    for (index_t t = 0; t < impl.layout.taps; ++t) {
      double* block = store.data() + impl.layout.at(bundle, t, t);
      const index_t ld = PatchBlocks::ld(bundle, t);
      for (index_t j = 0; j < bundle.channels; ++j) {
        for (index_t i = 0; i < j; ++i) block[i + j * ld] = block[j + i * ld];
      }
    }
  }
  if (state.weight == 0 && largest > 0) throw InvalidArgument("moment", "must be zero when weight is 0");
  impl.total.blocks = Buffer<double>(impl.la(), impl.layout.size, 1);
  impl.la().upload(store.data(), impl.total.blocks);
  for (std::size_t t = 0; t < static_cast<std::size_t>(impl.layout.taps); ++t) {
    for (std::size_t c = 0; c < static_cast<std::size_t>(impl.params.in_channels); ++c) {
      impl.total.mean[t * static_cast<std::size_t>(impl.params.in_channels) + c] =
          state.mean[c * static_cast<std::size_t>(impl.layout.taps) + t];
    }
  }
  impl.total.weight = state.weight;
  impl.total.n_samples = state.n_samples;
  if (state.weight > 0) impl.largest = std::sqrt(largest / state.weight);
}

PatchAutocorrelation::~PatchAutocorrelation() = default;
PatchAutocorrelation::PatchAutocorrelation(PatchAutocorrelation&&) noexcept = default;
PatchAutocorrelation& PatchAutocorrelation::operator=(PatchAutocorrelation&&) noexcept = default;

void PatchAutocorrelation::update(const ImageView& x, const double* weights) {
  auto& impl = *impl_;
  auto& backend = impl.context.backend();
  check_images(x, impl.params);
  const auto rows = plan_axis(impl.params, 0, x.height, false), cols = plan_axis(impl.params, 1, x.width, false);
  if (x.n_images == 0) return;
  const SampleWeights w = check_weights(weights, x.n_images);
  const index_t size = x.channels * x.height * x.width;
  const double magnitude = check_sample_values(backend, "X", {x.dtype, x.data, x.n_images, size, x.ld}, w.values);
  impl.check_magnitudes(magnitude, w.sum * static_cast<double>(rows.out * cols.out), w.largest);
  if (w.sum == 0) return;

  const auto scope = backend.thread_scope(impl.layout.bundles.front().channels);
  Moments aside = impl.empty();
  for (const SampleRun& run : sample_runs(x.n_images, w.values, images_at_once(impl.params, x))) {
    ImageView part = x;
    part.data = image_at(x, run.first);
    part.n_images = run.count;
    std::vector<double> own;
    if (!w.values.empty()) {
      own.assign(w.values.begin() + run.first, w.values.begin() + run.first + run.count);
    }
    impl.add_images(aside, part, own);
    impl.context.check_interrupt();
  }
  impl.join(aside);
  impl.largest = std::max(impl.largest, magnitude);
}

void PatchAutocorrelation::merge(const PatchAutocorrelation& other) {
  auto& impl = *impl_;
  const auto& from = *other.impl_;
  if (!same_params(impl.params, from.params)) {
    throw InvalidArgument("other", "must have the same channels, kernel, stride, padding, dilation, groups and center");
  }
  if (&from.context.backend() != &impl.context.backend()) {
    throw InvalidArgument("other", "lies in the memory of another backend; carry it over by its state()");
  }
  if (from.total.weight == 0) return;
  const double size = std::max(impl.largest, from.largest);
  if (!(4 * size * size * (impl.total.weight + from.total.weight) < std::numeric_limits<double>::max())) {
    throw InvalidArgument("other", "the sum of both would overflow float64");
  }
  Moments copy = impl.empty();
  impl.la().copy(from.total.blocks, copy.blocks);
  copy.mean = from.total.mean;
  copy.weight = from.total.weight;
  copy.n_samples = from.total.n_samples;
  impl.join(copy);
  impl.largest = size;
}

void PatchAutocorrelation::clear() {
  auto& impl = *impl_;
  impl.total.blocks = {};
  std::fill(impl.total.mean.begin(), impl.total.mean.end(), 0.0);
  impl.total.weight = 0;
  impl.total.n_samples = 0;
  impl.largest = 0;
}

Array<double> PatchAutocorrelation::matrix(index_t group) const {
  const auto& impl = *impl_;
  impl.check_filled();
  impl.check_group(group);
  auto out = make_array<double>(impl.context, impl.n, impl.n);
  impl.write_group(group, 1 / impl.total.weight, Mat<double>(out.data(), impl.n, impl.n));
  return out;
}

std::vector<double> PatchAutocorrelation::mean() const {
  impl_->check_filled();
  return impl_->mean_of(0, impl_->params.in_channels);
}

AutocorrelationState PatchAutocorrelation::group_state(index_t group) const {
  const auto& impl = *impl_;
  impl.check_group(group);
  AutocorrelationState s;
  s.params.center = impl.params.center;
  s.n_features = impl.n;
  s.n_samples = impl.total.n_samples;
  s.weight = impl.total.weight;
  s.mean = impl.mean_of(group * impl.layout.group_channels, impl.layout.group_channels);
  s.moment.resize(static_cast<std::size_t>(impl.n * impl.n));
  impl.download_group(group, s.moment.data());
  return s;
}

index_t PatchAutocorrelation::n_features() const { return impl_->n; }
index_t PatchAutocorrelation::n_samples() const { return impl_->total.n_samples; }
double PatchAutocorrelation::weight() const { return impl_->total.weight; }
const PatchParams& PatchAutocorrelation::params() const { return impl_->params; }
const Context& PatchAutocorrelation::context() const { return impl_->context; }

PatchAutocorrelationState PatchAutocorrelation::state() const {
  const auto& impl = *impl_;
  PatchAutocorrelationState s;
  s.params = impl.params;
  s.n_samples = impl.total.n_samples;
  s.weight = impl.total.weight;
  s.mean = impl.mean_of(0, impl.params.in_channels);
  s.moment.resize(static_cast<std::size_t>(impl.params.groups * impl.n * impl.n));
  for (index_t g = 0; g < impl.params.groups; ++g) {
    impl.download_group(g, s.moment.data() + static_cast<std::size_t>(g * impl.n * impl.n));
  }
  return s;
}

}  // namespace brockett
