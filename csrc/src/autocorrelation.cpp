#include "brockett/autocorrelation.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>

#include "check.hpp"
#include "linalg/buffer.hpp"
#include "linalg/linalg.hpp"
#include "sample_blocks.hpp"

namespace brockett {

using linalg::Buffer;
using linalg::LinAlg;
using linalg::Mat;
using linalg::Op;

namespace {

// float32 products of a block must stay clear of float32's own range
constexpr double kLargestSingle = 1e18;
constexpr double kSmallestSingle = 1e-18;
// and what is rounded to float16 of its normal numbers' range
constexpr double kLargestHalf = 65504;
constexpr double kSmallestHalf = 0x1p-14;
// Samples whose products are summed in float32 on tensor units, which round every partial sum towards zero: 16 at a time,
// this many lose 3e-5 of a sum of positive terms at most.
constexpr index_t kReducedBlock = 16384;
// Columns of a block's products that are added at a time, at least: half of what one piece would be is above the diagonal.
constexpr index_t kPanel = 256;
// Host memory that goes to a GPU at a time, in bytes, at most: long beside any latency; twice this is pinned.
constexpr std::size_t kPieceBytes = std::size_t{1} << 27;

/// A saved moment is one that could have been accumulated: symmetric with a diagonal >= 0, or a lower triangular root.
void check_moment(const AutocorrelationState& s) {
  const auto n = static_cast<std::size_t>(s.n_features);
  const auto at = [&](std::size_t i, std::size_t j) { return s.moment[i * n + j]; };
  double size = 0;
  for (const double v : s.moment) size = std::max(size, std::abs(v));
  const bool root = s.params.method == AutocorrelationParams::Method::qr;
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t j = i + 1; j < n; ++j) {
      if (root && at(i, j) != 0) throw InvalidArgument("moment", "must be lower triangular");
      if (!root && std::abs(at(i, j) - at(j, i)) > 1e-8 * size) throw InvalidArgument("moment", "must be symmetric");
    }
    if (!root && at(i, i) < 0) throw InvalidArgument("moment", "must not have a negative diagonal");
  }
  if (s.weight == 0 && size > 0) throw InvalidArgument("moment", "must be zero when weight is 0");
}

/// Moments that can be added: M about the mean (center) or about zero, or the square root L of it (qr).
struct Moments {
  Buffer<double> matrix;  // n x n, lower triangle
  std::vector<double> mean;  // n
  double weight = 0;
  index_t n_samples = 0;
};

}  // namespace

struct Autocorrelation::Impl {
  class Update;

  Context context;
  AutocorrelationParams params;
  index_t n;
  Moments total;
  double largest = 0;  // magnitude of x accepted so far
  double heaviest = 0;  // and of sqrt(w) x, the factor of what is summed
  Buffer<float> narrow;  // float32 products of one block, during an update

  Impl(const Context& context_, index_t n_, const AutocorrelationParams& params_)
      : context(context_), params(params_), n(n_) {}

  LinAlg<double>& la() const { return context.backend().full(); }
  bool qr() const { return params.method == AutocorrelationParams::Method::qr; }
  bool full() const { return params.precision == AutocorrelationParams::Precision::full; }
  bool single() const { return params.precision == AutocorrelationParams::Precision::single; }
  bool reduced() const { return !full() && !single(); }
  /// What the tensor units read.
  DType reduced_type() const {
    switch (params.precision) {
      case AutocorrelationParams::Precision::bf16:
        return DType::bfloat16;
      case AutocorrelationParams::Precision::fp16:
        return DType::float16;
      default:
        return DType::float32;
    }
  }
  /// Half-precision samples that enter products where they lie.
  bool reduced_in_place(const SampleView& x, const std::vector<double>& weights) const {
    return reduced() && reduced_type() != DType::float32 && x.dtype == reduced_type() && weights.empty() &&
           !params.center;
  }

  Moments empty() const {
    Moments m{Buffer<double>(la(), n, n), std::vector<double>(static_cast<std::size_t>(n)), 0, 0};
    la().fill(m.matrix, 0.0);
    return m;
  }

  // `into` += the samples of one block, X (n x b, scratch) with weights w (b) on the host or ones
  template <class T>
  void add_block(Moments& into, Mat<T> X, const std::vector<double>& w) {
    auto& lt = linalg::of<T>(context.backend());
    const index_t b = X.cols;
    std::vector<T> w_t(static_cast<std::size_t>(b), T(1));
    double weight = static_cast<double>(b), share = 1 / weight;
    if (!w.empty()) {  // relative to the largest: neither a float nor 1 / sum leaves its range
      const double largest_weight = *std::max_element(w.begin(), w.end());
      double sum = 0;
      for (std::size_t j = 0; j < w.size(); ++j) {
        w_t[j] = static_cast<T>(w[j] / largest_weight);
        sum += w[j] / largest_weight;
      }
      share = 1 / sum;
      weight = std::accumulate(w.begin(), w.end(), 0.0);
    }
    // mean of the block: X w / sum w. A float mean is off by 1e-7 of itself, which may be more than the data vary: to be
    // subtracted it is taken again from what the first subtraction leaves
    Buffer<T> w_device(lt, b, 1), mean_device(lt, n, 1);
    lt.upload(w_t.data(), w_device);
    std::vector<T> mean_t(static_cast<std::size_t>(n));
    std::vector<double> mean(mean_t.size());
    const int passes = params.center && std::is_same_v<T, float> ? 2 : 1;
    for (int pass = 0; pass < passes; ++pass) {
      lt.multiply(Op::none, Op::none, static_cast<T>(share), X, w_device, T(0), mean_device);
      lt.download(mean_device, mean_t.data());
      for (std::size_t i = 0; i < mean.size(); ++i) mean[i] += static_cast<double>(mean_t[i]);
      if (params.center) {  // X <- X - mean 1^T
        Buffer<T> ones(lt, 1, b);
        lt.fill(ones, T(1));
        lt.multiply(Op::none, Op::none, T(-1), mean_device, ones, T(1), X);
      }
    }
    if (!w.empty()) {  // X <- X diag(sqrt w), so that X X^T is the weighted sum
      for (std::size_t j = 0; j < w.size(); ++j) w_t[j] = static_cast<T>(std::sqrt(w[j]));
      lt.scale_columns(X, w_t.data());
    }
    merge_block(into, X, mean, weight, b);
  }

  // M += X X^T, and for central moments the rank-one term between the two means (Chan, Golub, LeVeque 1983, eq. 2.1)
  template <class T>
  void merge_block(Moments& into, Mat<T> X, const std::vector<double>& mean, double weight, index_t count) {
    const Buffer<double> delta = mean_gap(into, mean, weight);
    if (qr()) {
      into.matrix = stacked_lq(into.matrix, X, delta);
    } else {
      if constexpr (std::is_same_v<T, double>) {
        la().accumulate_outer(Op::none, 1.0, X, 1.0, into.matrix);
      } else if (single()) {
        context.backend().single().accumulate_outer(Op::none, 1.0F, X, 0.0F, narrow);
        add_narrow(into);
      } else if (reduced_type() == DType::float32) {
        add_reduced(into, X.data, X.ld, X.cols);
      } else {
        auto& lf = context.backend().single();
        const Buffer<float> halves(lf, n, (X.cols + 1) / 2);  // two of them in the place of a float
        lf.convert_to(X, reduced_type(), halves.data(), n);
        add_reduced(into, halves.data(), n, X.cols);
      }
      if (delta.data()) la().accumulate_outer(Op::none, 1.0, delta, 1.0, into.matrix);
    }
    advance(into, mean, weight, count);
  }

  // M += X X^T in reduced precision, X (n x count) of reduced_type()
  void add_reduced(Moments& into, const void* X, index_t ld, index_t count) {
    context.backend().single().multiply_reduced(Op::transpose, reduced_type(), X, ld, X, ld, count, narrow);
    add_narrow(into);
  }

  // M += the products of a block; of what lies above the diagonal not more than in the squares on it
  void add_narrow(Moments& into) {
    const index_t width = std::max(kPanel, (n + 7) / 8);
    for (index_t first = 0; first < n; first += width) {
      const index_t count = std::min(width, n - first);
      la().add_from(DType::float32, narrow.data() + first + first * n, n,
                    into.matrix.mat().block(first, first, n - first, count));
    }
  }

  // `into` += a block of samples that are of reduced_type() themselves, neither weighted nor centred
  void add_reduced_block(Moments& into, const void* X, index_t ld, index_t count) {
    auto& lf = context.backend().single();
    const Buffer<float> ones(lf, count, 1), halves(lf, (count + 1) / 2, 1), sum(lf, n, 1);
    lf.fill(ones, 1.0F);
    lf.convert_to(ones, reduced_type(), halves.data(), count);
    lf.multiply_reduced(Op::none, reduced_type(), X, ld, halves.data(), count, count, sum);
    std::vector<float> sums(static_cast<std::size_t>(n));
    lf.download(sum, sums.data());  // before the long product, behind which the next block can then be queued
    add_reduced(into, X, ld, count);
    std::vector<double> mean(sums.begin(), sums.end());
    for (auto& v : mean) v /= static_cast<double>(count);
    advance(into, mean, static_cast<double>(count), count);
  }

  // d with d d^T = w_a w_b / (w_a + w_b) (m_b - m_a)(m_b - m_a)^T; empty where moments are not central
  Buffer<double> mean_gap(const Moments& into, const std::vector<double>& mean, double weight) const {
    if (!params.center || into.weight == 0) return {};
    std::vector<double> d(mean.size());
    const double c = std::sqrt(into.weight * (weight / (into.weight + weight)));
    for (std::size_t i = 0; i < d.size(); ++i) d[i] = c * (mean[i] - into.mean[i]);
    Buffer<double> delta(la(), n, 1);
    la().upload(d.data(), delta);
    return delta;
  }

  // the mean, weight and count of both together
  static void advance(Moments& into, const std::vector<double>& mean, double weight, index_t count) {
    const double sum = into.weight + weight, share = weight / sum;
    for (std::size_t i = 0; i < into.mean.size(); ++i) into.mean[i] += share * (mean[i] - into.mean[i]);
    into.weight = sum;
    into.n_samples += count;
  }

  // L' of L' L'^T = L L^T + X X^T + d d^T: LQ of [L X d]
  template <class T>
  Buffer<double> stacked_lq(Mat<const double> L, Mat<const T> X, const Buffer<double>& delta) {
    const index_t extra = delta.cols();
    Buffer<double> stack(la(), n, n + X.cols + extra);
    la().copy(L, stack.mat().columns(0, n));
    la().convert_from(dtype_of<T>(), X.data, X.ld, stack.mat().columns(n, X.cols));
    if (extra) la().copy(delta, stack.mat().columns(n + X.cols, extra));
    la().lq_factor(stack);
    Buffer<double> out(la(), n, n);
    la().copy(stack.mat().columns(0, n), out);
    return out;
  }
  template <class T>
  Buffer<double> stacked_lq(const Buffer<double>& L, Mat<T> X, const Buffer<double>& delta) {
    return stacked_lq(Mat<const double>(L), Mat<const T>(X), delta);
  }

  template <class T>
  void add_samples(Moments& into, const SampleView& x, const std::vector<double>& weights, index_t block) {
    const bool several = x.n_samples > block, writes = params.center || !weights.empty();
    if (reduced_in_place(x, weights)) {
      for (index_t i = 0; i < x.n_samples; i += block) {
        add_reduced_block(into, sample_at(x, i), x.ld, std::min(block, x.n_samples - i));
        if (several) context.check_interrupt();
      }
      return;
    }
    for_each_sample_block<T>(context.backend(), x, weights, block, writes, [&](Mat<T> X, const std::vector<double>& w) {
      add_block<T>(into, X, w);
      if (several) context.check_interrupt();
    });
  }

  // no entry of a sum of x x^T of this weight, |x| <= magnitude, is beyond magnitude^2 weight; 4 times that about a mean
  static bool overflows(double magnitude, double weight) {
    return !(4 * magnitude * magnitude * weight < std::numeric_limits<double>::max()) || !std::isfinite(weight);
  }

  // samples at a time: wide enough for syrk and for the n^2 work that a block costs (qr, single), small enough for memory
  index_t block_size(const SampleView& x, const std::vector<double>& weights) const {
    const index_t elements = context.backend().block_elements(), fit = elements / n;
    if (reduced()) return std::clamp<index_t>(2 * fit, std::min<index_t>(2 * n, kReducedBlock), kReducedBlock);
    const bool in_place = single() && !params.center && readable_in_place<float>(x, weights);
    const index_t least = in_place ? 8 * n : qr() || single() ? 2 * n : 0;
    return std::max<index_t>({512, least, std::min<index_t>(fit, std::max<index_t>(1 << 16, elements >> 8))});
  }

  // `whole`: these are all samples of an update; else larger ones may follow, and small ones do no harm beside them
  void check_magnitudes(double magnitude, double largest_weight, double sum, bool whole) const {
    if (magnitude > 0 && (whole || magnitude >= 1)) check_magnitude("X", std::max(magnitude, largest));
    const double weighted = magnitude * std::sqrt(largest_weight);
    if (whole && weighted > 0 && std::max(weighted, heaviest) < kSmallestMagnitude) {
      throw InvalidArgument("weights", "the weighted squares would vanish in float64; rescale the weights");
    }
    if (weighted >= kLargestMagnitude || overflows(std::max(magnitude, largest), total.weight + sum)) {
      throw InvalidArgument("weights", "the weighted sum would overflow float64; rescale the weights");
    }
    if (!full() && (weighted >= kLargestSingle || (whole && magnitude > 0 && weighted < kSmallestSingle))) {
      throw InvalidArgument("X", "magnitudes leave the range of float32 products [1e-18, 1e18); use double precision");
    }
    const double rounded = params.center ? 2 * weighted : weighted;
    if (params.precision == AutocorrelationParams::Precision::fp16 &&
        (rounded > kLargestHalf || (whole && magnitude > 0 && weighted < kSmallestHalf))) {
      throw InvalidArgument("X",
                            "magnitudes leave the range of float16 [6.1e-5, 65504]; use \"bf16\" or rescale the data");
    }
  }
};

Autocorrelation::Autocorrelation(const Context& context, index_t n_features, const AutocorrelationParams& params) {
  if (n_features < 1) {
    throw InvalidArgument("n_features", "must be at least 1, is " + std::to_string(n_features));
  }
  if (params.method == AutocorrelationParams::Method::qr &&
      params.precision != AutocorrelationParams::Precision::full) {
    throw InvalidArgument("precision", "method \"qr\" is for ill-conditioned data and works in double precision only");
  }
  impl_ = std::make_unique<Impl>(context, n_features, params);
  impl_->total = impl_->empty();
}

Autocorrelation::Autocorrelation(const Context& context, const AutocorrelationState& state)
    : Autocorrelation(context, state.n_features, state.params) {
  const auto n = static_cast<std::size_t>(state.n_features);
  const auto finite = [](double v) { return std::isfinite(v); };
  if (state.mean.size() != n || !std::all_of(state.mean.begin(), state.mean.end(), finite)) {
    throw InvalidArgument("mean", "must be " + std::to_string(n) + " finite numbers");
  }
  if (state.moment.size() != n * n || !std::all_of(state.moment.begin(), state.moment.end(), finite)) {
    throw InvalidArgument("moment", "must be " + shape_text(state.n_features, state.n_features) + " finite numbers");
  }
  if (!(state.weight >= 0) || !std::isfinite(state.weight)) throw InvalidArgument("weight", "must be finite and >= 0");
  check_moment(state);
  if (state.n_samples < 0 || (state.n_samples == 0) != (state.weight == 0)) {
    throw InvalidArgument("n_samples", "must be >= 0, and 0 exactly when weight is 0");
  }
  auto& t = impl_->total;
  // row-major into column-major: the same memory for the symmetric moment, transposed for the root L
  Buffer<double> rows(impl_->la(), state.n_features, state.n_features);
  impl_->la().upload(state.moment.data(), rows);
  impl_->la().transpose(rows, t.matrix);
  if (state.weight > 0) {
    const double entry = impl_->la().max_abs(t.matrix);
    impl_->heaviest = impl_->qr() ? entry : std::sqrt(entry);
    impl_->largest = impl_->heaviest / std::sqrt(state.weight);
  }
  t.mean = state.mean;
  t.weight = state.weight;
  t.n_samples = state.n_samples;
}

Autocorrelation::~Autocorrelation() = default;
Autocorrelation::Autocorrelation(Autocorrelation&&) noexcept = default;
Autocorrelation& Autocorrelation::operator=(Autocorrelation&&) noexcept = default;

/// One update: the samples, in one piece or several, are summed into a place of their own until all are known to be good.
class Autocorrelation::Impl::Update {
 public:
  Update(Impl& impl, const SampleView& x, const double* weights, bool from_host)
      : impl_(impl), x_(x), weights_(check_weights(weights, x.n_samples)), from_host_(from_host) {}

  void run() {
    if (impl_.reduced()) {  // refused where there are no units for it, before anything is read
      backend_.single().multiply_reduced(Op::none, DType::float32, nullptr, 1, nullptr, 1, 0, {});
    }
    const auto scope = backend_.thread_scope(impl_.n);
    struct Scratch {  // goes with the update, however that ends
      Impl& impl;
      ~Scratch() { impl.narrow = {}; }
    } scratch{impl_};
    if (!impl_.full()) {
      impl_.narrow = Buffer<float>(backend_.single(), impl_.n, impl_.n);
      backend_.single().fill(impl_.narrow, 0.0F);  // single: its upper triangle stays so
    }
    if (from_host_) {
      const auto row = static_cast<std::size_t>(impl_.n * bytes_of(x_.dtype));
      const std::size_t piece = std::min(kPieceBytes, 4 * static_cast<std::size_t>(backend_.block_elements()));
      const index_t step = std::max<index_t>(1, static_cast<index_t>(piece / row));
      backend_.stream_from_host(x_.data, row, static_cast<std::size_t>(x_.ld * bytes_of(x_.dtype)), x_.n_samples, step,
                                [&](index_t first, index_t count, const void* data, std::size_t pitch) {
                                  const index_t ld = static_cast<index_t>(pitch) / bytes_of(x_.dtype);
                                  add({x_.dtype, data, count, x_.n_features, ld}, first);
                                });
      if (done_ > 0) impl_.check_magnitudes(magnitude_, weights_.largest, weights_.sum, true);
    } else {
      add(x_, 0);
    }
    commit();
  }

 private:
  void add(const SampleView& piece, index_t first) {
    const bool whole = piece.n_samples == x_.n_samples;
    std::vector<double> w = weights_.values;
    if (!whole && !w.empty()) w = {w.begin() + first, w.begin() + first + piece.n_samples};
    try {
      magnitude_ = std::max(magnitude_, check_sample_values(backend_, "X", piece, w));
    } catch (const NonFinite& e) {
      throw NonFinite("X", first + e.row(), e.column());
    }
    impl_.check_magnitudes(magnitude_, weights_.largest, weights_.sum, whole);
    done_ += piece.n_samples;
    if (weights_.sum == 0) return;
    // several blocks can be interrupted between them, so they are summed aside first; a single one cannot
    const index_t block = impl_.block_size(piece, w);
    if (!aside_ && (!whole || piece.n_samples > block)) open_aside();
    Moments& into = aside_ ? *aside_ : impl_.total;
    if (impl_.full()) {
      impl_.add_samples<double>(into, piece, w, block);
    } else {
      impl_.add_samples<float>(into, piece, w, block);
    }
    if (!whole) impl_.context.check_interrupt();
  }

  bool continues() const { return impl_.qr() || impl_.params.center; }  // not plain sums: continue from a copy

  void open_aside() {
    aside_ = impl_.empty();
    if (!continues()) return;
    impl_.la().copy(impl_.total.matrix, aside_->matrix);
    aside_->mean = impl_.total.mean;
    aside_->weight = impl_.total.weight;
    aside_->n_samples = impl_.total.n_samples;
  }

  void commit() {
    if (weights_.sum == 0) return;
    impl_.largest = std::max(impl_.largest, magnitude_);
    impl_.heaviest = std::max(impl_.heaviest, magnitude_ * std::sqrt(weights_.largest));
    if (!aside_) return;
    if (continues()) {
      impl_.total = std::move(*aside_);
      return;
    }
    impl_.la().add(1.0, aside_->matrix, impl_.total.matrix);
    advance(impl_.total, aside_->mean, aside_->weight, aside_->n_samples);
  }

  Impl& impl_;
  linalg::Backend& backend_ = impl_.context.backend();
  const SampleView& x_;
  const SampleWeights weights_;
  const bool from_host_;
  std::optional<Moments> aside_;
  double magnitude_ = 0;
  index_t done_ = 0;
};

void Autocorrelation::update(const SampleView& x, const double* weights) {
  check_samples("X", x, impl_->n);
  if (x.n_samples > 0) Impl::Update(*impl_, x, weights, false).run();
}

void Autocorrelation::update_from_host(const SampleView& x, const double* weights) {
  check_samples("X", x, impl_->n);
  if (x.n_samples > 0) Impl::Update(*impl_, x, weights, true).run();
}

void Autocorrelation::merge(const Autocorrelation& other) {
  auto& impl = *impl_;
  const auto& from = *other.impl_;
  if (from.n != impl.n) {
    throw InvalidArgument("other",
                          "has " + std::to_string(from.n) + " features, this one has " + std::to_string(impl.n));
  }
  if (from.params.method != impl.params.method || from.params.center != impl.params.center ||
      from.params.precision != impl.params.precision) {
    throw InvalidArgument("other", "must have the same method, precision and center");
  }
  if (&from.context.backend() != &impl.context.backend()) {
    throw InvalidArgument("other", "lies in the memory of another backend; carry it over by its state()");
  }
  if (from.total.weight == 0) return;
  if (&from == &impl) {  // the sums below must not overlap
    merge(Autocorrelation(impl.context, state()));
    return;
  }
  if (Impl::overflows(std::max(impl.largest, from.largest), impl.total.weight + from.total.weight)) {
    throw InvalidArgument("other", "the sum of both would overflow float64");
  }
  auto& t = impl.total;
  const Buffer<double> delta = impl.mean_gap(t, from.total.mean, from.total.weight);
  if (impl.qr()) {
    t.matrix = impl.stacked_lq<double>(Mat<const double>(t.matrix), Mat<const double>(from.total.matrix), delta);
  } else {
    impl.la().add(1.0, from.total.matrix, t.matrix);
    if (delta.data()) impl.la().accumulate_outer(Op::none, 1.0, delta, 1.0, t.matrix);
  }
  impl.largest = std::max(impl.largest, from.largest);
  impl.heaviest = std::max(impl.heaviest, from.heaviest);
  Impl::advance(t, from.total.mean, from.total.weight, from.total.n_samples);
}

void Autocorrelation::clear() {
  auto& impl = *impl_;
  impl.la().fill(impl.total.matrix, 0.0);
  std::fill(impl.total.mean.begin(), impl.total.mean.end(), 0.0);
  impl.total.weight = 0;
  impl.total.n_samples = 0;
  impl.largest = impl.heaviest = 0;
}

Array<double> Autocorrelation::matrix() const {
  auto& impl = *impl_;
  auto& la = impl.la();
  if (impl.total.weight == 0) throw InvalidArgument("Autocorrelation", "no samples have been accumulated");
  auto out = make_array<double>(impl.context, impl.n, impl.n);
  const Mat<double> R(out.data(), impl.n, impl.n);  // symmetric: row- and column-major alike
  if (impl.qr()) {
    la.fill(R, 0.0);
    la.accumulate_outer(Op::none, 1 / impl.total.weight, impl.total.matrix, 0.0, R);
  } else {
    la.copy(impl.total.matrix, R);
    la.scale(1 / impl.total.weight, R);
  }
  la.mirror_lower(R);
  return out;
}

Array<double> Autocorrelation::factor() const {
  auto& impl = *impl_;
  if (!impl.qr()) throw InvalidArgument("method", "the square root of R is kept only by method \"qr\"");
  if (impl.total.weight == 0) throw InvalidArgument("Autocorrelation", "no samples have been accumulated");
  auto out = make_array<double>(impl.context, impl.n, impl.n);
  const Mat<double> L(out.data(), impl.n, impl.n);
  impl.la().transpose(impl.total.matrix, L);
  impl.la().scale(1 / std::sqrt(impl.total.weight), L);
  return out;
}

std::vector<double> Autocorrelation::mean() const {
  if (impl_->total.weight == 0) throw InvalidArgument("Autocorrelation", "no samples have been accumulated");
  return impl_->total.mean;
}

index_t Autocorrelation::n_features() const { return impl_->n; }
index_t Autocorrelation::n_samples() const { return impl_->total.n_samples; }
double Autocorrelation::weight() const { return impl_->total.weight; }
const AutocorrelationParams& Autocorrelation::params() const { return impl_->params; }
const Context& Autocorrelation::context() const { return impl_->context; }

AutocorrelationState Autocorrelation::state() const {
  auto& impl = *impl_;
  AutocorrelationState s;
  s.params = impl.params;
  s.n_features = impl.n;
  s.n_samples = impl.total.n_samples;
  s.weight = impl.total.weight;
  s.mean = impl.total.mean;
  Buffer<double> rows(impl.la(), impl.n, impl.n);
  impl.la().transpose(impl.total.matrix, rows);
  if (!impl.qr()) {  // the transpose holds the upper triangle; the whole symmetric matrix is what a reader expects
    impl.la().copy(impl.total.matrix, rows);
    impl.la().mirror_lower(rows);
  }
  s.moment.resize(static_cast<std::size_t>(impl.n * impl.n));
  impl.la().download(rows, s.moment.data());
  return s;
}

}  // namespace brockett
