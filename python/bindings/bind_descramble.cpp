// The descrambler, diagonalization, and the Brockett cost.
#include "brockett/descramble.hpp"

#include <optional>

#include "accumulator.hpp"
#include "array_view.hpp"
#include "bindings.hpp"

namespace brockett::python {
namespace {

/// The arrays behind the views of one call; they must outlive it.
struct Source {
  std::string kind;
  ArrayRef samples;  // preactivations: Y, inputs: X
  py::object bias;    // or None
  bool center = false;
  index_t n_samples = 0;
  ArrayRef moments;  // matrix: R, covariance: C
  const Accumulator* accumulator = nullptr;
  std::vector<std::pair<double, SampleView>> stack;
  std::vector<ArrayRef> stacked;
};

template <class T>
T value_or(const Dict& d, const char* key, T missing) {
  return d.contains(key) ? d[key].cast<T>() : missing;
}

Source source_from(const Dict& spec) {
  Source s;
  s.kind = spec["kind"].cast<std::string>();
  s.bias = spec.contains("bias") ? py::object(spec["bias"]) : py::none();
  s.center = value_or(spec, "center", false);
  s.n_samples = value_or<index_t>(spec, "n_samples", 0);
  if (s.kind == "preactivations") s.samples = spec["Y"].cast<ArrayRef>();
  if (s.kind == "inputs") s.samples = spec["X"].cast<ArrayRef>();
  if (s.kind == "matrix") s.moments = spec["R"].cast<ArrayRef>();
  if (s.kind == "covariance") s.moments = spec["C"].cast<ArrayRef>();
  if (s.kind == "accumulator") s.accumulator = &spec["acc"].cast<const Accumulator&>();
  if (spec.contains("stack")) {
    for (const auto& item : spec["stack"]) {
      const auto pair = item.cast<py::tuple>();
      s.stacked.push_back(pair[1].cast<ArrayRef>());
      s.stack.emplace_back(pair[0].cast<double>(), sample_view(s.stacked.back(), "stack"));
    }
  }
  return s;
}

/// Called with the GIL: makes the views, then does the work without it.
template <class T>
Preactivations preactivations(const Context& context, const Source& s, MatrixView<const T> W) {
  std::optional<SampleView> samples;
  if (s.kind == "preactivations") samples = sample_view(s.samples, "preactivations");
  if (s.kind == "inputs") samples = sample_view(s.samples, "inputs");
  std::optional<MatrixView<const double>> moments;
  if (s.kind == "matrix") moments = matrix_view<double>(s.moments, "autocorrelation");
  if (s.kind == "covariance") moments = matrix_view<double>(s.moments, "covariance");
  const double* bias = vector_or_null(s.bias, "bias", W.rows);
  return unlocked([&]() -> Preactivations {
    auto y = [&]() -> Preactivations {
      if (s.kind == "preactivations") return Preactivations::from_samples(context, *samples, s.center);
      if (s.kind == "inputs") return Preactivations::from_inputs<T>(context, W, *samples, bias, s.center);
      if (s.kind == "accumulator") {
        return Preactivations::from_autocorrelation<T>(context, W, s.accumulator->total, bias, s.center);
      }
      if (s.kind == "matrix") return Preactivations::from_matrix<T>(context, W, *moments, s.n_samples);
      if (s.kind == "isotropic") return Preactivations::isotropic<T>(context, W, bias);
      if (s.kind == "covariance") return Preactivations::from_covariance(context, *moments, s.n_samples);
      throw InvalidArgument("source", "unknown kind " + s.kind);
    }();
    for (const auto& [alpha, view] : s.stack) y.add(alpha, view);
    return y;
  });
}

DescrambleParams descramble_params(const Dict& penalty, const std::string& group, const std::string& gauge,
                                   index_t rank, std::uint64_t seed, int starts, int max_sweeps, bool verify) {
  DescrambleParams p;
  using Group = DescrambleParams::Group;
  using Gauge = DescrambleParams::Gauge;
  p.penalty = penalty_from(penalty);
  if (group == "orthogonal") {
    p.group = Group::orthogonal;
  } else if (group == "special_orthogonal") {
    p.group = Group::special_orthogonal;
  } else if (group == "permutation") {
    p.group = Group::permutation;
  } else {
    throw InvalidArgument("group", "expected 'orthogonal', 'special_orthogonal' or 'permutation', got " + group);
  }
  if (gauge == "identity") {
    p.gauge = Gauge::identity;
  } else if (gauge == "canonical") {
    p.gauge = Gauge::canonical;
  } else if (gauge == "given") {
    p.gauge = Gauge::given;
  } else {
    throw InvalidArgument("gauge", "expected 'identity', 'canonical' or 'given', got " + gauge);
  }
  p.rank = rank;
  p.seed = seed;
  p.starts = starts;
  p.max_sweeps = max_sweeps;
  p.verify = verify;
  return p;
}

template <class T>
Dict to_dict(Descrambling<T> r, const Place& place) {
  Dict out;
  out["P"] = to_python(r.P, place);
  out["weights"] = r.weights.empty() ? py::object(py::none()) : to_python(r.weights, place);
  out["permutation"] = r.permutation.empty() ? py::object(py::none()) : py::object(to_numpy(std::move(r.permutation)));
  out["cost"] = r.cost;
  out["optimum"] = r.optimum;
  out["identity_cost"] = r.identity_cost;
  out["bound"] = r.bound;
  out["rank"] = r.rank;
  out["sigma"] = to_numpy(std::move(r.sigma));
  out["gauge_conditioning"] = r.gauge_conditioning;
  out["blocks"] = to_numpy(std::move(r.blocks));
  out["block_error"] = r.block_error.empty() ? py::object(py::none()) : py::object(to_numpy(std::move(r.block_error)));
  out["error_model"] = r.error_model;
  return out;
}

template <class T>
Dict descramble_as(const py::object& W, const Dict& source, DescrambleParams params, const py::object& P0) {
  const ArrayRef weights(W), given(P0);
  MatrixView<const T> w;
  if (weights.given()) w = matrix_view<T>(weights, "W");
  if (given.given()) params.P0 = matrix_view<double>(given, "gauge");
  const Source s = source_from(source);
  // Its matrix is made on the accumulator's own stream, so that is where the rest is done.
  Workplace where = s.accumulator != nullptr
                        ? Workplace("autocorrelation", s.accumulator->place, {{"W", &weights}, {"gauge", &given}})
                        : Workplace({{"W", &weights},
                                     {s.kind.c_str(), &s.samples},
                                     {s.kind == "matrix" ? "autocorrelation" : "covariance", &s.moments},
                                     {"gauge", &given}});
  for (const auto& stacked : s.stacked) where.add("stack", stacked.place());
  const Context context = s.accumulator != nullptr ? s.accumulator->total.context() : where.context();
  const Preactivations y = preactivations<T>(context, s, w);
  return to_dict(unlocked([&] { return descramble<T>(context, y, w, params); }), where.place());
}

Dict descramble_any(const py::object& W, const Dict& source, const Dict& penalty, const std::string& group,
                    const std::string& gauge, const py::object& P0, index_t rank, std::uint64_t seed, int starts,
                    int max_sweeps, const std::string& dtype, bool verify) {
  DescrambleParams params = descramble_params(penalty, group, gauge, rank, seed, starts, max_sweeps, verify);
  if (dtype == "float32") return descramble_as<float>(W, source, std::move(params), P0);
  if (dtype == "float64") return descramble_as<double>(W, source, std::move(params), P0);
  throw InvalidArgument("dtype", "expected 'float32' or 'float64', got " + dtype);
}

Dict diagonalize_any(const ArrayRef& W, const std::string& criterion, const std::string& group, int max_iterations,
                     double tol) {
  DiagonalizeParams p;
  if (criterion != "sum" && criterion != "square") {
    throw InvalidArgument("criterion", "expected 'sum' or 'square', got " + criterion);
  }
  if (group != "orthogonal" && group != "special_orthogonal") {
    throw InvalidArgument("group", "expected 'orthogonal' or 'special_orthogonal', got " + group);
  }
  p.criterion = criterion == "sum" ? DiagonalizeParams::Criterion::sum : DiagonalizeParams::Criterion::square;
  p.group = group == "orthogonal" ? DiagonalizeParams::Group::orthogonal : DiagonalizeParams::Group::special_orthogonal;
  p.max_iterations = max_iterations;
  p.tol = tol;
  return by_dtype(W, "W", [&](auto type) {
    using T = decltype(type);
    const auto view = matrix_view<T>(W, "W");
    const Workplace where{{"W", &W}};
    auto r = unlocked([&] { return diagonalize<T>(where.context(), view, p); });
    Dict out;
    out["P"] = to_python(r.P, where.place());
    out["weights"] = to_python(r.weights, where.place());
    out["value"] = r.value;
    out["bound"] = r.bound;
    out["iterations"] = r.iterations;
    out["converged"] = r.converged;
    return out;
  });
}

Dict cost(const ArrayRef& P, const ArrayRef& C, const Dict& penalty) {
  const Penalty a = penalty_from(penalty);
  const auto p = matrix_view<double>(P, "P");
  const auto c = matrix_view<double>(C, "C");
  const Workplace where{{"P", &P}, {"C", &C}};
  const BrockettCost r = unlocked([&] { return brockett_cost(where.context(), p, c, a); });
  Dict out;
  out["value"] = r.value;
  out["gradient"] = to_python(r.gradient, where.place());
  return out;
}

}  // namespace

void bind_descramble(py::module_& m) {
  m.def("descramble", &descramble_any, py::arg("W"), py::arg("source"), py::arg("penalty"), py::arg("group"),
        py::arg("gauge"), py::arg("P0"), py::arg("rank"), py::arg("seed"), py::arg("starts"), py::arg("max_sweeps"),
        py::arg("dtype"), py::arg("verify") = true,
        "P, weights, costs and spectra; source and penalty are descriptions, W may be None.");
  m.def("diagonalize", &diagonalize_any, py::arg("W"), py::arg("criterion"), py::arg("group"),
        py::arg("max_iterations"), py::arg("tol"), "P, weights, value, bound, iterations and converged.");
  m.def("brockett_cost", &cost, py::arg("P"), py::arg("C"), py::arg("penalty"), "value and gradient.");
}

}  // namespace brockett::python
