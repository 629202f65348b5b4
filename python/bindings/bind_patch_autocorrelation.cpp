// The accumulator of the second moments of the patches of images.
#include <array>

#include "accumulator.hpp"
#include "array_view.hpp"
#include "bindings.hpp"
#include "brockett/patch_autocorrelation.hpp"

namespace brockett::python {
namespace {

using Pair = std::pair<index_t, index_t>;
using Four = std::tuple<index_t, index_t, index_t, index_t>;

PatchParams params_from(index_t in_channels, Pair kernel, Pair stride, Pair dilation, Four padding, index_t groups,
                        bool circular, bool center) {
  const auto [top, bottom, left, right] = padding;
  return {in_channels,
          {kernel.first, kernel.second},
          {stride.first, stride.second},
          {dilation.first, dilation.second},
          {top, bottom, left, right},
          groups,
          circular,
          center};
}

// X is (n_images, channels height width), rows contiguous.
void update(PatchAccumulator& acc, const ArrayRef& X, index_t height, index_t width, const py::object& weights,
            bool bfloat16) {
  const SampleView x = sample_view(X, "X", bfloat16);
  const index_t channels = acc.total.params().in_channels;
  if (height < 1 || width < 1 || x.n_features != channels * height * width) {
    throw InvalidArgument("X", "expected " + std::to_string(channels) + " channels of " + std::to_string(height) +
                                   " x " + std::to_string(width) + " in a row, got " + std::to_string(x.n_features));
  }
  const double* w = vector_or_null(weights, "weights", x.n_samples);
  const Workplace where("this accumulator", acc.place, {{"X", &X}});
  unlocked([&] { acc.total.update({x.dtype, x.data, x.n_samples, channels, height, width, x.ld}, w); });
}

template <class T, std::size_t N>
py::tuple to_tuple(const std::array<T, N>& values) {
  py::tuple out(N);
  for (std::size_t i = 0; i < N; ++i) out[i] = values[i];
  return out;
}

void merge(PatchAccumulator& acc, const PatchAccumulator& other) {
  Workplace where("this accumulator", acc.place, {});
  where.add("other", other.place);
  unlocked([&] { merge_totals(acc.total, other.total); });
}

Dict state(const PatchAutocorrelation& acc) {
  PatchAutocorrelationState s = unlocked([&] { return acc.state(); });
  const index_t n = acc.n_features();
  Dict out;
  out["in_channels"] = s.params.in_channels;
  out["kernel"] = to_tuple(s.params.kernel);
  out["stride"] = to_tuple(s.params.stride);
  out["dilation"] = to_tuple(s.params.dilation);
  out["padding"] = to_tuple(s.params.padding);
  out["groups"] = s.params.groups;
  out["circular"] = s.params.circular;
  out["center"] = s.params.center;
  out["n_samples"] = s.n_samples;
  out["weight"] = s.weight;
  out["mean"] = to_numpy(std::move(s.mean)).reshape({s.params.groups, n});
  out["moment"] = to_numpy(std::move(s.moment)).reshape({s.params.groups, n, n});
  return out;
}

PatchAccumulator from_state(const Dict& state, const py::object&, const py::object& device, std::uintptr_t stream) {
  PatchAutocorrelationState s;
  s.params = params_from(state["in_channels"].cast<index_t>(), state["kernel"].cast<Pair>(),
                         state["stride"].cast<Pair>(), state["dilation"].cast<Pair>(), state["padding"].cast<Four>(),
                         state["groups"].cast<index_t>(), state["circular"].cast<bool>(), state["center"].cast<bool>());
  s.n_samples = state["n_samples"].cast<index_t>();
  s.weight = state["weight"].cast<double>();
  const index_t n = PatchAutocorrelation(interruptible(), s.params).n_features(), groups = s.params.groups;
  s.mean = host_numbers(state, "mean", groups * n);
  s.moment = host_numbers(state, "moment", groups * n * n);
  const Place place = place_from(device, stream);
  return unlocked([&] { return PatchAccumulator{PatchAutocorrelation(place.context(), s), place}; });
}

// One group, as the state of an Accumulator.
Dict group_state(const PatchAutocorrelation& acc, index_t group) {
  AutocorrelationState s = unlocked([&] { return acc.group_state(group); });
  Dict out;
  out["n_features"] = s.n_features;
  out["n_samples"] = s.n_samples;
  out["weight"] = s.weight;
  out["center"] = s.params.center;
  out["method"] = "gram";
  out["precision"] = "double";
  out["mean"] = to_numpy(std::move(s.mean));
  out["moment"] = to_numpy_square(std::move(s.moment), s.n_features);
  return out;
}

}  // namespace

void bind_patch_autocorrelation(py::module_& m) {
  py::class_<PatchAccumulator>(m, "PatchAccumulator",
                               "Streaming second moments of patches. Not for use from two threads at once.")
      .def(py::init([](index_t in_channels, Pair kernel, Pair stride, Pair dilation, Four padding, index_t groups,
                       bool circular, bool center, const py::object&, const py::object& device, std::uintptr_t stream) {
             const PatchParams params =
                 params_from(in_channels, kernel, stride, dilation, padding, groups, circular, center);
             const Place place = place_from(device, stream);
             return unlocked([&] { return PatchAccumulator{PatchAutocorrelation(place.context(), params), place}; });
           }),
           py::arg("in_channels"), py::arg("kernel"), py::arg("stride"), py::arg("dilation"), py::arg("padding"),
           py::arg("groups"), py::arg("circular"), py::arg("center"), py::kw_only(), py::arg("xp") = py::none(),
           py::arg("device") = py::none(), py::arg("stream") = 0)
      .def(
          "update", &update, py::arg("X"), py::arg("height"), py::arg("width"), py::arg("weights") = py::none(),
          py::arg("bfloat16") = false,
          "Add the patches of images (n_images, channels height width), rows contiguous; in host memory bfloat16 comes "
          "as uint16.")
      .def("merge", &merge, py::arg("other"), "Add what another one of the same parameters holds.")
      .def(
          "clear", [](PatchAccumulator& acc) { unlocked([&] { acc.total.clear(); }); },
          "Hold nothing again, in the same memory.")
      .def(
          "matrix",
          [](const PatchAccumulator& acc, index_t group) {
            return to_python(unlocked([&] { return acc.total.matrix(group); }), acc.place);
          },
          py::arg("group"), "R (n, n) of one group.")
      .def(
          "mean", [](const PatchAccumulator& acc) { return to_numpy(acc.total.mean()); },
          "E[x], groups x n, in host memory.")
      .def(
          "state", [](const PatchAccumulator& acc) { return state(acc.total); },
          "Everything held, as NumPy arrays and numbers.")
      .def(
          "group_state", [](const PatchAccumulator& acc, index_t group) { return group_state(acc.total, group); },
          py::arg("group"), "One group, as Accumulator.from_state takes it.")
      .def_static("from_state", &from_state, py::arg("state"), py::kw_only(), py::arg("xp") = py::none(),
                  py::arg("device") = py::none(), py::arg("stream") = 0, "From what state() gave.")
      .def_property_readonly("n_features", [](const PatchAccumulator& acc) { return acc.total.n_features(); })
      .def_property_readonly("n_samples", [](const PatchAccumulator& acc) { return acc.total.n_samples(); })
      .def_property_readonly("weight", [](const PatchAccumulator& acc) { return acc.total.weight(); });
}

}  // namespace brockett::python
