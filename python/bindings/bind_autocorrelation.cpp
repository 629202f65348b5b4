// The accumulator of second moments.
#include "array_view.hpp"
#include "bindings.hpp"

namespace brockett::python {
namespace {

AutocorrelationParams params_from(bool center, const std::string& method, const std::string& precision) {
  AutocorrelationParams p;
  p.center = center;
  if (method != "gram" && method != "qr") throw InvalidArgument("method", "expected 'gram' or 'qr', got " + method);
  if (precision != "double" && precision != "single") {
    throw InvalidArgument("precision", "expected 'double' or 'single', got " + precision);
  }
  p.method = method == "qr" ? AutocorrelationParams::Method::qr : AutocorrelationParams::Method::gram;
  p.precision =
      precision == "single" ? AutocorrelationParams::Precision::single : AutocorrelationParams::Precision::full;
  return p;
}

const char* method_word(const AutocorrelationParams& p) {
  return p.method == AutocorrelationParams::Method::qr ? "qr" : "gram";
}
const char* precision_word(const AutocorrelationParams& p) {
  return p.precision == AutocorrelationParams::Precision::single ? "single" : "double";
}

void update(Autocorrelation& acc, const py::array& X, const py::object& weights, bool bfloat16) {
  const SampleView x = sample_view(X, "X", bfloat16);
  const double* w = vector_or_null(weights, "weights", x.n_samples);
  unlocked([&] { acc.update(x, w); });
}

Dict state(const Autocorrelation& acc) {
  AutocorrelationState s = unlocked([&] { return acc.state(); });
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

std::vector<double> host_numbers(const Dict& state, const char* name, index_t count) {
  using Packed = py::array_t<double, py::array::c_style | py::array::forcecast>;
  const auto a = py::cast<Packed>(state[name]);
  if (a.size() != count) throw InvalidArgument(name, "expected " + std::to_string(count) + " numbers");
  return std::vector<double>(a.data(), a.data() + a.size());
}

Autocorrelation from_state(const Dict& state, const py::object&, const py::object&) {
  AutocorrelationState s;
  s.params = params_from(state["center"].cast<bool>(), state["method"].cast<std::string>(),
                         state["precision"].cast<std::string>());
  s.n_features = state["n_features"].cast<index_t>();
  s.n_samples = state["n_samples"].cast<index_t>();
  s.weight = state["weight"].cast<double>();
  if (s.n_features < 1) throw InvalidArgument("n_features", "expected 1 or more");
  s.mean = host_numbers(state, "mean", s.n_features);
  s.moment = host_numbers(state, "moment", s.n_features * s.n_features);
  return unlocked([&] { return Autocorrelation(interruptible(), s); });
}

}  // namespace

void bind_autocorrelation(py::module_& m) {
  // The engines share one signature; xp and device mean nothing to this one.
  py::class_<Autocorrelation>(m, "Accumulator", "Streaming second moments. Not for use from two threads at once.")
      .def(py::init([](index_t n_features, bool center, const std::string& method, const std::string& precision,
                       const py::object&, const py::object&) {
             const AutocorrelationParams params = params_from(center, method, precision);
             return unlocked([&] { return Autocorrelation(interruptible(), n_features, params); });
           }),
           py::arg("n_features"), py::arg("center"), py::arg("method"), py::arg("precision"), py::kw_only(),
           py::arg("xp") = py::none(), py::arg("device") = py::none())
      .def("update", &update, py::arg("X"), py::arg("weights") = py::none(), py::arg("bfloat16") = false,
           "Add samples (n_samples, n_features), rows contiguous; bfloat16 comes as uint16.")
      .def(
          "merge", [](Autocorrelation& acc, const Autocorrelation& other) { unlocked([&] { acc.merge(other); }); },
          py::arg("other"), "Add what another one of the same parameters holds.")
      .def(
          "matrix", [](const Autocorrelation& acc) { return to_numpy(unlocked([&] { return acc.matrix(); })); },
          "R (n_features, n_features).")
      .def(
          "factor", [](const Autocorrelation& acc) { return to_numpy(unlocked([&] { return acc.factor(); })); },
          "L with R = L L^T, of method qr.")
      .def(
          "mean", [](const Autocorrelation& acc) { return to_numpy(acc.mean()); }, "E[x].")
      .def("state", &state, "Everything held, as NumPy arrays and numbers.")
      .def_static("from_state", &from_state, py::arg("state"), py::kw_only(), py::arg("xp") = py::none(),
                  py::arg("device") = py::none(), "From what state() gave.")
      .def_property_readonly("n_features", &Autocorrelation::n_features)
      .def_property_readonly("n_samples", &Autocorrelation::n_samples)
      .def_property_readonly("weight", &Autocorrelation::weight)
      .def_property_readonly("center", [](const Autocorrelation& acc) { return acc.params().center; })
      .def_property_readonly("method", [](const Autocorrelation& acc) { return method_word(acc.params()); })
      .def_property_readonly("precision", [](const Autocorrelation& acc) { return precision_word(acc.params()); });
}

}  // namespace brockett::python
