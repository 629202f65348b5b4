// The one symbol of libbrockett_cuda.
#include "linalg/cuda/plugin.hpp"

#include <optional>
#include <string>

#include "linalg/cuda/backend.hpp"

namespace brockett::linalg::cuda {
namespace {

// The kernels are compiled for this and what came after.
constexpr int kLeastMajor = 7, kLeastMinor = 5;

std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

void status(brockett::cuda::Status& out) {
  // None of these needs a driver, and cudaGetDeviceCount says what is wrong with it.
  cudaRuntimeGetVersion(&out.runtime);
  cudaDriverGetVersion(&out.driver);
  cusolverGetVersion(&out.cusolver);
  int major = 0, minor = 0, patch = 0;
  if (cublasGetProperty(MAJOR_VERSION, &major) == CUBLAS_STATUS_SUCCESS &&
      cublasGetProperty(MINOR_VERSION, &minor) == CUBLAS_STATUS_SUCCESS &&
      cublasGetProperty(PATCH_LEVEL, &patch) == CUBLAS_STATUS_SUCCESS) {
    out.cublas = 10000 * major + 100 * minor + patch;
  }
  int devices = 0;
  const cudaError_t error = cudaGetDeviceCount(&devices);
  cudaGetLastError();
  if (error == cudaErrorInsufficientDriver) {
    out.reason = out.driver == 0
                     ? "no NVIDIA driver is running"
                     : "the NVIDIA driver serves CUDA " + version_text(out.driver) + " and is older than the CUDA " +
                           version_text(out.runtime) + " that the plugin needs; update the driver";
  } else if (error != cudaSuccess) {
    out.reason = std::string("the CUDA run time finds no device: ") + cudaGetErrorString(error);
  } else if (devices == 0) {
    out.reason = "no NVIDIA GPU";
  } else {
    out.available = true;
    out.devices = devices;
  }
}

void check_device(int device) {
  int devices = 0;
  check(cudaGetDeviceCount(&devices), "cudaGetDeviceCount");
  if (device < 0 || device >= devices) {
    throw InvalidArgument("device", "is " + std::to_string(device) + ", there are " + std::to_string(devices));
  }
}

brockett::cuda::DeviceInfo device_info(int device) {
  check_device(device);
  const DeviceScope scope(device);
  cudaDeviceProp properties = {};
  check(cudaGetDeviceProperties(&properties, device), "cudaGetDeviceProperties");
  brockett::cuda::DeviceInfo out;
  out.name = properties.name;
  out.major = properties.major;
  out.minor = properties.minor;
  check(cudaMemGetInfo(&out.free_memory, &out.total_memory), "cudaMemGetInfo");
  return out;
}

std::shared_ptr<Backend> make_backend(int device, void* stream) {
  const brockett::cuda::DeviceInfo info = device_info(device);
  if (info.major < kLeastMajor || (info.major == kLeastMajor && info.minor < kLeastMinor)) {
    throw EngineUnavailable("GPU " + std::to_string(device) + " (" + info.name + ") has compute capability " +
                            std::to_string(info.major) + "." + std::to_string(info.minor) + ", 7.5 is the least");
  }
  return std::make_shared<CudaBackend>(device, static_cast<cudaStream_t>(stream));
}

Device& device_of_backend(Backend& backend) { return static_cast<CudaBackend&>(backend).device(); }

void synchronize(Backend& backend) {
  Device& device = device_of_backend(backend);
  const DeviceScope scope(device.ordinal());
  device.wait();
}

void upload(Backend& backend, const void* host, void* to, std::size_t bytes) {
  device_of_backend(backend).upload(host, to, bytes, 1, bytes);
  synchronize(backend);
}

void download(Backend& backend, const void* from, void* host, std::size_t bytes) {
  device_of_backend(backend).download(from, bytes, host, bytes, 1);
}

int device_of(const void* pointer, int likely) {
  // The driver makes a context on the device that is current when it is asked: not on one that nobody uses, if possible.
  int devices = 0;
  check(cudaGetDeviceCount(&devices), "cudaGetDeviceCount");
  std::optional<DeviceScope> scope;
  if (likely >= 0 && likely < devices) scope.emplace(likely);
  cudaPointerAttributes attributes = {};
  if (cudaPointerGetAttributes(&attributes, pointer) != cudaSuccess) {
    cudaGetLastError();
    return -1;
  }
  const bool here = attributes.type == cudaMemoryTypeDevice || attributes.type == cudaMemoryTypeManaged;
  return here ? attributes.device : -1;
}

void synchronize_device(int device) {
  check_device(device);
  const DeviceScope scope(device);
  check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
}

void order(int device, void* first, void* then) {
  if (first == then) return;
  check_device(device);
  const DeviceScope scope(device);
  Event event;
  event.record(static_cast<cudaStream_t>(first));
  event.hold(static_cast<cudaStream_t>(then));
}

constexpr Plugin kPlugin{kAbi,   BROCKETT_VERSION, status,    device_info,        make_backend, synchronize,
                         upload, download,         device_of, synchronize_device, order};

}  // namespace
}  // namespace brockett::linalg::cuda

const brockett::linalg::cuda::Plugin* brockett_cuda_plugin() { return &brockett::linalg::cuda::kPlugin; }
