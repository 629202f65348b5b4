// Singular modes of layers, and the overlaps that join them.
#include "brockett/spectral_graph.hpp"

#include "array_view.hpp"
#include "bindings.hpp"

namespace brockett::python {
namespace {

using Arrays = py::typing::List<ArrayRef>;
using Counts = py::typing::List<py::int_>;

template <class T>
Dict to_dict(LayerModes<T> r, const Place& place) {
  Dict out;
  out["out"] = to_python(r.out, place);
  out["in"] = to_python(r.in, place);
  out["s"] = to_numpy(std::move(r.s));
  out["group"] = to_numpy(std::move(r.group));
  out["n_resolved"] = r.n_resolved;
  out["residual"] = r.residual;
  out["method"] = r.method;
  return out;
}

/// Those of `weights` that hold T, decomposed together; the rest of `found` is left alone.
template <class T>
void decompose(const std::vector<ArrayRef>& weights, const Counts& positions, const Counts& groups,
               const GraphParams& params, const Workplace& where, std::vector<py::object>& found) {
  std::vector<GraphLayer<T>> layers;
  std::vector<std::size_t> at;
  for (std::size_t k = 0; k < found.size(); ++k) {
    const ArrayRef& array = weights[k];
    const std::string name = "layers[" + std::to_string(k) + "]";
    if (!holds<float>(array) && !holds<double>(array)) {
      throw InvalidArgument(name, "expected float32 or float64, got " + dtype_name(array));
    }
    if (!holds<T>(array)) continue;
    GraphLayer<T> layer;
    layer.weights = matrix_view<T>(array, name.c_str());
    layer.positions = py::cast<index_t>(positions[k]);
    layer.groups = py::cast<index_t>(groups[k]);
    layer.name = name;
    layers.push_back(std::move(layer));
    at.push_back(k);
  }
  auto modes = unlocked([&] { return layer_modes<T>(where.context(), layers, params); });
  for (std::size_t j = 0; j < at.size(); ++j) found[at[j]] = to_dict(std::move(modes[j]), where.place());
}

Dicts graph_modes(const Arrays& weights, const Counts& positions, const Counts& groups, const std::string& method,
                  index_t rank) {
  GraphParams params;
  if (method != "svr" && method != "cosvr") {
    throw InvalidArgument("method", "expected 'svr' or 'cosvr', got " + method);
  }
  params.method = method == "svr" ? GraphParams::Method::svr : GraphParams::Method::cosvr;
  params.rank = rank;
  std::vector<py::object> found(weights.size());
  if (positions.size() != found.size() || groups.size() != found.size()) {
    throw InvalidArgument("layers", "expected as many positions and groups as weights");
  }
  std::vector<ArrayRef> arrays;
  for (const auto& one : weights) arrays.push_back(py::cast<ArrayRef>(one));
  Workplace where{};
  for (std::size_t k = 0; k < arrays.size(); ++k) {
    where.add(("layers[" + std::to_string(k) + "]").c_str(), arrays[k].place());
  }
  decompose<float>(arrays, positions, groups, params, where, found);
  decompose<double>(arrays, positions, groups, params, where, found);
  Dicts out;
  for (auto& one : found) out.append(std::move(one));
  return out;
}

/// Vectors (channels, positions modes), column-major, that `side` describes.
ModeView mode_view(const Dict& side, const ArrayRef& vectors, const char* name) {
  ModeView v;
  v.modes = py::cast<index_t>(side["modes"]);
  v.resolved = py::cast<index_t>(side["resolved"]);
  v.convolutional = py::cast<bool>(side["convolutional"]);
  const index_t rows = vectors.ndim() == 2 ? vectors.shape(0) : 0, cols = vectors.ndim() == 2 ? vectors.shape(1) : 0;
  if (rows < 1 || v.modes < 1 || v.resolved < 0 || v.resolved > v.modes || cols < 1 || cols % v.modes != 0) {
    throw InvalidArgument(name, "expected vectors (channels, positions * modes)");
  }
  by_dtype(vectors, name, [&](auto type) {
    using T = decltype(type);
    if ((rows > 1 && vectors.strides(0) != sizeof(T)) ||
        (cols > 1 && vectors.strides(1) != rows * index_t{sizeof(T)})) {
      throw InvalidArgument(name, "vectors must be column-major and packed");
    }
    v.type = sizeof(T) == 4 ? DType::float32 : DType::float64;
  });
  v.data = vectors.data();
  v.channels = rows;
  v.positions = cols / v.modes;
  return v;
}

/// What `f` makes of the outputs of one layer and the inputs of another.
py::object joined(const Dict& source, const Dict& target,
                  Array<double> (*f)(const Context&, const ModeView&, const ModeView&)) {
  const auto outputs = py::cast<ArrayRef>(source["vectors"]), inputs = py::cast<ArrayRef>(target["vectors"]);
  const ModeView from = mode_view(source, outputs, "source"), to = mode_view(target, inputs, "target");
  const Workplace where{{"source", &outputs}, {"target", &inputs}};
  return to_python(unlocked([&] { return f(where.context(), from, to); }), where.place());
}

}  // namespace

void bind_spectral_graph(py::module_& m) {
  m.def(
      "graph_modes", &graph_modes, py::arg("weights"), py::arg("positions"), py::arg("groups"), py::arg("method"),
      py::arg("rank"),
      "out, in, s, group, n_resolved, residual and method of each W (out, in / groups * positions); rank 0 keeps all.");
  m.def(
      "graph_adjacency", [](const Dict& source, const Dict& target) { return joined(source, target, &adjacency); },
      py::arg("source"), py::arg("target"), "Squared overlaps (modes of target, modes of source).");
  m.def(
      "graph_overlaps", [](const Dict& source, const Dict& target) { return joined(source, target, &overlaps); },
      py::arg("source"), py::arg("target"),
      "Overlaps (target positions * source positions * modes of target, modes of source).");
}

}  // namespace brockett::python
