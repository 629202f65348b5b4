// Exceptions of libbrockett become those of brockett._errors.
#include <new>

#include "array_view.hpp"
#include "bindings.hpp"

namespace brockett::python {
namespace {

template <class... Args>
void raise(const char* type, Args&&... args) {
  try {
    const py::object error = py::module_::import("brockett._errors").attr(type)(std::forward<Args>(args)...);
    PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(error.ptr())), error.ptr());
  } catch (py::error_already_set& failed) {
    failed.restore();
  }
}

void translate(std::exception_ptr p) {
  if (!p) return;
  try {
    std::rethrow_exception(p);
  } catch (const NonFinite& e) {
    raise("NonFinite", e.argument(), py::make_tuple(e.row(), e.column()));
  } catch (const InvalidArgument& e) {
    // what() is "argument: message", and the Python class joins them itself.
    raise("InvalidArgument", e.argument(), std::string(e.what()).substr(e.argument().size() + 2));
  } catch (const NotConverged& e) {
    raise("NotConverged", e.what());
  } catch (const OutOfMemory& e) {
    raise("OutOfMemory", e.what());
  } catch (const Unsupported& e) {
    raise("Unsupported", e.what());
  } catch (const EngineUnavailable& e) {
    raise("EngineUnavailable", e.what());
  } catch (const Interrupted&) {
    PyErr_SetNone(PyExc_KeyboardInterrupt);
  } catch (const Error& e) {
    raise("BrockettError", e.what());
  } catch (const std::bad_alloc&) {
    raise("OutOfMemory", "memory for a result could not be had");
  }
}

}  // namespace

void bind_errors(py::module_&) { py::register_local_exception_translator(translate); }

}  // namespace brockett::python
