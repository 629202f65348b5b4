// Spectra of convolutions.
#include "brockett/convolution.hpp"

#include "array_view.hpp"
#include "bindings.hpp"

namespace brockett::python {
namespace {

using Pair = std::pair<index_t, index_t>;

Dict spectrum(const py::array& K, Pair kernel, Pair grid, Pair stride, index_t groups, index_t top) {
  const OperatorParams params{
      {kernel.first, kernel.second}, {grid.first, grid.second}, {stride.first, stride.second}, groups, top};
  return by_dtype(K, "K", [&]<class T>(T) {
    const auto k = matrix_view<T>(K, "K");
    OperatorSpectrum s = unlocked([&] { return operator_singular_values<T>(interruptible(), k, params); });
    Dict out;
    out["values"] = to_numpy(std::move(s.values));
    out["n_transfer"] = s.n_transfer;
    out["n_solved"] = s.n_solved;
    return out;
  });
}

py::array gram(const py::array& W) {
  return by_dtype(W, "K", [&]<class T>(T) {
    const auto w = matrix_view<T>(W, "K");
    return to_numpy(unlocked([&] { return channel_gram<T>(interruptible(), w); }));
  });
}

}  // namespace

void bind_convolution(py::module_& m) {
  m.def("operator_singular_values", &spectrum, py::arg("K"), py::arg("kernel"), py::arg("grid"), py::arg("stride"),
        py::arg("groups"), py::arg("top"), "Singular values of a periodic convolution, K unfolded.");
  m.def("channel_gram", &gram, py::arg("W"), "W W^T in float64.");
}

}  // namespace brockett::python
