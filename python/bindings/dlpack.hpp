// The memory layout that DLPack fixes between libraries, of its unversioned form and of version 1
// (dmlc.github.io/dlpack/latest/c_api.html). Field for field theirs; the names are ours.
#pragma once

#include <cstdint>

namespace brockett::python::dlpack {

enum DeviceType : std::int32_t { cpu = 1, cuda = 2, cuda_host = 3, cuda_managed = 13 };
enum TypeCode : std::uint8_t { integer = 0, unsigned_integer = 1, real = 2, bfloat = 4, complex = 5, boolean = 6 };

struct Device {
  std::int32_t type;
  std::int32_t id;
};

struct ElementType {
  std::uint8_t code = real;
  std::uint8_t bits = 0;
  std::uint16_t lanes = 1;
  friend bool operator==(const ElementType&, const ElementType&) = default;
};

struct Tensor {
  void* data;
  Device device;
  std::int32_t ndim;
  ElementType dtype;
  std::int64_t* shape;
  std::int64_t* strides;  // in elements; null: C order
  std::uint64_t byte_offset;
};

struct ManagedTensor {
  Tensor tensor;
  void* context;
  void (*deleter)(ManagedTensor*);
};

struct Version {
  std::uint32_t major;
  std::uint32_t minor;
};

struct VersionedTensor {
  Version version;
  void* context;
  void (*deleter)(VersionedTensor*);
  std::uint64_t flags;
  Tensor tensor;
};

}  // namespace brockett::python::dlpack
