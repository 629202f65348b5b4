// How much of a descrambler the samples fixed: perturbation of eigenvectors to first order.
#pragma once

#include <vector>

#include "preactivations.hpp"

namespace brockett {

/// What is known of a spectrum: its largest variances, and how much there is beyond them.
struct KnownSpectrum {
  std::vector<double> variances;  // descending
  std::vector<index_t> ties;      // starts of the runs of equal ones, and their number at the end
  // of those that are not known, where there are any: their sum, and a bound on each of them
  bool complete = true;
  double rest = 0;
  double next = 0;
};

/// Sampling error of the subspace of each block: sqrt(E ||sin Theta_b||^2), at most sqrt(block size), with
/// E ||sin Theta_b||^2 = (1/N) sum_{i in b, j not in b} m_ij / (s_i - s_j)^2, m_ij = s_i s_j for Gaussian samples,
/// E[z_i^2 z_j^2] of the principal components z in general; infinite where s_i and s_j are tied. What is not known enters by
/// its bound: (1/N) sum_i m_i / (s_i - next)^2, m_i = s_i rest, or E[z_i^2 (|y|^2 - sum_j z_j^2)]; blocks beyond what is
/// known have nothing to tell them apart. `moments` as from fourth_moments; empty: Gaussian.
std::vector<double> block_errors(const KnownSpectrum& spectrum, const std::vector<index_t>& blocks, index_t n_samples,
                                 const std::vector<double>& moments);

/// E[z_i^2 z_j^2] of z = U^T (y - mean) / sigma_1 for the columns of U (n x r), lower triangle column-major on the host. With
/// r < n there is a last row for what is left of |y - mean|^2 / sigma_1^2: (r + 1) x (r + 1).
std::vector<double> fourth_moments(const Preactivations::Impl& y, linalg::Mat<const double> U, double variance);

}  // namespace brockett
