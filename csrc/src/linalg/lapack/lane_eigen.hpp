// Eigenvalues of many small symmetric or Hermitian matrices, a matrix to each lane of the vector registers.
#pragma once

#include <vector>

#include "linalg/linalg.hpp"

namespace brockett::linalg::lapack {

/// Householder reduction to tridiagonal form (16/3 n^3 flops a Hermitian matrix, 4/3 n^3 a symmetric one), then the
/// root-free QL iteration of Pal, Walker and Kahan (LAPACK's sterf), of `lanes` matrices at once. Errors are a few
/// n eps ||A||, as LAPACK's; small eigenvalues of graded matrices have no more digits than that.
///
/// One text (lane_eigen_kernel.cpp), compiled for several instruction sets.
struct LaneEigen {
  const char* name;  // of the instruction set
  index_t lanes;  // matrices solved at once
  index_t group;  // of them, as many as fill a register: groups that are missing cost nothing

  /// matrices: packed lower triangles, one group behind the other; of a group all first entries, all imaginary parts of
  /// these (0; not at all where `hermitian` is false), all second entries, and so on. Destroyed. work: n lanes + 8 n group
  /// elements. values: n x lanes, the lanes of one index neighbours, in no order; nothing of use in lanes from `count` on.
  /// Returns the lanes, a bit each, whose iteration did not converge, or to no number. Pointers are aligned to 64 bytes.
  unsigned (*solve)(index_t n, bool hermitian, index_t count, double* matrices, double* work, double* values);
};

/// Those that this processor runs, the widest first.
const std::vector<const LaneEigen*>& lane_eigen();

/// How many symmetric matrices of order n fill the lanes; 1 where n is one for LAPACK.
index_t lane_eigen_batch(index_t n);

/// values + k n <- the eigenvalues, ascending, of A_k + i B_k, or of A_k where B is empty; the lower triangles, `stride`
/// elements apart, are read. Returns the k, ascending, that are left for LAPACK, whose matrices are as they were.
template <class T>
std::vector<index_t> lane_eigenvalues(Mat<const T> A, Mat<const T> B, index_t stride, index_t batch, T* host_values);

/// The same on the lanes of one instruction set, however many matrices there are: what is left did not converge.
template <class T>
std::vector<index_t> lane_eigenvalues(const LaneEigen& e, Mat<const T> A, Mat<const T> B, index_t stride, index_t batch,
                                      T* host_values);

}  // namespace brockett::linalg::lapack
