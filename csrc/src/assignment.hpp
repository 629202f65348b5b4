// The linear assignment problem: who takes what, at the least total cost.
#pragma once

#include <span>
#include <vector>

#include "brockett/matrix_view.hpp"

namespace brockett {

/// order minimising sum_i cost[i, order_i] over the permutations of n; cost (n, n) row-major, finite.
///
/// Shortest augmenting paths with column reduction, reduction transfer and augmenting row reduction: O(n^3) at worst,
/// near O(n^2 log n) on matrices without structure; n^2 reads per pass, 6 n numbers of memory. Among equal optima the
/// answer depends on the entries alone. InvalidArgument if cost is not n x n. Source: R. Jonker, A. Volgenant,
/// Computing 38 (1987) 325, doi 10.1007/BF02278710.
std::vector<index_t> solve_assignment(std::span<const double> cost, index_t n);

/// The same, starting from the column duals v (n) of a similar problem, any numbers, and leaving there those of this
/// one: cost_ij >= u_i + v_j for some u, with equality along the order.
std::vector<index_t> solve_assignment(std::span<const double> cost, index_t n, std::vector<double>& duals);

}  // namespace brockett
