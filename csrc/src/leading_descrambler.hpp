// The descrambler of the leading directions alone: the spectrum beyond them is one cluster, which the gauge moves as little
// as it can. P differs from P0 by a matrix of low rank, and is found without the vectors of that cluster.
//
// P maps A = span(U_r) onto B = span(T_r), and the complement of A onto that of B in whatever way is nearest to P0. Let P0 = I
// (else P0^T P, P0^T T). On the complement of Z = A + B the identity does that, for every choice within A and B: it is in the
// complement of both. What is left is the same problem in Z, of at most 2 r dimensions: in an orthonormal basis Q of Z whose
// first r columns are U_r, the modes Q^T T_r are completed to z columns, their overlap decides the gauge as it does in n
// dimensions, and P = I + Q (P_z - I) Q^T. Where r cuts a block of equal penalty, the whole block goes into Z: which of its
// directions belongs to the leading ones is the gauge's choice.
//
// With T = I in place of the modes this is the direct rotation of Davis and Kahan (SIAM J. Numer. Anal. 7 (1970) 1) between
// two subspaces, whose tail the canonical gauge wants: for A = U_r Y and E = I_r X aligned by I_r^T U_r = X cos(Theta) Y^T,
// I - (E + A) (1 + cos Theta)^-1 (E + A)^T + 2 A E^T; no sine is divided by.
#pragma once

#include <vector>

#include "linalg/buffer.hpp"
#include "penalty_basis.hpp"

namespace brockett {

/// P^T = (I + F G^T) B, with B = I, P0^T or T^T.
struct LeadingDescrambler {
  enum class Base { identity, reference, modes } base = Base::identity;
  linalg::Buffer<double> F, G;  // n x z
  linalg::Buffer<double> P0;  // Base::reference: n x n, orthogonal to rounding
  double conditioning = 0;  // as Gauge's; NaN for the canonical gauge
};

/// z, the dimensions of the reduced problem: r and the modes that it needs. Where they are not below n nothing is reduced.
index_t reduced_order(const PenaltyBasis& basis, index_t r);

/// The minimiser nearest to P0 (an empty buffer: to I). U (n x r): the leading eigenvectors, `clusters` the starts of their runs
/// of equal variance, r at the end. `special`: of positive determinant. 4 n z^2 + O(z^3) flops and z FFTs of n, z = reduced_order.
LeadingDescrambler nearest_leading(const Context& context, const PenaltyBasis& basis, linalg::Mat<const double> U,
                                   const std::vector<index_t>& clusters, linalg::Buffer<double> P0, bool special);

/// P = T U^T with the leading vectors fixed by themselves and the others nearest to the coordinate axes of their positions.
/// `special`: the last one reversed where the determinant is negative, for which P is factorized, 2/3 n^3 flops.
LeadingDescrambler canonical_leading(const Context& context, const PenaltyBasis& basis, linalg::Mat<const double> U,
                                     const std::vector<index_t>& clusters, bool special);

/// P^T (n x n): 2 n^2 z flops, and what its base costs: n FFTs of n for T, 2 n^2 z for P0.
linalg::Buffer<double> transposed(const Context& context, const PenaltyBasis& basis, const LeadingDescrambler& P);

/// P0 (n x n, row-major or column-major, orthogonal to 1e-6) as a column-major matrix that is orthogonal to rounding: its polar
/// factor by Newton and Schulz, from none to four steps of 4 n^3 flops.
linalg::Buffer<double> orthogonal_reference(const Context& context, MatrixView<const double> P0);

}  // namespace brockett
