// Singular value decompositions, one matrix or a batch of them.
#include "brockett/svd.hpp"

#include "array_view.hpp"
#include "bindings.hpp"

namespace brockett::python {
namespace {

SvdParams svd_params(index_t rank, double tol, double frobenius_tol, const std::string& method, std::uint64_t seed,
                     index_t oversampling, int iterations, const std::string& signs, index_t max_columns) {
  SvdParams p;
  using Method = SvdParams::Method;
  if (method == "auto") {
    p.method = Method::automatic;
  } else if (method == "exact") {
    p.method = Method::exact;
  } else if (method == "gram") {
    p.method = Method::gram;
  } else if (method == "krylov") {
    p.method = Method::krylov;
  } else if (method == "quick") {
    p.method = Method::quick;
  } else {
    throw InvalidArgument("method", "expected 'auto', 'exact', 'gram', 'krylov' or 'quick', got " + method);
  }
  if (signs != "left" && signs != "right") throw InvalidArgument("signs", "expected 'left' or 'right', got " + signs);
  p.signs = signs == "left" ? SvdParams::Signs::left : SvdParams::Signs::right;
  p.rank = rank;
  p.tol = tol;
  p.frobenius_tol = frobenius_tol;
  p.seed = seed;
  p.oversampling = oversampling;
  p.iterations = iterations;
  p.max_columns = max_columns;
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
  out["columns"] = r.columns;
  return out;
}

Dict to_dict(SingularValues r) {
  Dict out;
  out["values"] = to_numpy(std::move(r.values));
  out["n_resolved"] = r.n_resolved;
  out["bound"] = r.bound;
  out["method"] = r.method;
  return out;
}

/// The matrices of the batch A (batch, m, n).
template <class T>
std::vector<MatrixView<const T>> views_of_batch(const ArrayRef& A) {
  if (A.ndim() != 3) throw InvalidArgument("A", "expected 3 axes, got " + std::to_string(A.ndim()));
  if (A.strides(0) % static_cast<index_t>(sizeof(T)) != 0) throw InvalidArgument("A", "is not aligned to its elements");
  const index_t step = A.strides(0) / static_cast<index_t>(sizeof(T));
  std::vector<MatrixView<const T>> views;
  for (index_t k = 0; k < A.shape(0); ++k) views.push_back(view_of_last_axes<T>(A, "A", k * step));
  return views;
}

/// What multiplies a block.
using Blocks = py::typing::Callable<py::object(py::object)>;

/// A linear operator of Python: two functions of blocks (n, b), in the dtype of T.
template <class T>
class PythonOperator final : public Operator<T> {
 public:
  PythonOperator(index_t rows, index_t cols, const Blocks& matmat, const Blocks& rmatmat)
      : rows_(rows), cols_(cols), matmat_(matmat), rmatmat_(rmatmat) {}
  index_t rows() const override { return rows_; }
  index_t cols() const override { return cols_; }
  void apply(const Context&, MatrixView<const T> X, MatrixView<T> Y) const override { call(matmat_, "matmat", X, Y); }
  void apply_transposed(const Context&, MatrixView<const T> Y, MatrixView<T> X) const override {
    call(rmatmat_, "rmatmat", Y, X);
  }

 private:
  using Block = py::array_t<T, py::array::f_style | py::array::forcecast>;

  static void call(const Blocks& f, const char* name, MatrixView<const T> X, MatrixView<T> Y) {
    const py::gil_scoped_acquire gil;
    // a copy, which the function may keep or change
    Block block({X.rows, X.cols});
    for (index_t j = 0; j < X.cols; ++j) std::copy_n(X.data + j * X.ld, X.rows, block.mutable_data(0, j));
    const py::object answer = f(block);
    // The cast to T would drop an imaginary part.
    const auto any = py::array::ensure(answer);
    if (any && any.dtype().kind() == 'c') throw InvalidArgument("A", std::string(name) + " returned complex numbers");
    const auto image = Block::ensure(answer);
    if (!image) {
      PyErr_Clear();
      throw InvalidArgument("A", std::string(name) + " did not return an array of numbers");
    }
    if (image.ndim() != 2 || image.shape(0) != Y.rows || image.shape(1) != Y.cols) {
      throw InvalidArgument("A", std::string(name) + " of a block of shape " +
                                     std::string(py::str(block.attr("shape"))) + " must return shape (" +
                                     std::to_string(Y.rows) + ", " + std::to_string(Y.cols) + "), returned " +
                                     std::string(py::str(image.attr("shape"))));
    }
    for (index_t j = 0; j < Y.cols; ++j) std::copy_n(image.data(0, j), Y.rows, Y.data + j * Y.ld);
  }

  index_t rows_, cols_;
  const Blocks &matmat_, &rmatmat_;
};

Dict svd_one(const ArrayRef& A, index_t rank, double tol, double frobenius_tol, const std::string& method,
             std::uint64_t seed, index_t oversampling, int iterations, const std::string& signs, index_t max_columns) {
  const SvdParams p = svd_params(rank, tol, frobenius_tol, method, seed, oversampling, iterations, signs, max_columns);
  return by_dtype(A, "A", [&](auto type) {
    using T = decltype(type);
    const auto view = matrix_view<T>(A, "A");
    const Workplace where{{"A", &A}};
    return to_dict(unlocked([&] { return svd<T>(where.context(), view, p); }), where.place());
  });
}

Dicts svd_batch(const ArrayRef& A, index_t rank, double tol, double frobenius_tol, const std::string& method,
                std::uint64_t seed, index_t oversampling, int iterations, const std::string& signs,
                index_t max_columns) {
  const SvdParams p = svd_params(rank, tol, frobenius_tol, method, seed, oversampling, iterations, signs, max_columns);
  return by_dtype(A, "A", [&](auto type) {
    using T = decltype(type);
    const auto views = views_of_batch<T>(A);
    std::vector<Svd<T>> results(views.size());
    const Workplace where{{"A", &A}};
    unlocked([&] {
      // Workers may not run the interrupt check, which wants the calling thread.
      const Context quiet = where.quiet();
      parallel_for(where.context(), static_cast<index_t>(views.size()), [&](index_t k) {
        const auto i = static_cast<std::size_t>(k);
        results[i] = svd<T>(quiet, views[i], p);
      });
    });
    Dicts out;
    for (auto& r : results) out.append(to_dict(std::move(r), where.place()));
    return out;
  });
}

Dict svd_operator(index_t rows, index_t cols, const std::string& dtype, const Blocks& matmat, const Blocks& rmatmat,
                  index_t rank, double tol, double frobenius_tol, const std::string& method, std::uint64_t seed,
                  index_t oversampling, int iterations, const std::string& signs, index_t max_columns) {
  const SvdParams p = svd_params(rank, tol, frobenius_tol, method, seed, oversampling, iterations, signs, max_columns);
  const auto run = [&](auto type) {
    using T = decltype(type);
    const PythonOperator<T> A(rows, cols, matmat, rmatmat);
    return to_dict(unlocked([&] { return svd<T>(interruptible(), A, p); }), Place{});
  };
  if (dtype == "float32") return run(float{});
  if (dtype == "float64") return run(double{});
  throw InvalidArgument("dtype", "expected float32 or float64, got " + dtype);
}

Dict svd_product(const py::typing::List<ArrayRef>& factors, index_t rank, double tol, double frobenius_tol,
                 const std::string& method, std::uint64_t seed, index_t oversampling, int iterations,
                 const std::string& signs, index_t max_columns) {
  const SvdParams p = svd_params(rank, tol, frobenius_tol, method, seed, oversampling, iterations, signs, max_columns);
  if (factors.empty()) throw InvalidArgument("factors", "must be at least one matrix");
  std::vector<ArrayRef> kept;
  for (const auto& factor : factors) kept.push_back(py::cast<ArrayRef>(factor));
  return by_dtype(kept[0], "factors", [&](auto type) {
    using T = decltype(type);
    Workplace where{{"factors", &kept[0]}};
    std::vector<MatrixView<const T>> views;
    for (const ArrayRef& factor : kept) {
      where.add("factors", factor.place());
      views.push_back(matrix_view<T>(factor, "factors"));
    }
    auto r = unlocked([&] {
      const Product<T> A(std::move(views));
      return svd<T>(where.context(), A, p);
    });
    return to_dict(std::move(r), where.place());
  });
}

Dict singular_values_one(const ArrayRef& A, const std::string& method) {
  const SingularValuesParams p = values_params(method);
  return by_dtype(A, "A", [&](auto type) {
    using T = decltype(type);
    const auto view = matrix_view<T>(A, "A");
    const Workplace where{{"A", &A}};
    return to_dict(unlocked([&] { return singular_values<T>(where.context(), view, p); }));
  });
}

Dicts singular_values_of_batch(const ArrayRef& A, const std::string& method) {
  const SingularValuesParams p = values_params(method);
  return by_dtype(A, "A", [&](auto type) {
    using T = decltype(type);
    const auto views = views_of_batch<T>(A);
    const Workplace where{{"A", &A}};
    auto results = unlocked([&] { return singular_values_batch<T>(where.context(), views, p); });
    Dicts out;
    for (auto& r : results) out.append(to_dict(std::move(r)));
    return out;
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
        py::arg("seed"), py::arg("oversampling"), py::arg("iterations"), py::arg("signs"), py::arg("max_columns") = 0,
        "U, s, Vt, residual, method and columns of A (m, n); rank 0 keeps all.");
  m.def("svd_batch", &svd_batch, py::arg("A"), py::arg("rank"), py::arg("tol"), py::arg("frobenius_tol"),
        py::arg("method"), py::arg("seed"), py::arg("oversampling"), py::arg("iterations"), py::arg("signs"),
        py::arg("max_columns") = 0, "svd of each matrix of A (batch, m, n), on the workers.");
  m.def("svd_operator", &svd_operator, py::arg("rows"), py::arg("cols"), py::arg("dtype"), py::arg("matmat"),
        py::arg("rmatmat"), py::arg("rank"), py::arg("tol"), py::arg("frobenius_tol"), py::arg("method"),
        py::arg("seed"), py::arg("oversampling"), py::arg("iterations"), py::arg("signs"), py::arg("max_columns") = 0,
        "svd of a linear operator, given its products with blocks (cols, b) and those of its transpose.");
  m.def("svd_product", &svd_product, py::arg("factors"), py::arg("rank"), py::arg("tol"), py::arg("frobenius_tol"),
        py::arg("method"), py::arg("seed"), py::arg("oversampling"), py::arg("iterations"), py::arg("signs"),
        py::arg("max_columns") = 0, "svd of a product of matrices, which is not formed.");
  m.def("singular_values", &singular_values_one, py::arg("A"), py::arg("method"),
        "values, n_resolved, bound and method of A (m, n).");
  m.def("singular_values_batch", &singular_values_of_batch, py::arg("A"), py::arg("method"),
        "singular_values of each matrix of A (batch, m, n), on the workers.");
  m.def("whitened_svd", &whitened, py::arg("W"), py::arg("R"), py::arg("rank"),
        "U, s, projected and error of W (n, m) in the norm of R (m, m); rank 0 keeps all.");
}

}  // namespace brockett::python
