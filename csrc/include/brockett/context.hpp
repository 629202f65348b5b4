// Where the work is done: backend, threads, interrupts.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "brockett/export.hpp"

namespace brockett {

namespace linalg {
class Backend;
}

/// What every function of brockett takes first: a backend, and a check that may stop long work.
///
/// Cheap to copy; copies share the backend. A default Context computes on the host with BLAS and LAPACK.
/// A Context may be used from several threads at once.
class BROCKETT_EXPORT Context {
 public:
  /// The host backend.
  Context();
  /// For backends outside libbrockett.
  explicit Context(std::shared_ptr<linalg::Backend> backend);

  /// `check` is called between blocks, iterations and LAPACK calls, from the calling thread alone; when it returns
  /// true the work stops with `Interrupted`. It may throw an exception of its own instead.
  void set_interrupt(std::function<bool()> check) { interrupt_ = std::move(check); }
  /// Throws Interrupted when the check says so.
  void check_interrupt() const;

  linalg::Backend& backend() const { return *backend_; }
  const std::shared_ptr<linalg::Backend>& shared_backend() const { return backend_; }

 private:
  std::shared_ptr<linalg::Backend> backend_;
  std::function<bool()> interrupt_;
};

/// Threads that brockett may use: workers over independent matrices or over the parts of a product with few columns, or
/// BLAS threads on one large matrix.
///
/// 0 (the default) takes what the BLAS library is set to (OPENBLAS_NUM_THREADS, threadpoolctl), at most the number of
/// cores this process may run on. Process-wide.
BROCKETT_EXPORT void set_threads(int count);
/// The number of threads a call started now would use.
BROCKETT_EXPORT int threads();

/// Run f(0) … f(count-1), independent of each other, on the workers of the context, with BLAS at one thread meanwhile.
///
/// The interrupt check runs on the calling thread: `f` must use a Context without one. The exception of the lowest
/// failing index is rethrown after all have stopped.
BROCKETT_EXPORT void parallel_for(const Context& context, std::int64_t count,
                                  const std::function<void(std::int64_t)>& f);

/// Version of libbrockett, "major.minor.patch".
BROCKETT_EXPORT const char* version();
/// What the BLAS library says of itself: name, version, core type, integer width, threads.
BROCKETT_EXPORT std::string blas_info();

}  // namespace brockett
