// Penalties from their descriptions.
#include "array_view.hpp"
#include "bindings.hpp"

namespace brockett::python {
namespace {

Boundary boundary_of(const Dict& spec) {
  const auto word = spec["boundary"].cast<std::string>();
  if (word == "periodic") return Boundary::periodic;
  if (word == "neumann") return Boundary::neumann;
  throw InvalidArgument("boundary", "expected 'periodic' or 'neumann', got " + word);
}

}  // namespace

Penalty penalty_from(const Dict& spec) {
  const auto kind = spec["kind"].cast<std::string>();
  if (kind == "fourier") return fourier_derivative(spec["order"].cast<double>());
  if (kind == "difference") return finite_difference(spec["order"].cast<int>(), boundary_of(spec));
  if (kind == "grid") {
    std::vector<index_t> shape;
    for (const auto& length : spec["shape"]) shape.push_back(length.cast<index_t>());
    return grid(std::move(shape), spec["order"].cast<double>(), boundary_of(spec));
  }
  if (kind == "matrix") {
    const auto A = spec["A"].cast<py::array>();
    const auto view = matrix_view<double>(A, "A");
    return spec["laplacian"].cast<bool>() ? graph_laplacian(view, spec["power"].cast<int>()) : custom(view);
  }
  throw InvalidArgument("penalty", "unknown kind " + kind);
}

void bind_penalty(py::module_& m) {
  m.def(
      "penalty_eigenvalues",
      [](const Dict& spec, index_t n) {
        const Penalty p = penalty_from(spec);
        return to_numpy(unlocked([&] { return eigenvalues(interruptible(), p, n); }));
      },
      py::arg("spec"), py::arg("n"), "Eigenvalues of A, ascending.");
  m.def(
      "penalty_basis",
      [](const Dict& spec, index_t n) {
        const Penalty p = penalty_from(spec);
        return to_numpy(unlocked([&] { return basis(interruptible(), p, n); }));
      },
      py::arg("spec"), py::arg("n"), "Orthonormal eigenvectors of A in columns.");
  m.def(
      "penalty_matrix",
      [](const Dict& spec, index_t n) {
        const Penalty p = penalty_from(spec);
        return to_numpy(unlocked([&] { return matrix(interruptible(), p, n); }));
      },
      py::arg("spec"), py::arg("n"), "A (n, n).");
}

}  // namespace brockett::python
