// Array arguments, and the one place of all arguments of a call.
#include "array_view.hpp"

#include <algorithm>

#include "brockett/cuda.hpp"

namespace brockett::python {
namespace {

ElementType element_type_of(const py::dtype& type) {
  const auto bits = static_cast<std::uint8_t>(8 * type.itemsize());
  if (type.byteorder() != '=' && type.byteorder() != '|') return {255, bits, 1};
  switch (type.kind()) {
    case 'f':
      return {dlpack::real, bits, 1};
    case 'i':
      return {dlpack::integer, bits, 1};
    case 'u':
      return {dlpack::unsigned_integer, bits, 1};
    case 'b':
      return {dlpack::boolean, bits, 1};
    default:
      return {255, bits, 1};
  }
}

}  // namespace

ArrayRef::ArrayRef(const py::array& a)
    : given_(true),
      data_(a.data()),
      shape_(a.shape(), a.shape() + a.ndim()),
      strides_(a.strides(), a.strides() + a.ndim()),
      itemsize_(a.itemsize()),
      dtype_(element_type_of(a.dtype())),
      host_(a) {}

ArrayRef::ArrayRef(const DeviceArray& a)
    : given_(true),
      data_(a.data),
      shape_(a.shape),
      strides_(a.strides),
      itemsize_(static_cast<index_t>(a.itemsize())),
      dtype_(a.dtype),
      place_(a.place),
      device_(a.owner) {
  for (auto& step : strides_) step *= itemsize_;
}

std::string ArrayRef::dtype_name() const {
  return host_ ? py::str(host_.attr("dtype")).cast<std::string>() : type_name(dtype_);
}

ArrayRef::ArrayRef(const py::object& object) {
  if (!object.is_none()) *this = object.cast<ArrayRef>();
}

Workplace::Workplace(Operands operands) {
  for (const auto& [name, operand] : operands) {
    if (operand->given()) add(name, operand->place());
  }
}

Workplace::Workplace(const char* name, const Place& place, Operands operands) {
  add(name, place);
  for (const auto& [other, operand] : operands) {
    if (operand->given()) add(other, operand->place());
  }
}

void Workplace::add(const char* name, const Place& place) {
  if (first_.empty()) {
    first_ = name;
    place_ = place;
    return;
  }
  if (place.device != place_.device) {
    throw InvalidArgument(name, "is in " + place.name() + ", but " + first_ + " is in " + place_.name() +
                                    "; arrays are not moved: pass both on one device");
  }
  if (place.stream == place_.stream) return;
  cuda::order(place_.device, place.stream, place_.stream);
  if (std::find(others_.begin(), others_.end(), place.stream) == others_.end()) others_.push_back(place.stream);
}

Workplace::~Workplace() {
  for (void* stream : others_) {
    try {
      cuda::order(place_.device, place_.stream, stream);
    } catch (const Error&) {  // the device is in error: the next call reports it
    }
  }
}

SampleView sample_view(const ArrayRef& a, const char* name, bool bfloat16) {
  if (a.ndim() != 2) throw InvalidArgument(name, "expected 2 axes, got " + std::to_string(a.ndim()));
  DType type;
  if (a.dtype() == ElementType{dlpack::bfloat, 16, 1} || (bfloat16 && holds<std::uint16_t>(a))) {
    type = DType::bfloat16;
  } else if (!bfloat16 && holds<float>(a)) {
    type = DType::float32;
  } else if (!bfloat16 && holds<double>(a)) {
    type = DType::float64;
  } else if (!bfloat16 && a.dtype() == ElementType{dlpack::real, 16, 1}) {
    type = DType::float16;
  } else {
    throw InvalidArgument(name, "unexpected dtype " + dtype_name(a));
  }
  const auto [row, col] = steps(a, name, a.itemsize());
  const index_t m = a.shape(0), n = a.shape(1);
  if ((n > 1 && col != 1) || (m > 1 && row < n)) throw InvalidArgument(name, "rows must be contiguous");
  return {type, a.data(), m, n, m <= 1 ? n : row};
}

const double* vector_or_null(const py::object& value, const char* name, index_t length) {
  if (value.is_none()) return nullptr;
  const auto a = py::cast<py::array>(value);
  if (!holds<double>(a)) throw InvalidArgument(name, "unexpected dtype " + dtype_name(a));
  if (a.ndim() != 1 || a.shape(0) != length) {
    throw InvalidArgument(name, "expected " + std::to_string(length) + " numbers");
  }
  if (length > 1 && a.strides(0) != sizeof(double)) throw InvalidArgument(name, "must be contiguous");
  return static_cast<const double*>(a.data());
}

}  // namespace brockett::python
