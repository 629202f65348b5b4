// Eigenvalues and eigenvectors of symmetric matrices.
#include "array_view.hpp"
#include "bindings.hpp"
#include "brockett/eigen.hpp"

namespace brockett::python {
namespace {

Dict eigen_symmetric_one(const ArrayRef& A, bool lower, bool vectors) {
  return by_dtype(A, "A", [&](auto type) {
    using T = decltype(type);
    const auto view = matrix_view<T>(A, "A");
    const Workplace where{{"A", &A}};
    auto r = unlocked(
        [&] { return eigen_symmetric<T>(where.context(), view, lower ? Triangle::lower : Triangle::upper, vectors); });
    Dict out;
    out["values"] = to_numpy(std::move(r.values));
    if (vectors) out["vectors"] = to_python(r.vectors, where.place());
    return out;
  });
}

}  // namespace

void bind_eigen(py::module_& m) {
  m.def("eigen_symmetric", &eigen_symmetric_one, py::arg("A"), py::arg("lower"), py::arg("vectors"),
        "values (ascending) and, where asked for, vectors (in columns) of the symmetric matrix of one triangle of A.");
}

}  // namespace brockett::python
