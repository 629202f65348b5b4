#include "preactivations.hpp"

#include <cmath>

#include "check.hpp"
#include "gram.hpp"
#include "sample_blocks.hpp"

namespace brockett {

using linalg::Buffer;
using linalg::Mat;
using linalg::Op;

namespace {

std::vector<double> check_bias(const double* bias, index_t n) {
  if (!bias) return {};
  for (index_t i = 0; i < n; ++i) {
    if (!std::isfinite(bias[i])) throw NonFinite("bias", i, 0);
  }
  return {bias, bias + n};
}

/// W and its place in a product, in float64.
template <class T>
Buffer<double> layer(const Context& context, MatrixView<const T> W) {
  auto& backend = context.backend();
  check_magnitude("W", check_matrix(backend, "W", W));
  return to_double<T>(backend, columns_of(W));
}

Buffer<double> column(linalg::LinAlg<double>& la, const std::vector<double>& v) {
  Buffer<double> out(la, static_cast<index_t>(v.size()), 1);
  la.upload(v.data(), out);
  return out;
}

/// Adds a 1^T to Y.
void add_to_columns(linalg::LinAlg<double>& la, double alpha, const std::vector<double>& a, Mat<double> Y) {
  const Buffer<double> v = column(la, a);
  Buffer<double> ones(la, 1, Y.cols);
  la.fill(ones, 1.0);
  la.multiply(Op::none, Op::none, alpha, v, ones, 1.0, Y);
}

void copy_symmetric(const Context& context, MatrixView<const double> R, Mat<double> out) {
  context.backend().full().copy(columns_of(R), out);
}

}  // namespace

void Preactivations::Impl::for_each_block(const std::function<void(Mat<double>)>& f) const {
  auto& la = context.backend().full();
  const index_t width = std::max(n, samples.n_features);
  const index_t step = std::max<index_t>(256, context.backend().block_elements() / (2 * width));
  Buffer<double> Y;
  if (W.data()) Y = Buffer<double>(la, n, std::min(step, samples.n_samples));
  const bool writes = W.data() == nullptr;  // then Y is the block itself, for f to change
  for_each_sample_block<double>(context.backend(), samples, {}, step, writes,
                                [&](Mat<double> X, const std::vector<double>&) {
                                  Mat<double> y = X;
                                  if (W.data()) {
                                    y = Y.mat().columns(0, X.cols);
                                    la.multiply(op_w, Op::none, 1.0, W, X, 0.0, y);
                                  }
                                  if (!bias.empty()) add_to_columns(la, 1.0, bias, y);
                                  f(y);
                                  context.check_interrupt();
                                });
}

namespace {

/// C, mean and n_samples by streaming the samples once.
void accumulate(Preactivations::Impl& impl) {
  AutocorrelationParams params;
  params.center = impl.center;
  Context quiet = impl.context;
  quiet.set_interrupt({});  // for_each_block asks between blocks
  Autocorrelation acc(quiet, impl.n, params);
  const auto threads = impl.context.backend().thread_scope(impl.n);
  impl.for_each_block([&](Mat<double> Y) {
    try {
      acc.update({DType::float64, Y.data, Y.cols, Y.rows, Y.ld});
    } catch (const InvalidArgument&) {
      throw InvalidArgument(impl.source, "the pre-activations leave the range [1e-150, 1e150); rescale the data");
    }
  });
  impl.n_samples = acc.n_samples();
  impl.mean = acc.mean();
  const Array<double> R = acc.matrix();
  copy_symmetric(impl.context, R.view(), impl.C);
}

std::unique_ptr<Preactivations::Impl> make_impl(const Context& context, const char* source, index_t n) {
  auto impl = std::make_unique<Preactivations::Impl>();
  impl->context = context;
  impl->source = source;
  impl->n = n;
  impl->C = Buffer<double>(context.backend().full(), n, n);
  return impl;
}

/// C += sign v v^T
void add_outer(Preactivations::Impl& impl, double sign, const std::vector<double>& v) {
  auto& la = impl.context.backend().full();
  la.accumulate_outer(Op::none, sign, column(la, v), 1.0, impl.C);
  la.mirror_lower(impl.C);
}

/// op(W) mu (+ b)
std::vector<double> mean_output(const Context& context, Mat<const double> W, Op op, const std::vector<double>& mu,
                                const std::vector<double>& bias, index_t n) {
  auto& la = context.backend().full();
  Buffer<double> out(la, n, 1);
  la.multiply(op, Op::none, 1.0, W, column(la, mu), 0.0, out);
  std::vector<double> v(static_cast<std::size_t>(n));
  la.download(out, v.data());
  for (std::size_t i = 0; i < bias.size(); ++i) v[i] += bias[i];
  return v;
}

void check_data(const Context& context, const char* name, const SampleView& x, index_t n) {
  check_samples(name, x, n);
  if (x.n_samples < 1) throw InvalidArgument(name, "must hold at least one sample");
  check_magnitude(name, check_sample_values(context.backend(), name, x, {}));
}

}  // namespace

Preactivations::Preactivations(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Preactivations::~Preactivations() = default;
Preactivations::Preactivations(Preactivations&&) noexcept = default;
Preactivations& Preactivations::operator=(Preactivations&&) noexcept = default;

Preactivations Preactivations::from_samples(const Context& context, const SampleView& y, bool center) {
  if (y.n_features < 1) throw InvalidArgument("preactivations", "must have at least one neuron");
  check_data(context, "preactivations", y, y.n_features);
  auto impl = make_impl(context, "preactivations", y.n_features);
  impl->center = center;
  impl->samples = y;
  accumulate(*impl);
  return Preactivations(std::move(impl));
}

template <class T>
Preactivations Preactivations::from_inputs(const Context& context, MatrixView<const T> W, const SampleView& x,
                                           const double* bias, bool center) {
  Buffer<double> Wd = layer(context, W);
  check_data(context, "inputs", x, W.cols);
  auto impl = make_impl(context, "inputs", W.rows);
  impl->bias = check_bias(bias, W.rows);
  impl->W = std::move(Wd);
  impl->op_w = op_of(W);
  impl->center = center;
  impl->samples = x;
  accumulate(*impl);
  return Preactivations(std::move(impl));
}

template <class T>
Preactivations Preactivations::from_autocorrelation(const Context& context, MatrixView<const T> W,
                                                    const Autocorrelation& R, const double* bias, bool center) {
  const Buffer<double> Wd = layer(context, W);
  if (&R.context().backend() != &context.backend()) {
    throw InvalidArgument("autocorrelation", "lies in the memory of another backend; carry it over by its state()");
  }
  if (R.n_samples() == 0) throw InvalidArgument("autocorrelation", "no samples have been accumulated");
  if (R.n_features() != W.cols) {
    throw InvalidArgument("autocorrelation", "has " + std::to_string(R.n_features()) + " features, W has " +
                                                 std::to_string(W.cols) + " inputs");
  }
  auto& la = context.backend().full();
  auto impl = make_impl(context, "autocorrelation", W.rows);
  impl->center = center;
  impl->n_samples = R.n_samples();
  const Array<double> matrix = R.matrix();
  const auto threads = context.backend().thread_scope(std::max(W.rows, W.cols));
  impl->C = second_moment(context, "autocorrelation", Wd, op_of(W), columns_of(matrix.view()));

  const std::vector<double> b = check_bias(bias, W.rows);
  const std::vector<double> mu = R.mean();
  const std::vector<double> y = mean_output(context, Wd, op_of(W), mu, b, W.rows);
  const bool central = R.params().center;
  if (central && !center) {  // E[y y^T] = W cov W^T + (W mu + b)(W mu + b)^T
    add_outer(*impl, 1.0, y);
  } else if (!central && (center || !b.empty())) {  // W R W^T - W mu (W mu)^T is the covariance of y
    impl->noise = la.max_abs(impl->C);
    add_outer(*impl, -1.0, mean_output(context, Wd, op_of(W), mu, {}, W.rows));
    if (!center) add_outer(*impl, 1.0, y);
  }
  check_product_finite(context, "autocorrelation", impl->C);

  const bool root = R.params().method == AutocorrelationParams::Method::qr;
  if (root && (central || (!center && b.empty()))) {  // C = F F^T, F = [W L, W mu + b]: no square is ever formed
    const Array<double> L = R.factor();  // row-major: its memory is L^T
    const index_t extra = central && !center ? 1 : 0;
    impl->F = Buffer<double>(la, W.rows, W.cols + extra);
    la.multiply(op_of(W), Op::transpose, 1.0, Wd, columns_of(L.view()), 0.0, impl->F.mat().columns(0, W.cols));
    if (extra) la.copy(column(la, y), impl->F.mat().columns(W.cols, 1));
  }
  return Preactivations(std::move(impl));
}

template <class T>
Preactivations Preactivations::from_matrix(const Context& context, MatrixView<const T> W, MatrixView<const double> R,
                                           index_t n_samples) {
  const Buffer<double> Wd = layer(context, W);
  if (n_samples < 0) throw InvalidArgument("n_samples", "must be >= 0, is " + std::to_string(n_samples));
  check_square("autocorrelation", R.rows, R.cols, W.cols);
  const Buffer<double> S = symmetric_copy(context.backend(), "autocorrelation", R);
  auto impl = make_impl(context, "autocorrelation", W.rows);
  const auto threads = context.backend().thread_scope(std::max(W.rows, W.cols));
  impl->n_samples = n_samples;
  impl->C = second_moment(context, "autocorrelation", Wd, op_of(W), S);
  return Preactivations(std::move(impl));
}

template <class T>
Preactivations Preactivations::isotropic(const Context& context, MatrixView<const T> W, const double* bias) {
  const Buffer<double> Wd = layer(context, W);
  auto& la = context.backend().full();
  auto impl = make_impl(context, "W", W.rows);
  const auto threads = context.backend().thread_scope(W.rows);
  la.fill(impl->C, 0.0);
  la.accumulate_outer(op_of(W), 1.0, Wd, 0.0, impl->C);
  la.mirror_lower(impl->C);
  const std::vector<double> b = check_bias(bias, W.rows);
  if (!b.empty()) add_outer(*impl, 1.0, b);
  check_product_finite(context, "W", impl->C);
  return Preactivations(std::move(impl));
}

Preactivations Preactivations::from_covariance(const Context& context, MatrixView<const double> C, index_t n_samples) {
  if (n_samples < 0) throw InvalidArgument("n_samples", "must be >= 0, is " + std::to_string(n_samples));
  Buffer<double> S = symmetric_copy(context.backend(), "C", C);
  auto impl = make_impl(context, "C", C.rows);
  impl->n_samples = n_samples;
  impl->C = std::move(S);
  return Preactivations(std::move(impl));
}

void Preactivations::add(double alpha, const SampleView& y2) {
  if (!(alpha >= 0) || !std::isfinite(alpha)) {
    throw InvalidArgument("stack", "each factor must be finite and >= 0, is " + std::to_string(alpha));
  }
  check_data(impl_->context, "stack", y2, impl_->n);
  Autocorrelation acc(impl_->context, impl_->n);
  acc.update(y2);
  auto& la = impl_->context.backend().full();
  const Array<double> R = acc.matrix();
  Buffer<double> sum(la, impl_->n, impl_->n);
  la.copy(impl_->C, sum);
  la.add(alpha, columns_of(MatrixView<const double>(R.view())), sum);
  check_product_finite(impl_->context, "stack", sum);
  impl_->C = std::move(sum);
  // one C of several sources: no single sample size, square root or set of samples belongs to it
  impl_->stacked = true;
  impl_->n_samples = 0;
  impl_->F = {};
  impl_->samples = {};
}

index_t Preactivations::n() const { return impl_->n; }
index_t Preactivations::n_samples() const { return impl_->n_samples; }

Array<double> Preactivations::matrix() const {
  auto out = make_array<double>(impl_->context, impl_->n, impl_->n);
  impl_->context.backend().full().copy(impl_->C, Mat<double>(out.data(), impl_->n, impl_->n));
  return out;
}

#define BROCKETT_INSTANTIATE(T)                                                                                      \
  template Preactivations Preactivations::from_inputs(const Context&, MatrixView<const T>, const SampleView&,        \
                                                      const double*, bool);                                          \
  template Preactivations Preactivations::from_autocorrelation(const Context&, MatrixView<const T>,                  \
                                                               const Autocorrelation&, const double*, bool);         \
  template Preactivations Preactivations::from_matrix(const Context&, MatrixView<const T>, MatrixView<const double>, \
                                                      index_t);                                                      \
  template Preactivations Preactivations::isotropic(const Context&, MatrixView<const T>, const double*);
BROCKETT_INSTANTIATE(float)
BROCKETT_INSTANTIATE(double)

}  // namespace brockett
