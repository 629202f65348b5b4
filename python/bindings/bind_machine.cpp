// Version, BLAS, threads, and where the library lies.
#include <dlfcn.h>

#include <chrono>
#include <filesystem>

#include "array_view.hpp"
#include "bindings.hpp"
#include "brockett/cuda.hpp"
#include "brockett/svd.hpp"

namespace brockett::python {

namespace {

Context interruptible(Context context) {
  context.set_interrupt([] {
    // The GIL may be held by busy threads, and taking it then costs a switch interval (5 ms): not more than 20 times a
    // second, however fine the blocks are. Called on the thread that called us, so one clock for each thread.
    using clock = std::chrono::steady_clock;
    thread_local clock::time_point last = clock::now();
    const auto now = clock::now();
    if (now - last < std::chrono::milliseconds(50)) return false;
    last = now;
    py::gil_scoped_acquire locked;
    if (PyErr_CheckSignals() != 0) throw py::error_already_set();
    return false;
  });
  return context;
}

std::string library_folder() {
  Dl_info info{};
  if (dladdr(reinterpret_cast<const void*>(&brockett::version), &info) == 0 || info.dli_fname == nullptr) return "";
  return std::filesystem::absolute(info.dli_fname).lexically_normal().parent_path().string();
}

Dict cuda_status() {
  const cuda::Status s = unlocked([] { return cuda::status(); });
  Dict out;
  out["available"] = s.available;
  out["reason"] = s.reason;
  out["plugin"] = s.plugin;
  out["devices"] = s.devices;
  out["runtime"] = s.runtime;
  out["driver"] = s.driver;
  out["cublas"] = s.cublas;
  out["cusolver"] = s.cusolver;
  return out;
}

Dict cuda_device_info(int device) {
  const cuda::DeviceInfo info = unlocked([&] { return cuda::device_info(device); });
  Dict out;
  out["name"] = info.name;
  out["compute_capability"] = py::make_tuple(info.major, info.minor);
  out["total_memory"] = info.total_memory;
  out["free_memory"] = info.free_memory;
  return out;
}

}  // namespace

Context interruptible() { return interruptible(Context()); }

Context Place::quiet() const { return on_host() ? Context() : cuda::make_context(device, stream); }

Context Place::context() const { return interruptible(quiet()); }

void bind_machine(py::module_& m) {
  m.def("version", [] { return std::string(brockett::version()); }, "Version of libbrockett.");
  m.def("blas_info", &brockett::blas_info, "Name, version, core type, integer width and threads of the BLAS library.");
  m.def("threads", &brockett::threads, "Threads that a call started now would use.");
  m.def("set_threads", &brockett::set_threads, py::arg("count"), "Threads to use; 0: what BLAS is set to.");
  m.def("cuda_status", &cuda_status,
        "Whether the CUDA plugin works, why not, where it lies, devices and versions. Loads it at the first call.");
  m.def("cuda_device_info", &cuda_device_info, py::arg("device"), "Name, compute capability and memory of a device.");
  m.def("add_cuda_library_folder", &cuda::add_library_folder, py::arg("path"),
        "Where NVIDIA's libraries may lie besides the places that the loader knows.");
  m.def(
      "cuda_synchronize",
      [](int device, std::uintptr_t stream) {
        unlocked([&] { cuda::synchronize(Place{device, stream_from(stream)}.quiet()); });
      },
      py::arg("device"), py::arg("stream") = 0, "Wait until all work queued on a stream is done.");
  m.def("lib_dir", &library_folder, "Folder that libbrockett was loaded from.");
}

}  // namespace brockett::python
