// Spectra of a convolution: of its periodic operator, and of its channels.
#pragma once

#include <array>
#include <vector>

#include "brockett/context.hpp"
#include "brockett/matrix_view.hpp"

namespace brockett {

struct OperatorParams {
  std::array<index_t, 2> kernel{1, 1};  ///< height, width; sequences have height 1
  std::array<index_t, 2> grid{1, 1};    ///< of the input, wrapped around; a larger kernel is wrapped too
  std::array<index_t, 2> stride{1, 1};  ///< must divide the grid
  index_t groups = 1;
  /// Only the largest values; 0: all. Transfer matrices that cannot hold one of them are found by an upper bound, the
  /// Frobenius norm of powers of their Gram matrices, and are not decomposed.
  index_t top = 0;
};

struct OperatorSpectrum {
  std::vector<double> values;  ///< descending, each as often as it occurs
  index_t n_transfer = 0;  ///< transfer matrices, of half the frequencies (the others are their conjugates)
  index_t n_solved = 0;  ///< those whose eigenvalues were computed
};

/// Singular values of the periodic convolution with the kernel K (out, in / groups k1 k2), unfolded in the order (channel,
/// row, column), over a grid: those of the matrix of out (n1 / s1)(n2 / s2) rows and in n1 n2 columns.
///
/// A stride s makes an input channel s1 s2 channels, one for each residue of the positions, over the grid n / s; the
/// Fourier transform then takes the operator apart into one r x R transfer matrix H(f) = sum_q K_q exp(-i f.q) for each
/// frequency, r <= R (Sedghi, Gupta, Long 2019). Values are the roots of the eigenvalues of H H^*, summed in float64, so that
/// those below 1e-7 of the largest are rounding; O(n1 n2 / (s1 s2)) eigenproblems of order r, half of them by symmetry.
template <class T>
OperatorSpectrum operator_singular_values(const Context& context, MatrixView<const T> K, const OperatorParams& params);

/// W W^T (out, out) of the unfolded kernel W, float64: the mean of H(f) H(f)^* over all frequencies of a grid.
template <class T>
Array<double> channel_gram(const Context& context, MatrixView<const T> W);

extern template BROCKETT_EXPORT OperatorSpectrum operator_singular_values(const Context&, MatrixView<const float>,
                                                                          const OperatorParams&);
extern template BROCKETT_EXPORT OperatorSpectrum operator_singular_values(const Context&, MatrixView<const double>,
                                                                          const OperatorParams&);
extern template BROCKETT_EXPORT Array<double> channel_gram(const Context&, MatrixView<const float>);
extern template BROCKETT_EXPORT Array<double> channel_gram(const Context&, MatrixView<const double>);

}  // namespace brockett
