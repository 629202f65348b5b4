// Streams and events, and who is known to come before whom.
//
// BROCKETT_SHIM_MODE says when work runs:
//   eager     in the call that enqueues it
//   deferred  at a synchronisation and not before: whatever one it is, all streams run then, the newest first
//   guard     as deferred, but a synchronisation runs only what it waits for, and device memory is closed to the host
//             except while work runs
// Between the two orders a missing wait shows: work that is too early in one is too late in the other.
//
// Beside that, every stream and the host keep a vector clock: for each stream the last piece of work that is certain to
// be done before whatever comes next. What the clocks do not order is not ordered, in any mode.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <string>

namespace cuda_shim {

enum class Mode { eager, deferred, guard };
Mode mode();

/// One lock for all of the shim, taken by every entry point.
std::recursive_mutex& lock();

/// A piece of work: number `index` of stream `stream`.
struct Ticket {
  std::uint64_t stream = 0;
  std::uint64_t index = 0;
};
using Clock = std::map<std::uint64_t, std::uint64_t>;

struct Stream;
/// The stream of a handle (null, cudaStreamLegacy and cudaStreamPerThread of the current device too); ends the program
/// where it was destroyed, naming `function`.
Stream& stream_of(cudaStream_t handle, const char* function);
int device_of(const Stream& stream);

/// Work at the end of a stream.
Ticket enqueue(Stream& stream, std::function<void()> work);
/// Is `ticket` certain to be done before what comes next in `stream`, or before what the host does next?
bool ordered(const Stream& stream, Ticket ticket);
bool ordered_for_host(Ticket ticket);
/// Wait for a stream, a ticket, a device.
void finish(Stream& stream);
void finish(Ticket ticket);
void finish_device(int device);
/// Has it run? (No promise to anybody: for cudaStreamQuery and the like.)
bool done(Ticket ticket);
Ticket last(const Stream& stream);

// --- the rest of what a test can set or read ----------------------------------------------------------------------------
[[noreturn]] void die(const std::string& message);
/// Count the call; a status to be returned at once, or 0.
int enter(const char* function);
/// `info` that this call of a solver must report, or 0.
int injected_info(const char* function);
/// False when this allocation (of memory, or of a handle) is the one that fails.
bool may_allocate();
void handle_created();
void handle_destroyed();

int current_device();
int device_count();
std::size_t total_memory();
cudaError_t driver_state();
int driver_version();
/// BROCKETT_SHIM_NO_POOLS=1 says no.
bool has_pools();

}  // namespace cuda_shim
