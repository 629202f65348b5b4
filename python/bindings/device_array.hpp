// Arrays in the memory of a CUDA device: those of other libraries, seen without a copy, and our own results.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/typing.h>

#include <memory>
#include <string>
#include <vector>

#include "brockett/context.hpp"
#include "brockett/matrix_view.hpp"
#include "dlpack.hpp"

namespace brockett::python {

namespace py = pybind11;
using dlpack::ElementType;

/// Where operands lie and results go: host memory, or a stream of a CUDA device.
struct Place {
  int device = -1;  ///< -1: host memory
  void* stream = nullptr;  ///< a cudaStream_t; null: the legacy default stream

  bool on_host() const { return device < 0; }
  std::string name() const { return on_host() ? "host memory" : "cuda:" + std::to_string(device); }
  /// Works there. `quiet` contexts have no interrupt check: for workers, who may not run one.
  Context context() const;
  Context quiet() const;
  friend bool operator==(const Place&, const Place&) = default;
};

/// Stream numbers of DLPack and of the CUDA array interface: 0 and 1 mean the legacy default stream.
void* stream_from(std::uintptr_t number);
std::uintptr_t stream_number(void* stream);

std::string type_name(ElementType type);
ElementType type_named(const std::string& name);
template <class T>
constexpr ElementType element_type() {
  constexpr auto bits = static_cast<std::uint8_t>(8 * sizeof(T));
  if constexpr (std::is_floating_point_v<T>) return {dlpack::real, bits, 1};
  if constexpr (std::is_same_v<T, bool>) return {dlpack::boolean, 8, 1};
  return {std::is_signed_v<T> ? dlpack::integer : dlpack::unsigned_integer, bits, 1};
}

/// A strided array on a CUDA device, and whoever keeps its memory alive. Its values are ready when the work queued on
/// its stream is done.
struct DeviceArray {
  void* data = nullptr;
  std::vector<index_t> shape;
  std::vector<index_t> strides;  ///< in elements
  ElementType dtype;
  Place place;
  std::shared_ptr<void> owner;

  index_t size() const;
  std::size_t itemsize() const { return dtype.bits / 8; }
  bool contiguous() const;  ///< in C order
};

/// A new array of our own, C order.
DeviceArray empty_array(const Place& place, std::vector<index_t> shape, ElementType dtype);
/// Any object with __dlpack__ (asked to be ready on `place.stream`), or a capsule of one. `argument` is for messages.
DeviceArray from_dlpack(const py::object& source, void* stream, const std::string& argument);
/// Any object with __cuda_array_interface__.
DeviceArray from_interface(const py::object& source, void* stream, const std::string& argument);
/// A DLPack capsule, ready on the consumer's stream (None: the legacy default one; -1: whenever it is).
py::object to_dlpack(const DeviceArray& array, const py::object& stream, bool versioned);
py::typing::Dict<py::str, py::object> to_interface(const DeviceArray& array);

DeviceArray from_host(const py::array& array, const Place& place);
py::array to_host(const DeviceArray& array);
DeviceArray reshaped(const DeviceArray& array, const std::vector<index_t>& shape);
DeviceArray converted(const DeviceArray& array, ElementType type);
DeviceArray stacked(const std::vector<DeviceArray>& parts);

}  // namespace brockett::python
