// A backend whose memory only the primitives may touch: what a GPU demands of the algorithms, on a machine without one.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>

#include "brockett/context.hpp"
#include "brockett/error.hpp"
#include "linalg/linalg.hpp"

namespace brockett::test {

/// The host backend behind a wall. Memory that it allocates
///
/// * cannot be read or written by anybody but a primitive that was given a pointer into it, while that primitive runs:
///   all else ends in SIGSEGV and a line on stderr that says so;
/// * cannot be written by a primitive that was given it as input;
/// * ends at a page that faults, and is never used again once freed;
/// * starts as NaN.
///
/// A primitive throws std::logic_error where a device argument is not inside one live allocation, a host argument is
/// device memory, shapes do not fit, or an output overlaps another argument.
class GuardedBackend : public linalg::Backend {
 public:
  virtual std::size_t live_allocations() const = 0;
  /// Calls of allocate() so far, of more than 0 bytes.
  virtual std::size_t allocations() const = 0;
  /// The allocation after `count` more good ones throws OutOfMemory, once.
  virtual void fail_allocation_after(std::size_t count) = 0;
  /// No failure after all; was one still to come?
  virtual bool cancel_failure() = 0;
};

std::shared_ptr<GuardedBackend> make_guarded_backend();

/// Does p point into the memory of any guarded backend, freed or not?
bool is_guarded(const void* p);

/// Run `f` with the first allocation failing, then the second, … until it gets through; how many failures that took.
/// Each failing run must throw OutOfMemory and leave nothing allocated behind (std::logic_error otherwise).
std::size_t sweep_failing_allocations(GuardedBackend& backend, const std::function<void()>& f);

}  // namespace brockett::test
