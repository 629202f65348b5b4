// The accumulator of second moments.
#include <array>

#include "accumulator.hpp"
#include "array_view.hpp"
#include "bindings.hpp"

namespace brockett::python {
namespace {

using Precision = AutocorrelationParams::Precision;

constexpr std::array<std::pair<const char*, Precision>, 5> kPrecisions{{
    {"double", Precision::full},
    {"single", Precision::single},
    {"tf32", Precision::tf32},
    {"bf16", Precision::bf16},
    {"fp16", Precision::fp16},
}};

AutocorrelationParams params_from(bool center, const std::string& method, const std::string& precision) {
  AutocorrelationParams p;
  p.center = center;
  if (method != "gram" && method != "qr") throw InvalidArgument("method", "expected 'gram' or 'qr', got " + method);
  p.method = method == "qr" ? AutocorrelationParams::Method::qr : AutocorrelationParams::Method::gram;
  for (const auto& [word, value] : kPrecisions) {
    if (precision == word) {
      p.precision = value;
      return p;
    }
  }
  throw InvalidArgument("precision", "expected 'double', 'single', 'tf32', 'bf16' or 'fp16', got " + precision);
}

const char* method_word(const AutocorrelationParams& p) {
  return p.method == AutocorrelationParams::Method::qr ? "qr" : "gram";
}
const char* precision_word(const AutocorrelationParams& p) {
  for (const auto& [word, value] : kPrecisions) {
    if (p.precision == value) return word;
  }
  return "";
}

void update(Accumulator& acc, const ArrayRef& X, const py::object& weights, bool bfloat16) {
  const SampleView x = sample_view(X, "X", bfloat16);
  const double* w = vector_or_null(weights, "weights", x.n_samples);
  if (X.place().on_host()) {  // on a device: through pinned buffers, block by block
    unlocked([&] { acc.total.update_from_host(x, w); });
    return;
  }
  const Workplace where("this accumulator", acc.place, {{"X", &X}});
  unlocked([&] { acc.total.update(x, w); });
}

void merge(Accumulator& acc, const Accumulator& other) {
  Workplace where("this accumulator", acc.place, {});
  where.add("other", other.place);
  unlocked([&] { merge_totals(acc.total, other.total); });
}

Dict state(const Accumulator& acc) {
  AutocorrelationState s = unlocked([&] { return acc.total.state(); });
  Dict out;
  out["n_features"] = s.n_features;
  out["n_samples"] = s.n_samples;
  out["weight"] = s.weight;
  out["center"] = s.params.center;
  out["method"] = method_word(s.params);
  out["precision"] = precision_word(s.params);
  out["mean"] = to_numpy(std::move(s.mean));
  out["moment"] = to_numpy_square(std::move(s.moment), s.n_features);
  return out;
}

Accumulator from_state(const Dict& state, const py::object&, const py::object& device, std::uintptr_t stream) {
  AutocorrelationState s;
  s.params = params_from(state["center"].cast<bool>(), state["method"].cast<std::string>(),
                         state["precision"].cast<std::string>());
  s.n_features = state["n_features"].cast<index_t>();
  s.n_samples = state["n_samples"].cast<index_t>();
  s.weight = state["weight"].cast<double>();
  if (s.n_features < 1) throw InvalidArgument("n_features", "expected 1 or more");
  s.mean = host_numbers(state, "mean", s.n_features);
  s.moment = host_numbers(state, "moment", s.n_features * s.n_features);
  const Place place = place_from(device, stream);
  return unlocked([&] { return Accumulator{Autocorrelation(place.context(), s), place}; });
}

}  // namespace

void bind_autocorrelation(py::module_& m) {
  // The engines share one signature; xp means nothing to this one. Without a device it works in host memory.
  py::class_<Accumulator>(m, "Accumulator", "Streaming second moments. Not for use from two threads at once.")
      .def(py::init([](index_t n_features, bool center, const std::string& method, const std::string& precision,
                       const py::object&, const py::object& device, std::uintptr_t stream) {
             const AutocorrelationParams params = params_from(center, method, precision);
             const Place place = place_from(device, stream);
             return unlocked([&] { return Accumulator{Autocorrelation(place.context(), n_features, params), place}; });
           }),
           py::arg("n_features"), py::arg("center"), py::arg("method"), py::arg("precision"), py::kw_only(),
           py::arg("xp") = py::none(), py::arg("device") = py::none(), py::arg("stream") = 0)
      .def("update", &update, py::arg("X"), py::arg("weights") = py::none(), py::arg("bfloat16") = false,
           "Add samples (n_samples, n_features), rows contiguous; in host memory bfloat16 comes as uint16.")
      .def("merge", &merge, py::arg("other"), "Add what another one of the same parameters holds.")
      .def(
          "clear", [](Accumulator& acc) { unlocked([&] { acc.total.clear(); }); },
          "Hold nothing again, in the same memory.")
      .def(
          "matrix",
          [](const Accumulator& acc) { return to_python(unlocked([&] { return acc.total.matrix(); }), acc.place); },
          "R (n_features, n_features).")
      .def(
          "factor",
          [](const Accumulator& acc) { return to_python(unlocked([&] { return acc.total.factor(); }), acc.place); },
          "L with R = L L^T, of method qr.")
      .def(
          "mean", [](const Accumulator& acc) { return to_numpy(acc.total.mean()); }, "E[x], in host memory.")
      .def("state", &state, "Everything held, as NumPy arrays and numbers.")
      .def_static("from_state", &from_state, py::arg("state"), py::kw_only(), py::arg("xp") = py::none(),
                  py::arg("device") = py::none(), py::arg("stream") = 0, "From what state() gave.")
      .def_property_readonly("n_features", [](const Accumulator& acc) { return acc.total.n_features(); })
      .def_property_readonly("n_samples", [](const Accumulator& acc) { return acc.total.n_samples(); })
      .def_property_readonly("weight", [](const Accumulator& acc) { return acc.total.weight(); })
      .def_property_readonly("center", [](const Accumulator& acc) { return acc.total.params().center; })
      .def_property_readonly("method", [](const Accumulator& acc) { return method_word(acc.total.params()); })
      .def_property_readonly("precision", [](const Accumulator& acc) { return precision_word(acc.total.params()); })
      .def_property_readonly(
          "device",
          [](const Accumulator& acc) {
            return acc.place.on_host() ? py::object(py::none()) : py::object(py::int_(acc.place.device));
          },
          "Ordinal of the CUDA device it lies on, None: host memory.")
      .def_property_readonly(
          "stream", [](const Accumulator& acc) { return stream_number(acc.place.stream); }, "Its CUDA stream.");
}

}  // namespace brockett::python
