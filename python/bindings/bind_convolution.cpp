// Spectra of convolutions.
#include "brockett/convolution.hpp"

#include "array_view.hpp"
#include "bindings.hpp"

namespace brockett::python {
namespace {

using Pair = std::pair<index_t, index_t>;

Dict spectrum(const ArrayRef& K, Pair kernel, Pair grid, Pair stride, index_t groups, index_t top) {
  const OperatorParams params{
      {kernel.first, kernel.second}, {grid.first, grid.second}, {stride.first, stride.second}, groups, top};
  return by_dtype(K, "K", [&]<class T>(T) {
    const auto k = matrix_view<T>(K, "K");
    const Workplace where{{"K", &K}};
    OperatorSpectrum s = unlocked([&] { return operator_singular_values<T>(where.context(), k, params); });
    Dict out;
    out["values"] = to_numpy(std::move(s.values));
    out["n_transfer"] = s.n_transfer;
    out["n_solved"] = s.n_solved;
    return out;
  });
}

py::object gram(const ArrayRef& W) {
  return by_dtype(W, "K", [&]<class T>(T) {
    const auto w = matrix_view<T>(W, "K");
    const Workplace where{{"K", &W}};
    return to_python(unlocked([&] { return channel_gram<T>(where.context(), w); }), where.place());
  });
}

}  // namespace

void bind_convolution(py::module_& m) {
  m.def("operator_singular_values", &spectrum, py::arg("K"), py::arg("kernel"), py::arg("grid"), py::arg("stride"),
        py::arg("groups"), py::arg("top"), "Singular values of a periodic convolution, K unfolded.");
  m.def("channel_gram", &gram, py::arg("W"), "W W^T in float64.");
}

}  // namespace brockett::python
