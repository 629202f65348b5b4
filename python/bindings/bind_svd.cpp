// Singular value decompositions, one matrix or a batch of them.
#include "brockett/svd.hpp"

#include "array_view.hpp"
#include "bindings.hpp"

namespace brockett::python {
namespace {

SvdParams svd_params(index_t rank, double tol, double frobenius_tol, const std::string& method, std::uint64_t seed,
                     index_t oversampling, int iterations, const std::string& signs) {
  SvdParams p;
  using Method = SvdParams::Method;
  if (method == "auto") {
    p.method = Method::automatic;
  } else if (method == "exact") {
    p.method = Method::exact;
  } else if (method == "gram") {
    p.method = Method::gram;
  } else if (method == "quick") {
    p.method = Method::quick;
  } else {
    throw InvalidArgument("method", "expected 'auto', 'exact', 'gram' or 'quick', got " + method);
  }
  if (signs != "left" && signs != "right") throw InvalidArgument("signs", "expected 'left' or 'right', got " + signs);
  p.signs = signs == "left" ? SvdParams::Signs::left : SvdParams::Signs::right;
  p.rank = rank;
  p.tol = tol;
  p.frobenius_tol = frobenius_tol;
  p.seed = seed;
  p.oversampling = oversampling;
  p.iterations = iterations;
  return p;
}

SingularValuesParams values_params(const std::string& method) {
  using Method = SingularValuesParams::Method;
  if (method == "auto") return {Method::automatic};
  if (method == "gram") return {Method::gram};
  if (method == "exact") return {Method::exact};
  throw InvalidArgument("method", "expected 'auto', 'gram' or 'exact', got " + method);
}

template <class T>
Dict to_dict(Svd<T> r, const Place& place) {
  Dict out;
  out["U"] = to_python(r.U, place);
  out["s"] = to_numpy(std::move(r.s));
  out["Vt"] = to_python(r.Vt, place);
  out["residual"] = r.residual;
  out["method"] = r.method;
  return out;
}

Dict to_dict(SingularValues r, const Place&) {
  Dict out;
  out["values"] = to_numpy(std::move(r.values));
  out["n_resolved"] = r.n_resolved;
  out["bound"] = r.bound;
  out["method"] = r.method;
  return out;
}

/// f(context, matrix) for each matrix of the batch A (batch, m, n), on the workers; a list of what to_dict makes of it.
template <class T, class F>
Dicts over_batch(const ArrayRef& A, F&& f) {
  if (A.ndim() != 3) throw InvalidArgument("A", "expected 3 axes, got " + std::to_string(A.ndim()));
  const index_t count = A.shape(0);
  if (A.strides(0) % static_cast<index_t>(sizeof(T)) != 0) throw InvalidArgument("A", "is not aligned to its elements");
  const index_t step = A.strides(0) / static_cast<index_t>(sizeof(T));
  std::vector<MatrixView<const T>> views;
  for (index_t k = 0; k < count; ++k) views.push_back(view_of_last_axes<T>(A, "A", k * step));
  using Result = decltype(f(std::declval<Context>(), views[0]));
  std::vector<Result> results(static_cast<std::size_t>(count));
  const Workplace where{{"A", &A}};
  unlocked([&] {
    // Workers may not run the interrupt check, which wants the calling thread.
    const Context quiet = where.quiet();
    parallel_for(where.context(), count, [&](index_t k) {
      results[static_cast<std::size_t>(k)] = f(quiet, views[static_cast<std::size_t>(k)]);
    });
  });
  Dicts out;
  for (auto& r : results) out.append(to_dict(std::move(r), where.place()));
  return out;
}

Dict svd_one(const ArrayRef& A, index_t rank, double tol, double frobenius_tol, const std::string& method,
             std::uint64_t seed, index_t oversampling, int iterations, const std::string& signs) {
  const SvdParams p = svd_params(rank, tol, frobenius_tol, method, seed, oversampling, iterations, signs);
  return by_dtype(A, "A", [&](auto type) {
    using T = decltype(type);
    const auto view = matrix_view<T>(A, "A");
    const Workplace where{{"A", &A}};
    return to_dict(unlocked([&] { return svd<T>(where.context(), view, p); }), where.place());
  });
}

Dicts svd_batch(const ArrayRef& A, index_t rank, double tol, double frobenius_tol, const std::string& method,
                std::uint64_t seed, index_t oversampling, int iterations, const std::string& signs) {
  const SvdParams p = svd_params(rank, tol, frobenius_tol, method, seed, oversampling, iterations, signs);
  return by_dtype(A, "A", [&](auto type) {
    using T = decltype(type);
    return over_batch<T>(A, [&](const Context& context, MatrixView<const T> view) { return svd<T>(context, view, p); });
  });
}

Dict singular_values_one(const ArrayRef& A, const std::string& method) {
  const SingularValuesParams p = values_params(method);
  return by_dtype(A, "A", [&](auto type) {
    using T = decltype(type);
    const auto view = matrix_view<T>(A, "A");
    const Workplace where{{"A", &A}};
    return to_dict(unlocked([&] { return singular_values<T>(where.context(), view, p); }), where.place());
  });
}

Dicts singular_values_batch(const ArrayRef& A, const std::string& method) {
  const SingularValuesParams p = values_params(method);
  return by_dtype(A, "A", [&](auto type) {
    using T = decltype(type);
    return over_batch<T>(
        A, [&](const Context& context, MatrixView<const T> view) { return singular_values<T>(context, view, p); });
  });
}

Dict whitened(const ArrayRef& W, const ArrayRef& R, index_t rank) {
  return by_dtype(W, "W", [&](auto type) {
    using T = decltype(type);
    const auto w = matrix_view<T>(W, "W");
    const auto moments = matrix_view<double>(R, "R");
    const Workplace where{{"W", &W}, {"R", &R}};
    auto r = unlocked([&] { return whitened_svd<T>(where.context(), w, moments, rank); });
    Dict out;
    out["U"] = to_python(r.U, where.place());
    out["s"] = to_numpy(std::move(r.s));
    out["projected"] = to_python(r.projected, where.place());
    out["error"] = r.error;
    return out;
  });
}

}  // namespace

void bind_svd(py::module_& m) {
  m.def("svd", &svd_one, py::arg("A"), py::arg("rank"), py::arg("tol"), py::arg("frobenius_tol"), py::arg("method"),
        py::arg("seed"), py::arg("oversampling"), py::arg("iterations"), py::arg("signs"),
        "U, s, Vt, residual and method of A (m, n); rank 0 keeps all.");
  m.def("svd_batch", &svd_batch, py::arg("A"), py::arg("rank"), py::arg("tol"), py::arg("frobenius_tol"),
        py::arg("method"), py::arg("seed"), py::arg("oversampling"), py::arg("iterations"), py::arg("signs"),
        "svd of each matrix of A (batch, m, n), on the workers.");
  m.def("singular_values", &singular_values_one, py::arg("A"), py::arg("method"),
        "values, n_resolved, bound and method of A (m, n).");
  m.def("singular_values_batch", &singular_values_batch, py::arg("A"), py::arg("method"),
        "singular_values of each matrix of A (batch, m, n), on the workers.");
  m.def("whitened_svd", &whitened, py::arg("W"), py::arg("R"), py::arg("rank"),
        "U, s, projected and error of W (n, m) in the norm of R (m, m); rank 0 keeps all.");
}

}  // namespace brockett::python
