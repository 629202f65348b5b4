// Who may use how many threads: our own workers, and the threads of the BLAS library.
#pragma once

#include <functional>
#include <memory>

#include "linalg/linalg.hpp"

namespace brockett::linalg::lapack {

/// While the token lives, BLAS runs on at most `count` threads; the smallest request in the process wins. The setting
/// found when the first token appears is the user's and is put back when the last one goes, unless somebody changed
/// it meanwhile.
std::shared_ptr<void> limit_blas_threads(int count);

/// Threads that the user set BLAS to (OPENBLAS_NUM_THREADS, threadpoolctl), whatever tokens live; 0 where it cannot
/// be asked.
int blas_threads();
/// Threads that a call into BLAS started now would use; 0 where it cannot be asked.
int blas_threads_in_force();
/// What threadpoolctl does; nothing where this BLAS cannot be told.
void set_blas_threads(int count);

/// Backend::thread_scope: one thread below order 1024, where a second one hardly pays, threads() from there on.
std::shared_ptr<void> threads_for_order(index_t n);

/// Backend::narrow_scope.
std::shared_ptr<void> share_narrow_products();
/// Workers that a product with a large matrix is divided among in this thread: 1 outside such a scope.
int narrow_workers();

/// Backend::for_each.
void run_on_workers(index_t count, const std::function<void(index_t)>& f, const std::function<void()>& poll);

}  // namespace brockett::linalg::lapack
