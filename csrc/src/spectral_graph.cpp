#include "brockett/spectral_graph.hpp"

#include <algorithm>
#include <cstddef>
#include <limits>
#include <numeric>
#include <utility>

#include "check.hpp"
#include "linalg/buffer.hpp"
#include "linalg/linalg.hpp"

namespace brockett {

using linalg::Buffer;
using linalg::LinAlg;
using linalg::Mat;
using linalg::Op;

namespace {

using Method = GraphParams::Method;

/// Up to this order one SVD has nothing for a second BLAS thread to do.
constexpr index_t kSmall = 512;

index_t size(const std::vector<double>& v) { return static_cast<index_t>(v.size()); }

/// A packed column-major copy of a view.
template <class T>
Buffer<T> packed(LinAlg<T>& la, MatrixView<const T> X) {
  Buffer<T> out(la, X.rows, X.cols);
  if (X.order == Order::column_major) {
    la.copy(columns_of(X), out);
  } else {
    la.transpose(columns_of(X), out);
  }
  return out;
}

/// Row c P + p of column i -> row c of column p r + i: channels x (P r) from (channels P) x r.
template <class T>
Buffer<T> positions_apart(LinAlg<T>& la, const T* X, index_t channels, index_t positions, index_t r) {
  Buffer<T> out(la, channels, positions * r);
  la.transpose(Mat<const T>(X, positions, channels * r), Mat<T>(out.data(), channels * r, positions));
  return out;
}

/// Modes of one group of channels, laid out as ModeView says.
template <class T>
struct GroupModes {
  Buffer<T> out, in;
  std::vector<double> s;
  double residual = 0;
  std::string method;
};

/// W (o, i K) itself: the positions belong to the inputs.
template <class T>
GroupModes<T> svr_modes(const Context& context, MatrixView<const T> W, index_t positions, const SvdParams& params) {
  auto& la = linalg::of<T>(context.backend());
  Svd<T> found = svd<T>(context, W, params);
  const index_t r = size(found.s);
  GroupModes<T> group;
  group.out = packed<T>(la, found.U.view());
  group.in = packed<T>(la, found.Vt.transposed().view());
  if (positions > 1) {
    group.in = positions_apart<T>(la, group.in.data(), W.cols / positions, positions, r);
  }
  group.s = std::move(found.s);
  group.residual = found.residual;
  group.method = std::move(found.method);
  return group;
}

/// W as (K o, i): the positions belong to the outputs.
template <class T>
GroupModes<T> cosvr_modes(const Context& context, MatrixView<const T> W, index_t positions, const SvdParams& params) {
  auto& la = linalg::of<T>(context.backend());
  const index_t o = W.rows, i = W.cols / positions;
  // (i K) x o, the entry of channels c, d and position p in row c K + p of column d -> column p o + d of i x (K o)
  Buffer<T> rows = packed<T>(la, W.transposed());
  Buffer<T> apart = positions_apart<T>(la, rows.data(), i, positions, o);
  rows = {};
  Svd<T> found = svd<T>(context, {apart.data(), positions * o, i, Order::row_major}, params);
  const index_t r = size(found.s);
  GroupModes<T> group;
  group.in = packed<T>(la, found.Vt.transposed().view());
  // U row-major: column p o + d of an r x (K o) matrix -> row d of columns p r …
  group.out = Buffer<T>(la, o, positions * r);
  const Mat<const T> U = columns_of(MatrixView<const T>(found.U.view()));
  for (index_t p = 0; p < positions; ++p) la.transpose(U.columns(p * o, o), group.out.mat().columns(p * r, r));
  group.s = std::move(found.s);
  group.residual = found.residual;
  group.method = std::move(found.method);
  return group;
}

template <class T>
MatrixView<const T> rows_of(MatrixView<const T> W, index_t first, index_t count) {
  return {W.data + first * (W.order == Order::row_major ? W.ld : 1), count, W.cols, W.ld, W.order};
}

/// Memory of a result that `array` owns, as column-major channels x (positions modes).
template <class T>
Array<T> column_array(const Context& context, index_t rows, index_t cols) {
  return make_array<T>(context, rows, cols, Order::column_major);
}

template <class T>
LayerModes<T> modes_of(const Context& context, const GraphLayer<T>& layer, const GraphParams& params) {
  auto& la = linalg::of<T>(context.backend());
  const auto& W = layer.weights;
  const index_t G = layer.groups, K = layer.positions, o = W.rows / G, i = W.cols / K;
  const bool svr = params.method == Method::svr || K == 1;
  const index_t longest = svr ? std::max(o, i * K) : std::max(o * K, i),
                least = svr ? std::min(o, i * K) : std::min(o * K, i);
  SvdParams how = params.svd;
  how.rank = params.rank > 0 ? std::min(params.rank, least) : 0;

  // a block diagonal matrix has the modes of its blocks
  std::vector<GroupModes<T>> groups;
  LayerModes<T> out;
  struct Mode {
    double s;
    index_t group, column;
  };
  std::vector<Mode> modes;
  for (index_t g = 0; g < G; ++g) {
    context.check_interrupt();
    const auto part = rows_of(W, g * o, o);
    groups.push_back(svr ? svr_modes<T>(context, part, K, how) : cosvr_modes<T>(context, part, K, how));
    const auto& s = groups.back().s;
    for (index_t k = 0; k < size(s); ++k) modes.push_back({s[static_cast<std::size_t>(k)], g, k});
    out.residual = std::max(out.residual, groups.back().residual);
  }
  std::stable_sort(modes.begin(), modes.end(), [](const Mode& a, const Mode& b) { return a.s > b.s; });
  if (params.rank > 0 && params.rank < static_cast<index_t>(modes.size())) {
    modes.resize(static_cast<std::size_t>(params.rank));
  }

  const index_t m = static_cast<index_t>(modes.size());
  out.method = groups[0].method;
  out.out_positions = svr ? 1 : K;
  out.in_positions = svr ? K : 1;
  out.convolutional = layer.convolutional;
  out.out = column_array<T>(context, W.rows, out.out_positions * m);
  out.in = column_array<T>(context, i * G, out.in_positions * m);
  const Mat<T> left = columns_of(out.out.view()), right = columns_of(out.in.view());
  if (G == 1) {
    la.copy(groups[0].out, left);
    la.copy(groups[0].in, right);
  } else {
    la.fill(left, T(0));
    la.fill(right, T(0));
    for (index_t k = 0; k < m; ++k) {
      const Mode& mode = modes[static_cast<std::size_t>(k)];
      const auto& group = groups[static_cast<std::size_t>(mode.group)];
      const index_t r = size(group.s);
      for (index_t p = 0; p < out.out_positions; ++p) {
        la.copy(group.out.mat().columns(p * r + mode.column, 1), left.block(mode.group * o, p * m + k, o, 1));
      }
      for (index_t p = 0; p < out.in_positions; ++p) {
        la.copy(group.in.mat().columns(p * r + mode.column, 1), right.block(mode.group * i, p * m + k, i, 1));
      }
    }
  }
  const double floor = static_cast<double>(longest) * std::numeric_limits<T>::epsilon() * modes[0].s;
  for (const Mode& mode : modes) {
    out.s.push_back(mode.s);
    out.group.push_back(mode.group);
    if (mode.s > floor) ++out.n_resolved;
  }
  return out;
}

template <class T>
void check_layer(linalg::Backend& backend, const GraphLayer<T>& layer) {
  const char* name = layer.name.c_str();
  check_matrix(backend, name, layer.weights);
  if (layer.positions < 1 || layer.weights.cols % layer.positions != 0) {
    throw InvalidArgument(layer.name, std::to_string(layer.weights.cols) +
                                          " columns are not a number of channels times " +
                                          std::to_string(layer.positions) + " positions");
  }
  if (layer.groups < 1 || layer.weights.rows % layer.groups != 0) {
    throw InvalidArgument(layer.name, std::to_string(layer.weights.rows) + " output channels do not divide into " +
                                          std::to_string(layer.groups) + " groups");
  }
}

/// One side of an edge over the channels of the edge, position by position, in float64.
class Side {
 public:
  Side(const Context& context, const ModeView& v, index_t channels)
      : full_(context.backend().full()), view_(v), channels_(channels), positions_(v.positions) {
    if (v.channels != channels) {  // flattened: channels before positions
      positions_ = v.channels / channels;
      if (v.type == DType::float32) {
        single_copy_ = positions_apart<float>(context.backend().single(), static_cast<const float*>(v.data), channels,
                                              positions_, v.modes);
        view_.data = single_copy_.data();
      } else {
        double_copy_ =
            positions_apart<double>(full_, static_cast<const double*>(v.data), channels, positions_, v.modes);
        view_.data = double_copy_.data();
      }
    }
    if (v.type == DType::float32) block_ = Buffer<double>(full_, channels, v.resolved);
  }

  index_t positions() const { return positions_; }

  /// channels x resolved modes at position p; what the last call returned is overwritten.
  Mat<const double> operator()(index_t p) {
    const index_t offset = p * view_.modes * channels_;
    if (view_.type == DType::float64) {
      return {static_cast<const double*>(view_.data) + offset, channels_, view_.resolved};
    }
    full_.convert_from(DType::float32, static_cast<const float*>(view_.data) + offset, channels_, block_);
    return block_;
  }

 private:
  LinAlg<double>& full_;
  ModeView view_;
  index_t channels_, positions_;
  Buffer<float> single_copy_;
  Buffer<double> double_copy_, block_;
};

index_t checked_channels(const ModeView& from, const ModeView& to) {
  const index_t n = common_channels(from, to);
  if (n == 0) {
    throw InvalidArgument(
        "edges", std::to_string(from.channels) + " outputs do not fit " + std::to_string(to.channels) + " inputs");
  }
  return n;
}

}  // namespace

template <class T>
ModeView LayerModes<T>::out_view() const {
  return {dtype_of<T>(), out.data(),   out.rows(), out_positions, static_cast<index_t>(s.size()),
          n_resolved,    convolutional};
}

template <class T>
ModeView LayerModes<T>::in_view() const {
  return {dtype_of<T>(), in.data(), in.rows(), in_positions, static_cast<index_t>(s.size()), n_resolved, convolutional};
}

index_t common_channels(const ModeView& from, const ModeView& to) {
  if (from.channels == to.channels) return from.channels;
  if (from.convolutional && !to.convolutional && to.channels % from.channels == 0) return from.channels;
  if (to.convolutional && !from.convolutional && from.channels % to.channels == 0) return to.channels;
  return 0;
}

template <class T>
std::vector<LayerModes<T>> layer_modes(const Context& context, const std::vector<GraphLayer<T>>& layers,
                                       const GraphParams& params) {
  if (params.rank < 0) throw InvalidArgument("rank", "must be at least 1, is " + std::to_string(params.rank));
  for (const auto& layer : layers) check_layer(context.backend(), layer);
  std::vector<LayerModes<T>> out(layers.size());
  std::vector<std::size_t> small;
  for (std::size_t k = 0; k < layers.size(); ++k) {
    const auto& W = layers[k].weights;
    if (std::min(W.rows, W.cols) <= kSmall) {
      small.push_back(k);
    } else {
      out[k] = modes_of(context, layers[k], params);
    }
  }
  Context quiet = context;  // workers may not run the interrupt check, which wants the calling thread
  quiet.set_interrupt({});
  parallel_for(context, static_cast<index_t>(small.size()), [&](index_t j) {
    const std::size_t k = small[static_cast<std::size_t>(j)];
    out[k] = modes_of(quiet, layers[k], params);
  });
  return out;
}

Array<double> adjacency(const Context& context, const ModeView& from, const ModeView& to) {
  const index_t n = checked_channels(from, to);
  auto& la = context.backend().full();
  const auto threads = context.backend().thread_scope(n);
  auto out = make_array<double>(context, to.modes, from.modes, Order::row_major);
  const Mat<double> A = columns_of(out.view());  // from.modes x to.modes
  la.fill(A, 0.0);
  if (from.resolved == 0 || to.resolved == 0) return out;
  Side left(context, from, n), right(context, to, n);
  Buffer<double> overlap(la, from.resolved, to.resolved);
  const Mat<double> sum = A.block(0, 0, from.resolved, to.resolved);
  for (index_t p = 0; p < left.positions(); ++p) {
    const Mat<const double> L = left(p);
    for (index_t q = 0; q < right.positions(); ++q) {
      context.check_interrupt();
      la.multiply(Op::transpose, Op::none, 1.0, L, right(q), 0.0, overlap);
      la.square(overlap);
      la.add(1.0, overlap, sum);
    }
  }
  return out;
}

Array<double> overlaps(const Context& context, const ModeView& from, const ModeView& to) {
  const index_t n = checked_channels(from, to);
  auto& la = context.backend().full();
  const auto threads = context.backend().thread_scope(n);
  Side left(context, from, n), right(context, to, n);
  auto out = make_array<double>(context, left.positions() * right.positions() * to.modes, from.modes, Order::row_major);
  const Mat<double> all = columns_of(out.view());
  la.fill(all, 0.0);
  if (from.resolved == 0 || to.resolved == 0) return out;
  for (index_t p = 0; p < left.positions(); ++p) {
    const Mat<const double> L = left(p);
    for (index_t q = 0; q < right.positions(); ++q) {
      context.check_interrupt();
      const index_t first = (q * left.positions() + p) * to.modes;
      la.multiply(Op::transpose, Op::none, 1.0, L, right(q), 0.0, all.block(0, first, from.resolved, to.resolved));
    }
  }
  return out;
}

template <class T>
SpectralGraph<T> spectral_graph(const Context& context, const std::vector<GraphLayer<T>>& layers,
                                std::vector<std::pair<index_t, index_t>> edges, const GraphParams& params) {
  const auto count = static_cast<index_t>(layers.size());
  if (count == 0) throw InvalidArgument("layers", "expected at least one layer, got none");
  if (edges.empty()) {
    for (index_t k = 0; k + 1 < count; ++k) edges.emplace_back(k, k + 1);
  }
  for (const auto& [a, b] : edges) {
    const std::string pair = shape_text(a, b);
    if (a < 0 || b < 0 || a >= count || b >= count) {
      throw InvalidArgument("edges", pair + " is not a pair of the " + std::to_string(count) + " layers");
    }
    const auto& from = layers[static_cast<std::size_t>(a)];
    const auto& to = layers[static_cast<std::size_t>(b)];
    ModeView writes, reads;
    writes.channels = from.weights.rows;
    writes.convolutional = from.convolutional;
    reads.channels = to.weights.cols / std::max<index_t>(to.positions, 1) * to.groups;
    reads.convolutional = to.convolutional;
    if (writes.channels < 1 || reads.channels < 1 || common_channels(writes, reads) == 0) {
      throw InvalidArgument("edges", pair + ": " + std::to_string(writes.channels) + " outputs of " + from.name +
                                         " do not fit the " + std::to_string(reads.channels) + " inputs of " + to.name);
    }
  }
  SpectralGraph<T> graph;
  graph.layers = layer_modes(context, layers, params);
  for (const auto& [a, b] : edges) {
    context.check_interrupt();
    graph.adjacency.push_back(adjacency(context, graph.layers[static_cast<std::size_t>(a)].out_view(),
                                        graph.layers[static_cast<std::size_t>(b)].in_view()));
  }
  graph.edges = std::move(edges);
  return graph;
}

template struct LayerModes<float>;
template struct LayerModes<double>;
template std::vector<LayerModes<float>> layer_modes(const Context&, const std::vector<GraphLayer<float>>&,
                                                    const GraphParams&);
template std::vector<LayerModes<double>> layer_modes(const Context&, const std::vector<GraphLayer<double>>&,
                                                     const GraphParams&);
template SpectralGraph<float> spectral_graph(const Context&, const std::vector<GraphLayer<float>>&,
                                             std::vector<std::pair<index_t, index_t>>, const GraphParams&);
template SpectralGraph<double> spectral_graph(const Context&, const std::vector<GraphLayer<double>>&,
                                              std::vector<std::pair<index_t, index_t>>, const GraphParams&);

}  // namespace brockett
