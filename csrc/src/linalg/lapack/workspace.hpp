// Sizes of LAPACK workspaces and the meaning of `info`.
#pragma once

#include <cmath>
#include <string>

#include "linalg/lapack/blas.hpp"
#include "linalg/lapack/memory.hpp"

namespace brockett::linalg::lapack {

/// The length that a workspace query wrote into a floating-point number. Older LAPACKs round it to nearest, in float
/// off by up to 1e9 at 1e16: one step up is never too little.
template <class T>
blas_int queried_size(T answer, const char* routine) {
  const double above = std::nextafter(answer, std::numeric_limits<T>::infinity());
  if (above >= 0x1p62) throw Unsupported(std::string(routine) + ": workspace overflows 64-bit integers");
  return std::max<blas_int>(1, to_blas(static_cast<index_t>(above), routine));
}

/// A negative `info` says that an argument was wrong, and every argument is ours.
inline void check_arguments(blas_int info, const char* routine) {
  if (info < 0) {
    throw Error("brockett defect: argument " + std::to_string(-info) + " of LAPACK's " + routine + " is wrong");
  }
}

/// call(work, lwork) twice: with lwork = -1 to ask for the length, then with a workspace of that length. It checks `info`.
template <class T, class Call>
void with_workspace(const char* routine, Call&& call) {
  T answer = 0;
  call(&answer, blas_int{-1});
  const blas_int lwork = queried_size(answer, routine);
  call(Scratch<T>(lwork).data(), lwork);
}

}  // namespace brockett::linalg::lapack
