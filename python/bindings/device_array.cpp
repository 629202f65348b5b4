// Device memory between libraries: DLPack and the CUDA array interface, in and out.
#include "device_array.hpp"

#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <functional>
#include <numeric>
#include <utility>

#include "array_view.hpp"
#include "brockett/cuda.hpp"

namespace brockett::python {
namespace {

constexpr const char* kUnversioned = "dltensor";
constexpr const char* kVersioned = "dltensor_versioned";

struct Named {
  const char* name;
  ElementType type;
  const char* typestr;  // of the CUDA array interface; null: it has none
};
constexpr std::array<Named, 13> kTypes{{
    {"float16", {dlpack::real, 16, 1}, "<f2"},
    {"bfloat16", {dlpack::bfloat, 16, 1}, nullptr},
    {"float32", {dlpack::real, 32, 1}, "<f4"},
    {"float64", {dlpack::real, 64, 1}, "<f8"},
    {"int8", {dlpack::integer, 8, 1}, "|i1"},
    {"int16", {dlpack::integer, 16, 1}, "<i2"},
    {"int32", {dlpack::integer, 32, 1}, "<i4"},
    {"int64", {dlpack::integer, 64, 1}, "<i8"},
    {"uint8", {dlpack::unsigned_integer, 8, 1}, "|u1"},
    {"uint16", {dlpack::unsigned_integer, 16, 1}, "<u2"},
    {"uint32", {dlpack::unsigned_integer, 32, 1}, "<u4"},
    {"uint64", {dlpack::unsigned_integer, 64, 1}, "<u8"},
    {"bool", {dlpack::boolean, 8, 1}, "|b1"},
}};

std::vector<index_t> c_strides(const std::vector<index_t>& shape) {
  std::vector<index_t> strides(shape.size());
  index_t step = 1;
  for (std::size_t i = shape.size(); i-- > 0;) {
    strides[i] = step;
    step *= std::max<index_t>(shape[i], 1);
  }
  return strides;
}

std::string shape_text(const std::vector<index_t>& shape) {
  std::string text = "(";
  for (std::size_t i = 0; i < shape.size(); ++i) text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  return text + (shape.size() == 1 ? ",)" : ")");
}

DType core_type(ElementType type, const char* argument) {
  if (type == ElementType{dlpack::real, 16, 1}) return DType::float16;
  if (type == ElementType{dlpack::bfloat, 16, 1}) return DType::bfloat16;
  if (type == ElementType{dlpack::real, 32, 1}) return DType::float32;
  if (type == ElementType{dlpack::real, 64, 1}) return DType::float64;
  throw InvalidArgument(argument, "expected float16, bfloat16, float32 or float64, got " + type_name(type));
}

/// What another library gave us, freed by its own hand. Whoever drops the last reference may not hold the GIL, and a
/// producer's deleter may run Python.
template <class Managed>
std::shared_ptr<void> foreign(Managed* managed) {
  return {managed, [](void* p) {
            auto* m = static_cast<Managed*>(p);
            if (m->deleter == nullptr || Py_IsInitialized() == 0) return;
            py::gil_scoped_acquire locked;
            m->deleter(m);
          }};
}

std::shared_ptr<void> foreign(const py::object& object) {
  return {object.inc_ref().ptr(), [](void* p) {
            if (Py_IsInitialized() == 0) return;
            py::gil_scoped_acquire locked;
            Py_DECREF(static_cast<PyObject*>(p));
          }};
}

std::string device_text(const dlpack::Device& device) {
  static const char* const names[] = {"",
                                      "CPU",
                                      "CUDA",
                                      "CUDA host memory",
                                      "OpenCL",
                                      "",
                                      "",
                                      "Vulkan",
                                      "Metal",
                                      "VPI",
                                      "ROCm",
                                      "ROCm host memory",
                                      "an extension device",
                                      "CUDA managed memory",
                                      "oneAPI",
                                      "WebGPU",
                                      "Hexagon"};
  const auto known = device.type >= 0 && device.type < static_cast<int>(std::size(names)) && *names[device.type] != 0;
  return (known ? std::string(names[device.type]) : "DLPack device type " + std::to_string(device.type)) + " " +
         std::to_string(device.id);
}

void check_device(const dlpack::Device& device, const std::string& argument) {
  if (device.type == dlpack::cuda || device.type == dlpack::cuda_managed) return;
  throw InvalidArgument(argument, "lies on " + device_text(device) + ", expected memory of a CUDA device");
}

/// A kernel that reads elements across their alignment ends the CUDA context, the other libraries' too.
void check_alignment(const DeviceArray& a, const std::string& argument) {
  if (reinterpret_cast<std::uintptr_t>(a.data) % a.itemsize() != 0) {
    throw InvalidArgument(argument, "is not aligned to its elements");
  }
}

/// A kernel that is sent to memory that is not there ends the CUDA context, too.
void check_memory(const DeviceArray& a, const dlpack::Device& device, const std::string& argument) {
  const int found = cuda::device_of(a.data, device.type == dlpack::cuda ? device.id : -1);
  if (found < 0) {
    throw InvalidArgument(argument, "its DLPack tensor points at memory of no CUDA device: it was freed, or is none");
  }
  if (device.type == dlpack::cuda && found != device.id) {
    throw InvalidArgument(argument, "its DLPack tensor says " + device_text(device) + ", its memory lies on CUDA " +
                                        std::to_string(found));
  }
}

DeviceArray from_tensor(const dlpack::Tensor& t, std::shared_ptr<void> owner, void* stream,
                        const std::string& argument) {
  check_device(t.device, argument);
  if (t.dtype.lanes != 1 || t.dtype.bits % 8 != 0 || t.dtype.bits == 0) {
    throw InvalidArgument(argument, "elements of " + std::to_string(t.dtype.bits) + " bits in " +
                                        std::to_string(t.dtype.lanes) + " lanes are not supported");
  }
  if (t.ndim < 0 || (t.ndim > 0 && t.shape == nullptr))
    throw InvalidArgument(argument, "its DLPack tensor has no shape");
  DeviceArray a;
  a.shape.assign(t.shape, t.shape + t.ndim);
  if (std::any_of(a.shape.begin(), a.shape.end(), [](index_t n) { return n < 0; })) {
    throw InvalidArgument(argument, "its DLPack tensor has the shape " + shape_text(a.shape));
  }
  a.strides = t.strides == nullptr ? c_strides(a.shape) : std::vector<index_t>(t.strides, t.strides + t.ndim);
  a.dtype = t.dtype;
  a.place = {t.device.id, stream};
  if (t.data == nullptr && a.size() > 0)
    throw InvalidArgument(argument, "its DLPack tensor has no memory: it was freed");
  a.data = t.data == nullptr ? nullptr : static_cast<char*>(t.data) + t.byte_offset;
  check_alignment(a, argument);
  if (a.size() > 0) check_memory(a, t.device, argument);
  a.owner = std::move(owner);
  return a;
}

DeviceArray from_capsule(const py::object& capsule, void* stream, const std::string& argument) {
  const char* name = PyCapsule_GetName(capsule.ptr());
  const std::string found = name == nullptr ? "" : name;
  if (found == kVersioned) {
    auto* managed = static_cast<dlpack::VersionedTensor*>(PyCapsule_GetPointer(capsule.ptr(), kVersioned));
    if (managed->version.major != 1) {
      throw InvalidArgument(argument, "its DLPack version is " + std::to_string(managed->version.major) + "." +
                                          std::to_string(managed->version.minor) + ", expected 1.x");
    }
    check_device(managed->tensor.device, argument);
    PyCapsule_SetName(capsule.ptr(), "used_dltensor_versioned");  // from here on the memory is ours to give back
    return from_tensor(managed->tensor, foreign(managed), stream, argument);
  }
  if (found == kUnversioned) {
    auto* managed = static_cast<dlpack::ManagedTensor*>(PyCapsule_GetPointer(capsule.ptr(), kUnversioned));
    check_device(managed->tensor.device, argument);
    PyCapsule_SetName(capsule.ptr(), "used_dltensor");
    return from_tensor(managed->tensor, foreign(managed), stream, argument);
  }
  if (found.rfind("used_dltensor", 0) == 0) {
    throw InvalidArgument(argument, "is a DLPack capsule that was consumed before: each can be read once");
  }
  throw InvalidArgument(argument, "is a capsule named '" + found + "', expected a DLPack capsule");
}

/// An exported array, and the producer's half of the bargain: memory stays until the consumer lets go of it.
template <class Managed>
struct Exported {
  Managed managed{};
  DeviceArray array;
  bool elsewhere = false;  // read on another stream than ours
};

template <class Managed>
Managed* exported(const DeviceArray& array, bool elsewhere) {
  auto* e = new Exported<Managed>{{}, array, elsewhere};
  auto& t = e->managed.tensor;
  t = {e->array.data,
       {dlpack::cuda, e->array.place.device},
       static_cast<std::int32_t>(e->array.shape.size()),
       e->array.dtype,
       e->array.shape.data(),
       e->array.strides.data(),
       0};
  e->managed.context = e;
  e->managed.deleter = [](Managed* m) {
    auto* kept = static_cast<Exported<Managed>*>(m->context);
    if (kept->elsewhere && kept->array.owner.use_count() == 1) {
      // Our memory is given back in the order of our stream, which knows nothing of what another one still reads, and
      // that one may be gone by now: so wait for the device.
      try {
        if (Py_IsInitialized() != 0 && PyGILState_Check() != 0) {  // a callback in a stream may want the lock
          const py::gil_scoped_release release;
          cuda::synchronize_device(kept->array.place.device);
        } else {
          cuda::synchronize_device(kept->array.place.device);
        }
      } catch (...) {  // an error of the device shows at the next call
      }
    }
    delete kept;
  };
  return &e->managed;
}

template <class Managed>
py::object capsule_of(Managed* managed, const char* name) {
  auto give_back = [](PyObject* c) {
    const char* now = PyCapsule_GetName(c);
    if (now == nullptr || (std::string(now) != kUnversioned && std::string(now) != kVersioned)) return;  // consumed
    auto* m = static_cast<Managed*>(PyCapsule_GetPointer(c, now));
    m->deleter(m);
  };
  PyObject* c = PyCapsule_New(managed, name, give_back);
  if (c == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(c);
}

/// Whether the elements fill one piece of memory, in whatever order of the axes.
bool dense(const DeviceArray& a) {
  std::vector<std::pair<index_t, index_t>> axes;  // stride, length
  for (std::size_t i = 0; i < a.shape.size(); ++i) {
    if (a.shape[i] != 1) axes.emplace_back(a.strides[i], a.shape[i]);
  }
  std::sort(axes.begin(), axes.end());
  index_t step = 1;
  for (const auto& [stride, length] : axes) {
    if (stride != step) return false;
    step *= length;
  }
  return true;
}

template <class F>
auto asked(const std::string& argument, F&& f) -> decltype(f()) {
  try {
    return f();
  } catch (py::error_already_set& e) {
    if (!e.matches(PyExc_Exception)) throw;
    throw InvalidArgument(argument, std::string("does not give its memory: ") + e.what());
  } catch (py::cast_error& e) {
    throw InvalidArgument(argument, std::string("does not give its memory as agreed: ") + e.what());
  }
}

}  // namespace

void* stream_from(std::uintptr_t number) { return number <= 1 ? nullptr : reinterpret_cast<void*>(number); }

std::uintptr_t stream_number(void* stream) { return stream == nullptr ? 1 : reinterpret_cast<std::uintptr_t>(stream); }

std::string type_name(ElementType type) {
  for (const auto& known : kTypes) {
    if (known.type == type) return known.name;
  }
  if (type.code == dlpack::complex) return "complex" + std::to_string(type.bits);
  return "DLPack type " + std::to_string(type.code) + " of " + std::to_string(type.bits) + " bits";
}

ElementType type_named(const std::string& name) {
  for (const auto& known : kTypes) {
    if (known.name == name) return known.type;
  }
  throw InvalidArgument("dtype", "unknown dtype " + name);
}

index_t DeviceArray::size() const {
  return std::accumulate(shape.begin(), shape.end(), index_t{1}, std::multiplies<>());
}

bool DeviceArray::contiguous() const {
  const auto wanted = c_strides(shape);
  for (std::size_t i = 0; i < shape.size(); ++i) {
    if (shape[i] > 1 && strides[i] != wanted[i]) return false;
  }
  return true;
}

DeviceArray empty_array(const Place& place, std::vector<index_t> shape, ElementType dtype) {
  DeviceArray a;
  a.strides = c_strides(shape);
  a.shape = std::move(shape);
  a.dtype = dtype;
  a.place = place;
  a.owner = cuda::allocate(place.quiet(), static_cast<std::size_t>(a.size()) * a.itemsize());
  a.data = a.owner.get();
  return a;
}

DeviceArray from_dlpack(const py::object& source, void* stream, const std::string& argument) {
  if (PyCapsule_CheckExact(source.ptr()) != 0) return from_capsule(source, stream, argument);
  if (py::hasattr(source, "__dlpack_device__")) {
    const auto device = asked(argument, [&] { return source.attr("__dlpack_device__")().cast<std::pair<int, int>>(); });
    check_device({device.first, device.second}, argument);
  }
  const py::int_ number(stream_number(stream));
  const auto capsule = asked(argument, [&]() -> py::object {
    const auto ask = source.attr("__dlpack__");
    try {
      return ask(py::arg("stream") = number, py::arg("max_version") = py::make_tuple(1, 0));
    } catch (py::error_already_set& e) {
      if (!e.matches(PyExc_TypeError)) throw;  // from before DLPack had versions
      return ask(py::arg("stream") = number);
    }
  });
  if (PyCapsule_CheckExact(capsule.ptr()) == 0) throw InvalidArgument(argument, "its __dlpack__() gave no capsule");
  return from_capsule(capsule, stream, argument);
}

DeviceArray from_interface(const py::object& source, void* stream, const std::string& argument) {
  return asked(argument, [&] {
    const py::dict d = source.attr("__cuda_array_interface__");
    DeviceArray a;
    const auto typestr = d["typestr"].cast<std::string>();
    const auto known = std::find_if(kTypes.begin(), kTypes.end(), [&](const Named& one) {
      return one.typestr != nullptr && typestr.size() == 3 && typestr.substr(1) == one.typestr + 1 && typestr[0] != '>';
    });
    if (known == kTypes.end()) throw InvalidArgument(argument, "elements of type '" + typestr + "' are not supported");
    if (d.contains("mask") && !d["mask"].is_none()) throw InvalidArgument(argument, "is a masked array; pass mask=");
    a.dtype = known->type;
    for (const auto& n : d["shape"]) a.shape.push_back(n.cast<index_t>());
    a.strides = c_strides(a.shape);
    if (d.contains("strides") && !d["strides"].is_none()) {
      const auto size = static_cast<index_t>(a.itemsize());
      std::size_t i = 0;
      for (const auto& step : d["strides"]) {
        const auto bytes = step.cast<index_t>();
        if (i >= a.shape.size() || bytes % size != 0) {
          throw InvalidArgument(argument, "a stride of " + std::to_string(bytes) +
                                              " bytes does not fit its elements of " + std::to_string(size) +
                                              " bytes, or its shape " + shape_text(a.shape));
        }
        a.strides[i++] = bytes / size;
      }
      if (i != a.shape.size()) throw InvalidArgument(argument, "has fewer strides than axes");
    }
    const auto pointer = d["data"].cast<py::tuple>()[0].cast<std::uintptr_t>();
    a.data = reinterpret_cast<void*>(pointer);
    check_alignment(a, argument);
    a.place = {0, stream};
    if (a.size() > 0) {  // the interface does not say which device
      a.place.device = pointer == 0 ? -1 : cuda::device_of(a.data);
      if (a.place.on_host()) {
        throw InvalidArgument(argument, "its __cuda_array_interface__ points at memory of no CUDA device");
      }
    }
    if (d.contains("stream") && !d["stream"].is_none()) {
      cuda::order(a.place.device, stream_from(d["stream"].cast<std::uintptr_t>()), stream);
    }
    a.owner = foreign(source);
    return a;
  });
}

py::object to_dlpack(const DeviceArray& array, const py::object& stream, bool versioned) {
  const auto number = stream.is_none() ? 1 : stream.cast<std::intptr_t>();
  if (number < -1) throw InvalidArgument("stream", "expected a stream or -1, got " + std::to_string(number));
  void* consumer = number == -1 ? array.place.stream : stream_from(static_cast<std::uintptr_t>(number));
  cuda::order(array.place.device, array.place.stream, consumer);
  const bool elsewhere = number == -1 || consumer != array.place.stream;
  if (!versioned) return capsule_of(exported<dlpack::ManagedTensor>(array, elsewhere), kUnversioned);
  auto* managed = exported<dlpack::VersionedTensor>(array, elsewhere);
  managed->version = {1, 0};
  return capsule_of(managed, kVersioned);
}

py::typing::Dict<py::str, py::object> to_interface(const DeviceArray& array) {
  const auto known =
      std::find_if(kTypes.begin(), kTypes.end(), [&](const Named& one) { return one.type == array.dtype; });
  if (known == kTypes.end() || known->typestr == nullptr) {
    throw py::attribute_error("__cuda_array_interface__ knows no " + type_name(array.dtype) + "; DLPack does");
  }
  py::tuple shape(array.shape.size()), strides(array.shape.size());
  for (std::size_t i = 0; i < array.shape.size(); ++i) {
    shape[i] = array.shape[i];
    strides[i] = array.strides[i] * static_cast<index_t>(array.itemsize());
  }
  py::typing::Dict<py::str, py::object> d;
  d["shape"] = shape;
  d["typestr"] = known->typestr;
  d["data"] = py::make_tuple(reinterpret_cast<std::uintptr_t>(array.data), false);
  d["strides"] = strides;
  d["stream"] = stream_number(array.place.stream);
  d["version"] = 3;
  return d;
}

DeviceArray from_host(const py::array& array, const Place& place) {
  const auto name = py::str(array.dtype()).cast<std::string>();  // as NumPy and ml_dtypes (bfloat16) call it
  const auto packed = py::module_::import("numpy").attr("ascontiguousarray")(array).cast<py::array>();
  std::vector<index_t> shape(array.shape(), array.shape() + array.ndim());
  DeviceArray out = empty_array(place, std::move(shape), type_named(name));
  const auto bytes = static_cast<std::size_t>(packed.nbytes());
  unlocked([&] { cuda::upload(place.quiet(), packed.data(), out.data, bytes); });
  return out;
}

py::array to_host(const DeviceArray& array) {
  if (array.dtype == ElementType{dlpack::bfloat, 16, 1}) {  // NumPy has no such type, and float32 holds it exactly
    return to_host(converted(array, element_type<float>()));
  }
  index_t first = 0, last = array.size() == 0 ? -1 : 0;
  std::vector<py::ssize_t> strides;
  for (std::size_t i = 0; i < array.shape.size(); ++i) {
    const index_t reach = (array.shape[i] - 1) * array.strides[i];
    if (array.size() > 0) (reach < 0 ? first : last) += reach;
    strides.push_back(array.strides[i] * static_cast<index_t>(array.itemsize()));
  }
  const auto bytes = static_cast<std::size_t>(last - first + 1) * array.itemsize();
  auto memory = std::make_shared<std::vector<char>>(bytes);
  unlocked([&] {
    const char* from = static_cast<const char*>(array.data) + first * static_cast<index_t>(array.itemsize());
    cuda::download(array.place.quiet(), from, memory->data(), bytes);
  });
  const char* start = memory->data() - first * static_cast<index_t>(array.itemsize());
  auto* kept = new std::shared_ptr<std::vector<char>>(memory);
  const py::capsule owner(kept, [](void* p) { delete static_cast<std::shared_ptr<std::vector<char>>*>(p); });
  return py::array(py::dtype(type_name(array.dtype)), array.shape, strides, start, owner);
}

DeviceArray reshaped(const DeviceArray& array, const std::vector<index_t>& shape) {
  DeviceArray out = array;
  out.shape = shape;
  if (out.size() != array.size()) {
    throw InvalidArgument("shape", "cannot be " + shape_text(shape) + ", the array has " + shape_text(array.shape));
  }
  out.strides = c_strides(shape);
  if (array.contiguous() || out.size() == 0) return out;
  // Axes of length one come and go in any layout; the others pair up in groups of equal size, of which the old one must
  // lie in one piece where the new one cuts it differently.
  std::vector<std::pair<index_t, index_t>> old;
  for (std::size_t i = 0; i < array.shape.size(); ++i) {
    if (array.shape[i] != 1) old.emplace_back(array.shape[i], array.strides[i]);
  }
  std::size_t from = 0;
  for (std::size_t to = 0; to < shape.size();) {
    if (shape[to] == 1) {
      ++to;
      continue;
    }
    std::size_t from_end = from + 1, to_end = to + 1;
    index_t have = old[from].first, want = shape[to];
    while (have != want) {
      if (have < want) {
        have *= old[from_end++].first;
      } else {
        want *= shape[to_end++];
      }
    }
    for (std::size_t k = from; k + 1 < from_end; ++k) {
      if (old[k].second != old[k + 1].first * old[k + 1].second) {
        throw InvalidArgument("shape", "an array of shape " + shape_text(array.shape) +
                                           " with such strides cannot be " + shape_text(shape) +
                                           " without a copy: lay it out in C order");
      }
    }
    index_t step = old[from_end - 1].second;
    for (std::size_t k = to_end; k-- > to;) {
      out.strides[k] = step;
      step *= shape[k];
    }
    from = from_end;
    to = to_end;
  }
  return out;
}

DeviceArray converted(const DeviceArray& array, ElementType type) {
  const DType from = core_type(array.dtype, "dtype"), to = core_type(type, "dtype");
  if (to != DType::float32 && to != DType::float64) {
    throw InvalidArgument("dtype", "converts to float32 and float64 only, got " + type_name(type));
  }
  // Columns of the column-major matrix that the core converts are rows of ours: all in one piece, or long rows.
  const auto axes = array.shape.size();
  const bool matrix = axes == 2 && (array.shape[1] <= 1 || array.strides[1] == 1) && array.strides[0] >= array.shape[1];
  if (!dense(array) && !matrix) {
    throw InvalidArgument("dtype", "an array of shape " + shape_text(array.shape) +
                                       " with such strides cannot be converted here: lay it out in C order");
  }
  DeviceArray out = empty_array(array.place, array.shape, type);
  index_t rows = array.size(), cols = 1, ld = rows;
  if (dense(array)) {
    out.strides = array.strides;
  } else {
    rows = array.shape[1];
    cols = array.shape[0];
    ld = array.strides[0];
  }
  if (out.size() == 0) return out;
  unlocked([&] { cuda::convert(array.place.quiet(), from, array.data, ld, to, out.data, rows, rows, cols); });
  return out;
}

DeviceArray stacked(const std::vector<DeviceArray>& parts) {
  if (parts.empty()) throw InvalidArgument("parts", "expected one array or more");
  const DeviceArray& first = parts.front();
  auto shape = first.shape;
  shape.insert(shape.begin(), static_cast<index_t>(parts.size()));
  DeviceArray out = empty_array(first.place, shape, first.dtype);
  const DType type = core_type(first.dtype, "parts");
  const index_t step = first.size();
  std::copy(first.strides.begin(), first.strides.end(), out.strides.begin() + 1);
  for (std::size_t k = 0; k < parts.size(); ++k) {
    const auto& part = parts[k];
    if (part.shape != first.shape || part.strides != first.strides || part.dtype != first.dtype || !dense(part) ||
        part.place.device != first.place.device) {
      throw InvalidArgument("parts", "expected arrays of one shape, layout, dtype and device");
    }
    cuda::order(first.place.device, part.place.stream, first.place.stream);
    if (step == 0) continue;
    char* target = static_cast<char*>(out.data) + static_cast<index_t>(k * part.itemsize()) * step;
    cuda::convert(first.place.quiet(), type, part.data, step, type, target, step, step, 1);
    // its memory may be given back in the order of its own stream, no sooner than it was read
    cuda::order(first.place.device, first.place.stream, part.place.stream);
  }
  return out;
}

}  // namespace brockett::python
