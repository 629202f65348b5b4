// Contexts on NVIDIA GPUs. libbrockett knows nothing of CUDA: what is declared here opens libbrockett_cuda on first use.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "brockett/context.hpp"
#include "brockett/matrix_view.hpp"

namespace brockett::cuda {

/// Whether there is a GPU to compute on, and why not.
struct Status {
  bool available = false;
  std::string reason;  ///< why it is not available; empty where it is
  std::string plugin;  ///< the file of the plugin, found or not
  int devices = 0;
  /// Versions: CUDA run time and driver as 1000 major + 10 minor, the libraries in their own counting; 0 where unknown.
  int runtime = 0, driver = 0, cublas = 0, cusolver = 0;
};

struct DeviceInfo {
  std::string name;
  int major = 0, minor = 0;  ///< compute capability
  std::size_t total_memory = 0, free_memory = 0;  ///< bytes
};

/// Never throws. The first call looks for a driver, and only where there is one opens the plugin, which maps cuBLAS and
/// cuSOLVER (0.2 s); later calls tell what the first one found.
BROCKETT_EXPORT Status status();

/// EngineUnavailable with the reason; InvalidArgument "device".
BROCKETT_EXPORT DeviceInfo device_info(int device);

/// A context on `device`, whose work is queued on `stream` (a cudaStream_t; null: the legacy default stream). What is
/// handed to it must be memory of that device, ready in the order of that stream, and so are its results. The stream must
/// outlive the context and them.
///
/// Handles and memory pools are kept per (device, stream): a second call costs a look-up. EngineUnavailable with the
/// reason; InvalidArgument "device".
BROCKETT_EXPORT Context make_context(int device = 0, void* stream = nullptr);

/// Waits for all that is queued on the stream of the context.
BROCKETT_EXPORT void synchronize(const Context& context);

/// Waits for all that is queued on all streams of a device.
BROCKETT_EXPORT void synchronize_device(int device);

/// One more folder in which NVIDIA's libraries may lie (libcublas.so.13 and others), looked through after the process
/// itself, the folders beside the plugin and those of the loader. To be called before the first status().
BROCKETT_EXPORT void add_library_folder(const std::string& path);

/// Device memory of the context, freed with its last owner; OutOfMemory names the size.
BROCKETT_EXPORT std::shared_ptr<void> allocate(const Context& context, std::size_t bytes);
/// `bytes` from the host to the device, behind what is queued; they have arrived when this returns.
BROCKETT_EXPORT void upload(const Context& context, const void* host, void* device, std::size_t bytes);
/// The reverse.
BROCKETT_EXPORT void download(const Context& context, const void* device, void* host, std::size_t bytes);
/// A column-major rows x cols matrix of any type into one of float32 or float64, both on the device, rounded to nearest.
BROCKETT_EXPORT void convert(const Context& context, DType from, const void* source, index_t source_ld, DType to,
                             void* target, index_t target_ld, index_t rows, index_t cols);
/// The device whose memory this is (managed memory: the one it prefers), or -1 for memory that is no device's. Asking makes a
/// context on the device `likely`, or on the thread's current one.
BROCKETT_EXPORT int device_of(const void* pointer, int likely = -1);
/// What is queued on stream `then` from now on waits for all that is queued on stream `first`; both of one device.
BROCKETT_EXPORT void order(int device, void* first, void* then);

}  // namespace brockett::cuda
