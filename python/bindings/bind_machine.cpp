// Version, BLAS, threads, and where the library lies.
#include <dlfcn.h>

#include <chrono>
#include <filesystem>

#include "array_view.hpp"
#include "bindings.hpp"
#include "brockett/svd.hpp"

namespace brockett::python {

Context interruptible() {
  Context context;
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

namespace {

std::string library_folder() {
  Dl_info info{};
  if (dladdr(reinterpret_cast<const void*>(&brockett::version), &info) == 0 || info.dli_fname == nullptr) return "";
  return std::filesystem::absolute(info.dli_fname).lexically_normal().parent_path().string();
}

}  // namespace

void bind_machine(py::module_& m) {
  m.def("version", [] { return std::string(brockett::version()); }, "Version of libbrockett.");
  m.def("blas_info", &brockett::blas_info, "Name, version, core type, integer width and threads of the BLAS library.");
  m.def("threads", &brockett::threads, "Threads that a call started now would use.");
  m.def("set_threads", &brockett::set_threads, py::arg("count"), "Threads to use; 0: what BLAS is set to.");
  m.def("lib_dir", &library_folder, "Folder that libbrockett was loaded from.");
}

}  // namespace brockett::python
