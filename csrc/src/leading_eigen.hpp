// The largest eigenvalues of second moments, and their vectors.
#pragma once

#include <vector>

#include "brockett/context.hpp"
#include "linalg/buffer.hpp"

namespace brockett {

struct LeadingEigen {
  linalg::Buffer<double> U;    // (n x count), in columns
  std::vector<double> values;  // descending
  double smallest = 0;         // of all that were met: below 0 where C is indefinite, as far as that was noticed
  index_t columns = 0;         // that block Lanczos multiplied by C; 0 where C was decomposed
};

enum class LeadingMethod { automatic, krylov, direct };

/// C U = U diag(values), the `count` largest of a symmetric positive semidefinite C (n x n, full), to 1e-13 of the first.
/// Block Lanczos on C itself, in some 2 to 10 count products of C with a vector, more of them for a bulk of eigenvalues (their
/// sum and the sum of their squares tell), where that is cheaper than the reduction to tridiagonal form, 4/3 n^3 flops, half of
/// them at the speed of memory; and that one where Lanczos does not get there.
/// `noise` as in check_semidefinite: an eigenvalue below what it allows is found by the decomposition whatever it is, by
/// Lanczos where it shows among the Ritz values.
LeadingEigen leading_eigen(const Context& context, linalg::Mat<const double> C, index_t count, double noise = 0,
                           LeadingMethod method = LeadingMethod::automatic);

}  // namespace brockett
