// Eigenvectors of a symmetric tridiagonal matrix to given eigenvalues.
#pragma once

#include "linalg/linalg.hpp"

namespace brockett::linalg::lapack {

/// Columns of V (n x count) <- unit vectors x with ||T x - values_j x|| at rounding level, T = tridiag(e, d, e), by inverse
/// iteration from random starts, several eigenvalues at once: O(n count). Vectors of eigenvalues closer than rounding are
/// independent but not orthogonal; those of distant ones are. What failed, or overflowed to NaN, shows in the residual.
template <class T>
void tridiagonal_vectors(const T* d, const T* e, const T* values, Mat<T> V);

/// values_j <- x_j^T T x_j for the columns x_j of V: what is left of ||T x_j - values_j x_j||_2 at most, in units of the power
/// of two above the largest entry of T; NaN where any of them is.
template <class T>
double rayleigh_quotients(const T* d, const T* e, Mat<const T> V, T* values);

}  // namespace brockett::linalg::lapack
