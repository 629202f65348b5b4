// The border between NumPy and libbrockett: views in, owners out, nothing copied.
//
// A C-order NumPy array of samples (n_samples, n_features) is, byte for byte, the column-major matrix n_features x
// n_samples with ld = n_features: the Y of the descrambler, samples in columns. So row-major views pass as they are,
// and a Fortran-order array is the same view with the other Order. What no view describes is refused: the facade lays
// it out anew before, where a reader can see the copy.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/typing.h>

#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "brockett/autocorrelation.hpp"
#include "brockett/context.hpp"
#include "brockett/error.hpp"
#include "brockett/matrix_view.hpp"

namespace brockett::python {

namespace py = pybind11;

/// Named values: descriptions in, results out.
using Dict = py::typing::Dict<py::str, py::object>;
using Dicts = py::typing::List<Dict>;

template <class T>
bool holds(const py::array& a) {
  return py::isinstance<py::array_t<T>>(a);  // native byte order included
}

inline std::string dtype_name(const py::array& a) { return py::str(a.dtype()).cast<std::string>(); }

/// Strides of the last two axes in elements, or an error: `size` bytes each, and aligned.
inline std::pair<index_t, index_t> steps(const py::array& a, const char* name, py::ssize_t size) {
  const auto d = a.ndim();
  const auto row = a.strides(d - 2), col = a.strides(d - 1);
  if (row % size != 0 || col % size != 0 || reinterpret_cast<std::uintptr_t>(a.data()) % size != 0) {
    throw InvalidArgument(name, "is not aligned to its elements");
  }
  return {row / size, col / size};
}

/// The matrix in the last two axes of `a`, shifted by `offset` elements.
template <class T>
MatrixView<const T> view_of_last_axes(const py::array& a, const char* name, index_t offset = 0) {
  if (!holds<T>(a)) throw InvalidArgument(name, "unexpected dtype " + dtype_name(a));
  const auto [row, col] = steps(a, name, sizeof(T));
  const index_t m = a.shape(a.ndim() - 2), n = a.shape(a.ndim() - 1);
  const T* data = static_cast<const T*>(a.data()) + offset;
  // A stride along an axis of length one says nothing.
  if ((n <= 1 || col == 1) && (m <= 1 || row >= n)) return {data, m, n, m <= 1 ? n : row, Order::row_major};
  if ((m <= 1 || row == 1) && (n <= 1 || col >= m)) return {data, m, n, n <= 1 ? m : col, Order::column_major};
  throw InvalidArgument(name, "strides describe neither a row- nor a column-major matrix");
}

template <class T>
MatrixView<const T> matrix_view(const py::array& a, const char* name) {
  if (a.ndim() != 2) throw InvalidArgument(name, "expected 2 axes, got " + std::to_string(a.ndim()));
  return view_of_last_axes<T>(a, name);
}

/// Samples (n_samples, n_features), rows contiguous; bfloat16 comes as uint16 with the flag set.
inline SampleView sample_view(const py::array& a, const char* name, bool bfloat16 = false) {
  if (a.ndim() != 2) throw InvalidArgument(name, "expected 2 axes, got " + std::to_string(a.ndim()));
  DType type;
  if (bfloat16 && holds<std::uint16_t>(a)) {
    type = DType::bfloat16;
  } else if (!bfloat16 && holds<float>(a)) {
    type = DType::float32;
  } else if (!bfloat16 && holds<double>(a)) {
    type = DType::float64;
  } else if (!bfloat16 && a.dtype().kind() == 'f' && a.itemsize() == 2) {
    type = DType::float16;
  } else {
    throw InvalidArgument(name, "unexpected dtype " + dtype_name(a));
  }
  const auto [row, col] = steps(a, name, a.itemsize());
  const index_t m = a.shape(0), n = a.shape(1);
  if ((n > 1 && col != 1) || (m > 1 && row < n)) throw InvalidArgument(name, "rows must be contiguous");
  return {type, a.data(), m, n, m <= 1 ? n : row};
}

/// `length` float64 numbers one after the other, or null for None.
inline const double* vector_or_null(const py::object& value, const char* name, index_t length) {
  if (value.is_none()) return nullptr;
  const auto a = py::cast<py::array>(value);
  if (!holds<double>(a)) throw InvalidArgument(name, "unexpected dtype " + dtype_name(a));
  if (a.ndim() != 1 || a.shape(0) != length) {
    throw InvalidArgument(name, "expected " + std::to_string(length) + " numbers");
  }
  if (length > 1 && a.strides(0) != sizeof(double)) throw InvalidArgument(name, "must be contiguous");
  return static_cast<const double*>(a.data());
}

/// NumPy array over memory that `owner` keeps alive.
template <class T, class Owner>
py::array adopt(const T* data, std::vector<py::ssize_t> shape, std::vector<py::ssize_t> strides, Owner owner) {
  auto* kept = new Owner(std::move(owner));
  py::capsule capsule(kept, [](void* p) { delete static_cast<Owner*>(p); });
  return py::array(py::dtype::of<T>(), std::move(shape), std::move(strides), data, capsule);
}

/// The array's own memory, in its own order.
template <class T>
py::array to_numpy(const Array<T>& a) {
  const py::ssize_t size = sizeof(T);
  const bool by_rows = a.order() == Order::row_major;
  return adopt(
      static_cast<const T*>(a.data()), {a.rows(), a.cols()},
      by_rows ? std::vector<py::ssize_t>{a.cols() * size, size} : std::vector<py::ssize_t>{size, a.rows() * size},
      a.owner());
}

template <class T>
py::array to_numpy(std::vector<T> values) {
  auto owner = std::make_shared<std::vector<T>>(std::move(values));
  const T* data = owner->data();
  const auto length = static_cast<py::ssize_t>(owner->size());
  return adopt(data, {length}, {static_cast<py::ssize_t>(sizeof(T))}, std::move(owner));
}

/// n x n numbers in a vector, row-major.
inline py::array to_numpy_square(std::vector<double> values, index_t n) {
  return to_numpy(std::move(values)).reshape({n, n});
}

/// Run `f` for float or double, whichever `a` holds.
template <class F>
auto by_dtype(const py::array& a, const char* name, F&& f) {
  if (holds<float>(a)) return f(float{});
  if (holds<double>(a)) return f(double{});
  throw InvalidArgument(name, "expected float32 or float64, got " + dtype_name(a));
}

/// A host Context whose interrupt check answers Ctrl-C.
Context interruptible();

/// Run `f` with the GIL released. Python objects must not be touched in it.
template <class F>
auto unlocked(F&& f) {
  py::gil_scoped_release release;
  return f();
}

}  // namespace brockett::python
