// The singular value representation of a network: singular modes of its layers, joined by the overlaps of their vectors.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "brockett/context.hpp"
#include "brockett/matrix_view.hpp"
#include "brockett/svd.hpp"

namespace brockett {

/// Weights of one linear map, (out, in / groups * positions) with the positions of the kernel running fastest: PyTorch's
/// (out, in / groups, k1, k2, …) with its last axes joined. Grouped maps are block diagonal over equal groups of channels.
template <class T>
struct GraphLayer {
  MatrixView<const T> weights;
  index_t positions = 1;  ///< k1 k2 …; 1 for a fully connected layer
  index_t groups = 1;
  /// The map slides: its inputs and outputs are channels. Else it may read, or write, channels flattened with positions.
  bool convolutional = false;
  std::string name = "layer";  ///< for messages
};

struct GraphParams {
  /// Where the positions of a kernel go. `svr`: to its inputs, W is out x (in positions). `cosvr`: to its outputs, W is
  /// (out positions) x in. The same for a fully connected layer.
  enum class Method { svr, cosvr } method = Method::svr;
  index_t rank = 0;  ///< modes kept of each layer, at most; 0 keeps all
  SvdParams svd = {};  ///< how; its rank is not used
};

/// The vectors of a layer on one of its sides, in the memory of a Context: channels x (positions modes), column-major,
/// entry (c, p modes + i) is that of channel c at position p in the vector of mode i.
struct ModeView {
  DType type = DType::float32;  ///< float32 or float64
  const void* data = nullptr;
  index_t channels = 0;
  index_t positions = 1;
  index_t modes = 0;
  index_t resolved = 0;  ///< the leading modes; the rest have no edges
  bool convolutional = false;
};

/// Singular modes of a layer, W = sum_i s_i out_i in_i^T, singular values descending.
template <class T>
struct LayerModes {
  Array<T> out;  ///< left vectors, laid out as ModeView says; positions > 1 with cosvr only
  Array<T> in;  ///< right vectors; positions > 1 with svr only
  index_t out_positions = 1;
  index_t in_positions = 1;
  std::vector<double> s;
  /// Modes above rounding, s > max(rows, cols) eps s_1: the vectors of the rest are arbitrary.
  index_t n_resolved = 0;
  std::vector<index_t> group;  ///< of channels, that the mode lives in
  double residual = 0;  ///< as Svd's, the largest of all groups
  std::string method;  ///< as Svd's, of the first group
  bool convolutional = false;

  ModeView out_view() const;
  ModeView in_view() const;
};

/// Modes of each layer. Layers of order up to 512 share the workers of the context, larger ones come one by one. The cost is
/// that of svd of W.
template <class T>
std::vector<LayerModes<T>> layer_modes(const Context& context, const std::vector<GraphLayer<T>>& layers,
                                       const GraphParams& params = {});

/// Channels that `from`, outputs, and `to`, inputs, have in common: those of the two where they agree; those of the
/// convolutional side where the other is fully connected and its size a multiple, channels before positions. 0: none.
BROCKETT_EXPORT index_t common_channels(const ModeView& from, const ModeView& to);

/// A (to.modes, from.modes), A_ji = sum_pq (sum_c from_i(c, p) to_j(c, q))^2: squared overlaps of the output vectors of
/// one layer with the input vectors of another, summed over the positions of both. 0 for modes that are not resolved.
/// 2 channels from.modes to.modes flops a pair of positions, in float64.
/// D. Meller, N. Berkouk, arXiv 2302.08183.
BROCKETT_EXPORT Array<double> adjacency(const Context& context, const ModeView& from, const ModeView& to);

/// The overlaps themselves, (q p to.modes, from.modes), row (q from.positions + p) to.modes + j: where `from` has one
/// position, entry (q, j, i) is the kernel that leads from mode i to mode j at position q.
BROCKETT_EXPORT Array<double> overlaps(const Context& context, const ModeView& from, const ModeView& to);

template <class T>
struct SpectralGraph {
  std::vector<LayerModes<T>> layers;
  std::vector<std::pair<index_t, index_t>> edges;  ///< of layers: (from, to)
  std::vector<Array<double>> adjacency;  ///< (modes of to, modes of from) of each edge
};

/// layer_modes and the adjacency of each edge; no edges: a chain. InvalidArgument names what does not fit.
template <class T>
SpectralGraph<T> spectral_graph(const Context& context, const std::vector<GraphLayer<T>>& layers,
                                std::vector<std::pair<index_t, index_t>> edges = {}, const GraphParams& params = {});

extern template BROCKETT_EXPORT ModeView LayerModes<float>::out_view() const;
extern template BROCKETT_EXPORT ModeView LayerModes<float>::in_view() const;
extern template BROCKETT_EXPORT ModeView LayerModes<double>::out_view() const;
extern template BROCKETT_EXPORT ModeView LayerModes<double>::in_view() const;
extern template BROCKETT_EXPORT std::vector<LayerModes<float>> layer_modes(const Context&,
                                                                           const std::vector<GraphLayer<float>>&,
                                                                           const GraphParams&);
extern template BROCKETT_EXPORT std::vector<LayerModes<double>> layer_modes(const Context&,
                                                                            const std::vector<GraphLayer<double>>&,
                                                                            const GraphParams&);
extern template BROCKETT_EXPORT SpectralGraph<float> spectral_graph(const Context&,
                                                                    const std::vector<GraphLayer<float>>&,
                                                                    std::vector<std::pair<index_t, index_t>>,
                                                                    const GraphParams&);
extern template BROCKETT_EXPORT SpectralGraph<double> spectral_graph(const Context&,
                                                                     const std::vector<GraphLayer<double>>&,
                                                                     std::vector<std::pair<index_t, index_t>>,
                                                                     const GraphParams&);

}  // namespace brockett
