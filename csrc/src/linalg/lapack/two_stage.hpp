// Eigenvalues of a symmetric matrix by way of a band matrix: nearly all of the first stage is matrix products, where the
// reduction to tridiagonal form in one stage is half matrix-vector products, which wait for memory (Bischof, Lang and Sun 2000;
// Haidar, Ltaief and Dongarra 2011).
#pragma once

#include "linalg/linalg.hpp"

namespace brockett::linalg::lapack {

/// Whether LAPACK has the stages: from 3.7 on.
template <class T>
bool has_two_stages();

/// values <- the eigenvalues of A, whose squares do not leave the range of T, ascending. The lower triangle is read and
/// destroyed. Returns LAPACK's info: how many off-diagonal entries did not vanish.
template <class T>
index_t two_stage_eigenvalues(Mat<T> A, T* values);

}  // namespace brockett::linalg::lapack
