// DeviceArray as Python sees it: a window onto device memory that any library of Python's can take over.
#include <pybind11/stl.h>

#include <algorithm>

#include "array_view.hpp"
#include "bindings.hpp"

namespace brockett::python {
namespace {

using Integers = py::typing::Tuple<py::int_, py::ellipsis>;

Integers tuple_of(const std::vector<index_t>& numbers, index_t factor = 1) {
  py::tuple out(numbers.size());
  for (std::size_t i = 0; i < numbers.size(); ++i) out[i] = numbers[i] * factor;
  return out;
}

/// a[i, j, …] with indices along the leading axes, and nothing or … for the rest: a view.
DeviceArray item(const DeviceArray& a, const py::object& key) {
  const auto indices = py::isinstance<py::tuple>(key) ? key.cast<py::tuple>() : py::make_tuple(key);
  DeviceArray out = a;
  char* data = static_cast<char*>(a.data);
  std::size_t axis = 0;
  for (const auto& index : indices) {
    if (index.is(py::ellipsis()) && axis + 1 == indices.size()) break;
    if (!py::isinstance<py::int_>(index)) throw py::type_error("a DeviceArray takes integers along its leading axes");
    if (axis >= a.shape.size()) throw py::index_error("more indices than axes");
    const auto length = a.shape[axis];
    auto i = index.cast<index_t>();
    if (i < 0) i += length;
    if (i < 0 || i >= length) throw py::index_error("index out of range");
    data += i * a.strides[axis++] * static_cast<index_t>(a.itemsize());
  }
  out.data = data;
  out.shape.erase(out.shape.begin(), out.shape.begin() + static_cast<std::ptrdiff_t>(axis));
  out.strides.erase(out.strides.begin(), out.strides.begin() + static_cast<std::ptrdiff_t>(axis));
  return out;
}

DeviceArray transposed(const DeviceArray& a) {
  DeviceArray out = a;
  std::reverse(out.shape.begin(), out.shape.end());
  std::reverse(out.strides.begin(), out.strides.end());
  return out;
}

py::object dlpack_of(const DeviceArray& a, const py::object& stream, const py::object& max_version,
                     const py::object& dl_device, const py::object& copy) {
  if (!dl_device.is_none() &&
      dl_device.cast<std::pair<int, int>>() != std::pair<int, int>(dlpack::cuda, a.place.device)) {
    throw py::buffer_error("a DeviceArray is not moved to another device; to_host() makes a NumPy array of it");
  }
  if (!copy.is_none() && copy.cast<bool>()) throw py::buffer_error("a DeviceArray gives its own memory, not a copy");
  const bool versioned = !max_version.is_none() && max_version.cast<py::tuple>()[0].cast<int>() >= 1;
  return to_dlpack(a, stream, versioned);
}

}  // namespace

void bind_device_array(py::module_& m) {
  py::class_<DeviceArray>(
      m, "DeviceArray",
      "An array in the memory of a CUDA device. Any library takes it over without a copy: torch.from_dlpack(a),\n"
      "cupy.from_dlpack(a), numba.cuda.as_cuda_array(a), jax.numpy.from_dlpack(a).")
      .def_property_readonly(
          "shape", [](const DeviceArray& a) { return tuple_of(a.shape); }, "Length of each axis.")
      .def_property_readonly(
          "strides", [](const DeviceArray& a) { return tuple_of(a.strides, static_cast<index_t>(a.itemsize())); },
          "Bytes from one element to the next along each axis.")
      .def_property_readonly(
          "dtype", [](const DeviceArray& a) { return type_name(a.dtype); }, "Name of the type of its elements.")
      .def_property_readonly(
          "ndim", [](const DeviceArray& a) { return a.shape.size(); }, "Number of axes.")
      .def_property_readonly("size", &DeviceArray::size, "Number of elements.")
      .def_property_readonly(
          "itemsize", [](const DeviceArray& a) { return a.itemsize(); }, "Bytes of one element.")
      .def_property_readonly(
          "device", [](const DeviceArray& a) { return a.place.device; }, "Ordinal of its CUDA device.")
      .def_property_readonly(
          "stream", [](const DeviceArray& a) { return stream_number(a.place.stream); },
          "The CUDA stream whose queued work makes its values; 1: the legacy default stream.")
      .def_property_readonly("T", &transposed, "The same memory with its axes in reverse order.")
      .def_static(
          "from_host",
          [](const py::array& array, int device, std::uintptr_t stream) {
            return from_host(array, {device, stream_from(stream)});
          },
          py::arg("array"), py::arg("device") = 0, py::arg("stream") = 0, "A copy of a NumPy array on a device.")
      .def_static(
          "from_dlpack",
          [](const py::object& source, std::uintptr_t stream, const std::string& argument) {
            return from_dlpack(source, stream_from(stream), argument);
          },
          py::arg("source"), py::arg("stream") = 0, py::arg("argument") = "source",
          "What has __dlpack__, or a DLPack capsule, without a copy; asked to be ready on `stream`.")
      .def_static(
          "from_interface",
          [](const py::object& source, std::uintptr_t stream, const std::string& argument) {
            return from_interface(source, stream_from(stream), argument);
          },
          py::arg("source"), py::arg("stream") = 0, py::arg("argument") = "source",
          "What has __cuda_array_interface__, without a copy; `stream` waits for the stream that it names.")
      .def_static("stack", &stacked, py::arg("parts"), "Arrays of one shape and layout along a new first axis; a copy.")
      .def("to_host", &to_host, "A NumPy array with the values; waits for them. bfloat16 becomes float32.")
      .def("reshape", &reshaped, py::arg("shape"), "The same memory in another shape.")
      .def(
          "astype", [](const DeviceArray& a, const std::string& dtype) { return converted(a, type_named(dtype)); },
          py::arg("dtype"), "A copy in float32 or float64.")
      .def("__getitem__", &item, py::arg("key"))
      .def("__float__", [](const DeviceArray& a) { return py::float_(to_host(a)).cast<double>(); })
      .def("__dlpack__", &dlpack_of, py::kw_only(), py::arg("stream") = py::none(), py::arg("max_version") = py::none(),
           py::arg("dl_device") = py::none(), py::arg("copy") = py::none())
      .def("__dlpack_device__", [](const DeviceArray& a) { return py::make_tuple(int{dlpack::cuda}, a.place.device); })
      .def_property_readonly("__cuda_array_interface__", &to_interface)
      // NumPy would otherwise read it element by element, each a copy off the device.
      .def(
          "__array__",
          [](const DeviceArray& a, const py::object&, const py::object&) -> py::object {
            throw py::type_error("a DeviceArray on " + a.place.name() +
                                 " is not moved behind your back: to_host() makes a NumPy array of it");
          },
          py::arg("dtype") = py::none(), py::arg("copy") = py::none())
      .def("__repr__", [](const DeviceArray& a) {
        return "<DeviceArray of shape " + py::str(tuple_of(a.shape)).cast<std::string>() + ", " + type_name(a.dtype) +
               ", on " + a.place.name() + ">";
      });
}

}  // namespace brockett::python
