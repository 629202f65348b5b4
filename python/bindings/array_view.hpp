// The border between Python's arrays and libbrockett: views in, owners out, nothing copied. The same functions take
// NumPy's arrays in host memory and DeviceArrays on a CUDA device; results come where the operands are.
//
// A C-order NumPy array of samples (n_samples, n_features) is, byte for byte, the column-major matrix n_features x
// n_samples with ld = n_features: the Y of the descrambler, samples in columns. So row-major views pass as they are,
// and a Fortran-order array is the same view with the other Order. What no view describes is refused: the facade lays
// it out anew before, where a reader can see the copy.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/typing.h>

#include <initializer_list>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "brockett/autocorrelation.hpp"
#include "brockett/context.hpp"
#include "brockett/error.hpp"
#include "brockett/matrix_view.hpp"
#include "device_array.hpp"

namespace brockett::python {

/// Named values: descriptions in, results out.
using Dict = py::typing::Dict<py::str, py::object>;
using Dicts = py::typing::List<Dict>;

/// An array argument: one of NumPy's, or a DeviceArray. Keeps it alive; a default one stands for None.
class ArrayRef {
 public:
  ArrayRef() = default;
  ArrayRef(const py::array& a);  // NOLINT: implicit on purpose, as the next one
  ArrayRef(const DeviceArray& a);
  /// None gives a default one.
  explicit ArrayRef(const py::object& object);

  bool given() const { return given_; }
  index_t ndim() const { return static_cast<index_t>(shape_.size()); }
  index_t shape(index_t axis) const { return shape_[static_cast<std::size_t>(axis)]; }
  index_t strides(index_t axis) const { return strides_[static_cast<std::size_t>(axis)]; }  ///< bytes
  index_t itemsize() const { return itemsize_; }
  const void* data() const { return data_; }
  ElementType dtype() const { return dtype_; }  ///< code 255: none of those known, or foreign byte order
  std::string dtype_name() const;
  const Place& place() const { return place_; }

 private:
  bool given_ = false;
  const void* data_ = nullptr;
  std::vector<index_t> shape_, strides_;
  index_t itemsize_ = 0;
  ElementType dtype_{255, 0, 1};
  Place place_;
  py::object host_;
  std::shared_ptr<void> device_;
};

/// The one place of all operands of a call. Operands on other streams of its device are waited for, and wait in turn
/// until the work is done before their memory may be used for something else.
class Workplace {
 public:
  using Operands = std::initializer_list<std::pair<const char*, const ArrayRef*>>;
  Workplace(Operands operands);  // NOLINT: implicit on purpose
  /// Where an accumulator lies, which is where its matrix is made.
  Workplace(const char* name, const Place& place, Operands operands);
  ~Workplace();
  Workplace(const Workplace&) = delete;
  Workplace& operator=(const Workplace&) = delete;

  void add(const char* name, const Place& place);
  const Place& place() const { return place_; }
  Context context() const { return place_.context(); }
  Context quiet() const { return place_.quiet(); }

 private:
  std::string first_;  // whose place it is
  Place place_;
  std::vector<void*> others_;
};

template <class T>
bool holds(const ArrayRef& a) {
  return a.dtype() == element_type<T>();  // native byte order included
}

inline std::string dtype_name(const ArrayRef& a) { return a.dtype_name(); }

/// Strides of the last two axes in elements, or an error: `size` bytes each, and aligned.
inline std::pair<index_t, index_t> steps(const ArrayRef& a, const char* name, index_t size) {
  const auto d = a.ndim();
  const auto row = a.strides(d - 2), col = a.strides(d - 1);
  if (row % size != 0 || col % size != 0 ||
      reinterpret_cast<std::uintptr_t>(a.data()) % static_cast<std::size_t>(size) != 0) {
    throw InvalidArgument(name, "is not aligned to its elements");
  }
  return {row / size, col / size};
}

/// The matrix in the last two axes of `a`, shifted by `offset` elements.
template <class T>
MatrixView<const T> view_of_last_axes(const ArrayRef& a, const char* name, index_t offset = 0) {
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
MatrixView<const T> matrix_view(const ArrayRef& a, const char* name) {
  if (a.ndim() != 2) throw InvalidArgument(name, "expected 2 axes, got " + std::to_string(a.ndim()));
  return view_of_last_axes<T>(a, name);
}

/// Samples (n_samples, n_features), rows contiguous; in host memory bfloat16 comes as uint16 with the flag set.
SampleView sample_view(const ArrayRef& a, const char* name, bool bfloat16 = false);

/// `length` float64 numbers one after the other in host memory, or null for None.
const double* vector_or_null(const py::object& value, const char* name, index_t length);

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

/// The array where it is: NumPy's, or a DeviceArray.
template <class T>
py::object to_python(const Array<T>& a, const Place& place) {
  if (place.on_host()) return to_numpy(a);
  const bool by_rows = a.order() == Order::row_major;
  return py::cast(DeviceArray{a.data(),
                              {a.rows(), a.cols()},
                              by_rows ? std::vector<index_t>{a.cols(), 1} : std::vector<index_t>{1, a.rows()},
                              element_type<T>(),
                              place,
                              a.owner()});
}

/// n x n numbers in a vector, row-major.
inline py::array to_numpy_square(std::vector<double> values, index_t n) {
  return to_numpy(std::move(values)).reshape({n, n});
}

/// Run `f` for float or double, whichever `a` holds.
template <class F>
auto by_dtype(const ArrayRef& a, const char* name, F&& f) {
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

namespace pybind11::detail {

/// NumPy's arrays (and what NumPy makes one of), and DeviceArrays.
template <>
struct type_caster<brockett::python::ArrayRef> {
  PYBIND11_TYPE_CASTER(brockett::python::ArrayRef,
                       make_caster<array>::name + const_name(" | ") + make_caster<brockett::python::DeviceArray>::name);

  bool load(handle source, bool convert) {
    if (isinstance<brockett::python::DeviceArray>(source)) {
      value = brockett::python::ArrayRef(source.cast<const brockett::python::DeviceArray&>());
      return true;
    }
    make_caster<array> host;
    if (!host.load(source, convert)) return false;
    value = brockett::python::ArrayRef(cast_op<array>(std::move(host)));
    return true;
  }
};

}  // namespace pybind11::detail
