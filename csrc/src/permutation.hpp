// The permutation descrambler: the order of n neurons that makes their outputs smoothest, and a bound on how smooth.
//
// eta(p) = sum_ij A_ij C_{p_i p_j} = tr(A P C P^T), row i of P being e_{p_i}: a quadratic assignment problem, so a good
// order and a lower bound, not the optimum. Everything here is host memory, float64, row-major and packed.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "brockett/matrix_view.hpp"

namespace brockett {

namespace linalg {
template <class T>
class LinAlg;
}

/// The dense algebra that the search leans on, on host memory. All matrices are symmetric or row-major.
struct HostAlgebra {
  /// C <- A B; A, B, C (n, n), no overlap.
  std::function<void(const double* A, const double* B, double* C, index_t n)> multiply;
  /// The n eigenvalues of A (n, n) symmetric, ascending; A is destroyed.
  std::function<void(double* A, index_t n, double* values)> eigenvalues;
  /// The `count` largest eigenvalues, descending, and unit eigenvectors in the rows of V (count, n); A is destroyed.
  std::function<void(double* A, index_t n, index_t count, double* values, double* V)> eigen_largest;
};

/// The above on the primitives of a backend, by way of its memory; `la` must outlive it.
HostAlgebra host_algebra(linalg::LinAlg<double>& la);

struct PermutationParams {
  /// A_ij depends on (j - i) mod n alone: the cost does not change under rotations and reflections of the order, and
  /// the order is returned in the gauge p_0 = 0, p_1 < p_{n-1}. See is_circulant().
  bool circulant = false;
  /// The randomized starts; start k reads the uniform numbers k n^2 … (k + 1) n^2 - 1 of this Philox stream.
  std::uint64_t seed = 0;
  int starts = 8;
  /// A cap on the sweeps of the local search from each start; a sweep is one pass of exchanges, and
  /// of insertions and reversals where those have little left to do.
  int max_sweeps = 1000;
  /// Up to this n every order is tried, and the cost is the minimum. 8 takes 3 ms, each one more n times as long.
  index_t exhaustive_up_to = 8;
  /// Eigenvalues of A in any order, where they are known: saves an eigendecomposition if A 1 = 0. Else empty.
  std::span<const double> penalty_eigenvalues;
};

struct PermutationSearch {
  std::vector<index_t> order;  ///< neuron order[i] comes i-th
  double cost = 0;  ///< eta(order)
  double bound = 0;  ///< no order costs less: the projection bound, or the cost itself if less by rounding
  bool exact = false;  ///< every order was tried
  int starts = 0;  ///< orders that were polished, randomized or not
};

/// A good order for eta(p) = sum_ij A_ij C_{p_i p_j}; A and C (n, n) symmetric, n >= 1.
///
/// The best of several starts: the identity; for circulant A the angles of the neurons in the plane of the two leading
/// eigenvectors of the centred C, and the order along the smoothest eigenvector of their neighbourhood graph, folded
/// around the ring; for other A the reversed order, and the three best alignments of the two smoothest eigenvectors of
/// A with those of that graph; and `starts` Frank-Wolfe descents with exact line search from random doubly stochastic
/// matrices, over tr((A - a I) P C P^T). Each is polished by exchanges, insertions and segment reversals until none of
/// them helps. The a I, a constant on permutations, matters: with A positive semidefinite the relaxation is convex with
/// its minimum at the barycentre, which knows no order; a near tr A / n leaves saddles whose descent ends at good
/// vertices.
///
/// Cost per start: about 40 assignment problems and 100 products of n; 9 n^2 numbers of memory. What is done is cut by
/// n alone, never by the clock: see the constants in permutation.cpp. With 8 starts at one thread: 0.03 s at n = 64,
/// 2.5 s at 256; cut from there on, 5 s at 512, 25 s at 1024, 15-30 s at 2048. Same seed, same order, up to ties in
/// rounding. `poll` is called between blocks of work and may throw. InvalidArgument where sizes do not fit, NonFinite
/// where A or C is not.
/// Sources: J. T. Vogelstein et al., PLoS ONE 10 (2015) e0121002 (FAQ); J. E. Atkins et al., SIAM J. Comput. 28 (1998)
/// 297 (spectral seriation); M. Belkin, P. Niyogi, Neural Comput. 15 (2003) 1373 (neighbourhood graph); S. W. Hadley,
/// F. Rendl, H. Wolkowicz, Math. Oper. Res. 17 (1992) 727 (bound).
PermutationSearch search_permutation(std::span<const double> A, std::span<const double> C, index_t n,
                                     const PermutationParams& params, const HostAlgebra& algebra,
                                     const std::function<void()>& poll = {});

/// A lower bound on eta over all permutations, from the permutations being orthogonal with row and column sums 1:
/// <lambda(V^T A V) ascending, lambda(V^T C V) descending> + (2/n) <r(A) ascending, r(C) descending> - s(A) s(C) / n^2,
/// V (n, n-1) an orthonormal basis of the complement of 1, r the row sums, s their total. Two eigenvalue problems.
double projection_bound(std::span<const double> A, std::span<const double> C, index_t n, const HostAlgebra& algebra,
                        std::span<const double> penalty_eigenvalues = {});

/// sum_ij A_ij C_{p_i p_j}.
double permutation_cost(std::span<const double> A, std::span<const double> C, std::span<const index_t> order);

/// Descend from `order` by single moves until no exchange, insertion or reversal helps, at most max_sweeps sweeps.
void polish_permutation(std::span<const double> A, std::span<const double> C, index_t n, int max_sweeps,
                        const HostAlgebra& algebra, std::vector<index_t>& order,
                        const std::function<void()>& poll = {});

/// Whether A_ij depends on (j - i) mod n alone, to 1e-10 of its largest entry.
bool is_circulant(std::span<const double> A, index_t n);

/// Rotate and reflect a cyclic order so that p_0 = 0 and p_1 < p_{n-1}.
void fix_dihedral_gauge(std::vector<index_t>& order);

}  // namespace brockett
