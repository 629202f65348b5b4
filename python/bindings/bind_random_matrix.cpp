// Random-matrix statistics of spectra: 1-D float64 arrays in host memory.
#include "brockett/random_matrix.hpp"

#include "array_view.hpp"
#include "bindings.hpp"

namespace brockett::python {
namespace {

std::span<const double> numbers(const py::array& a, const char* name) {
  if (!holds<double>(a)) throw InvalidArgument(name, "unexpected dtype " + dtype_name(a));
  if (a.ndim() != 1) throw InvalidArgument(name, "expected 1 axis, got " + std::to_string(a.ndim()));
  if (a.shape(0) > 1 && a.strides(0) != sizeof(double)) throw InvalidArgument(name, "must be contiguous");
  return {static_cast<const double*>(a.data()), static_cast<std::size_t>(a.shape(0))};
}

template <class F>
py::array each(const py::array& x, const char* name, F&& f) {
  const auto in = numbers(x, name);
  return to_numpy(unlocked([&] {
    std::vector<double> out;
    out.reserve(in.size());
    for (const double value : in) out.push_back(f(value));
    return out;
  }));
}

py::array marchenko_pastur(const std::string& what, const py::array& x, double Q, double variance) {
  const MarchenkoPastur law(Q, variance);
  if (what == "pdf") return each(x, "x", [&](double v) { return law.pdf(v); });
  if (what == "cdf") return each(x, "x", [&](double v) { return law.cdf(v); });
  if (what == "quantile") return each(x, "p", [&](double p) { return law.quantile(p); });
  throw InvalidArgument("what", "expected 'pdf', 'cdf' or 'quantile', got " + what);
}

Dict bulk(const py::array& eigenvalues, double Q, double significance, index_t pooled) {
  const auto values = numbers(eigenvalues, "eigenvalues");
  BulkFit fit = unlocked([&] { return fit_bulk(values, Q, {significance, pooled}); });
  Dict out;
  out["variance"] = fit.variance;
  out["lower"] = fit.lower;
  out["upper"] = fit.upper;
  out["cut"] = fit.cut;
  out["n_zero"] = fit.n_zero;
  out["spikes"] = to_numpy(std::move(fit.spikes));
  out["strengths"] = to_numpy(std::move(fit.strengths));
  out["overlaps_larger"] = to_numpy(std::move(fit.overlaps_larger));
  out["overlaps_smaller"] = to_numpy(std::move(fit.overlaps_smaller));
  out["distance"] = fit.distance;
  out["soft_rank"] = fit.soft_rank;
  out["declined"] = fit.declined;
  return out;
}

PowerLawParams params_of(double xmin, double xmin_low, double xmin_high, double xmax, double alpha_low,
                         double alpha_high, index_t min_tail, bool scan) {
  return {xmin, xmin_low, xmin_high, xmax, alpha_low, alpha_high, min_tail, scan};
}

PowerLawFit fit_of(double alpha, double xmin) {
  PowerLawFit fit;
  fit.found = true;
  fit.alpha = alpha;
  fit.xmin = xmin;
  return fit;
}

Dict power_law(const py::array& values, double xmin, double xmin_low, double xmin_high, double xmax, double alpha_low,
               double alpha_high, index_t min_tail, bool scan) {
  const auto in = numbers(values, "values");
  const PowerLawParams p = params_of(xmin, xmin_low, xmin_high, xmax, alpha_low, alpha_high, min_tail, scan);
  PowerLawFit fit = unlocked([&] { return fit_power_law(interruptible(), in, p); });
  Dict out;
  out["found"] = fit.found;
  out["alpha"] = fit.alpha;
  out["xmin"] = fit.xmin;
  out["distance"] = fit.distance;
  out["sigma"] = fit.sigma;
  out["n_tail"] = fit.n_tail;
  out["xmins"] = to_numpy(std::move(fit.xmins));
  out["alphas"] = to_numpy(std::move(fit.alphas));
  out["distances"] = to_numpy(std::move(fit.distances));
  return out;
}

py::array bootstrap(const py::array& values, double alpha, double fitted, double xmin, double xmin_low,
                    double xmin_high, double xmax, double alpha_low, double alpha_high, index_t min_tail,
                    index_t replicas, std::uint64_t seed) {
  const auto in = numbers(values, "values");
  const PowerLawParams p = params_of(xmin, xmin_low, xmin_high, xmax, alpha_low, alpha_high, min_tail, false);
  return to_numpy(
      unlocked([&] { return bootstrap_power_law(interruptible(), in, fit_of(alpha, fitted), p, replicas, seed); }));
}

Dict compare(const py::array& values, double alpha, double xmin, double xmax, const std::string& law) {
  const auto in = numbers(values, "values");
  TailLaw other;
  if (law == "truncated_power_law") {
    other = TailLaw::truncated_power_law;
  } else if (law == "lognormal") {
    other = TailLaw::lognormal;
  } else if (law == "exponential") {
    other = TailLaw::exponential;
  } else {
    throw InvalidArgument("law", "expected 'truncated_power_law', 'lognormal' or 'exponential', got " + law);
  }
  const TailComparison c = unlocked([&] { return compare_power_law(in, fit_of(alpha, xmin), other, xmax); });
  Dict out;
  out["ratio"] = c.ratio;
  out["normalized"] = c.normalized;
  out["p_value"] = c.p_value;
  out["first"] = c.first;
  out["second"] = c.second;
  out["degenerate"] = c.degenerate;
  return out;
}

}  // namespace

void bind_random_matrix(py::module_& m) {
  m.def("marchenko_pastur", &marchenko_pastur, py::arg("what"), py::arg("x"), py::arg("Q"), py::arg("variance"),
        "pdf or cdf at x, or quantile at the probabilities x, of the Marchenko-Pastur law.");
  m.def(
      "tracy_widom_edge",
      [](double larger, double smaller, double variance) {
        const TracyWidomEdge e = tracy_widom_edge(larger, smaller, variance);
        return std::pair<double, double>(e.location, e.scale);
      },
      py::arg("larger"), py::arg("smaller"), py::arg("variance"), "Location and scale of the largest eigenvalue.");
  m.def(
      "tracy_widom_cdf", [](const py::array& x) { return each(x, "x", tracy_widom_cdf); }, py::arg("x"),
      "Tracy and Widom's F_1 at x.");
  m.def("tracy_widom_quantile", &tracy_widom_quantile, py::arg("p"), "The x with F_1(x) = p.");
  m.def("fit_bulk", &bulk, py::arg("eigenvalues"), py::arg("Q"), py::arg("significance"), py::arg("pooled"),
        "Marchenko-Pastur bulk and spikes of eigenvalues.");
  m.def("fit_power_law", &power_law, py::arg("values"), py::arg("xmin"), py::arg("xmin_low"), py::arg("xmin_high"),
        py::arg("xmax"), py::arg("alpha_low"), py::arg("alpha_high"), py::arg("min_tail"), py::arg("scan"),
        "Power-law tail of positive values; xmin 0 takes the best.");
  m.def("bootstrap_power_law", &bootstrap, py::arg("values"), py::arg("alpha"), py::arg("fitted_xmin"), py::arg("xmin"),
        py::arg("xmin_low"), py::arg("xmin_high"), py::arg("xmax"), py::arg("alpha_low"), py::arg("alpha_high"),
        py::arg("min_tail"), py::arg("replicas"), py::arg("seed"),
        "Distances of synthetic data sets, each fitted as the data were.");
  m.def("compare_power_law", &compare, py::arg("values"), py::arg("alpha"), py::arg("xmin"), py::arg("xmax"),
        py::arg("law"), "Likelihood ratio of a power-law tail and another law.");
}

}  // namespace brockett::python
