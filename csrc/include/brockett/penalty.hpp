// The quadratic penalty A that a descrambler makes small: its matrix, eigenvalues and eigenbasis.
#pragma once

#include <vector>

#include "brockett/context.hpp"
#include "brockett/matrix_view.hpp"

namespace brockett {

enum class Boundary { periodic, neumann };

/// A penalty x^T A x on the outputs x of a layer of n neurons; A = D^T D where there is an operator D.
///
/// A plain description, made by the functions below; it is evaluated at a given n by eigenvalues(), basis(), matrix().
struct Penalty {
  enum class Kind { fourier, difference, grid, matrix } kind = Kind::fourier;
  /// fourier, grid: multiplier |k|^order. difference: number of differences taken (an integer).
  double order = 2;
  Boundary boundary = Boundary::periodic;  ///< difference and grid
  std::vector<index_t> shape;  ///< grid: the shape that the n = prod(shape) neurons are laid out in, row-major
  std::vector<double> A;  ///< matrix: n^2 entries, symmetric
  index_t n = 0;  ///< matrix: its size; others serve any n
  int power = 1;  ///< matrix: the penalty is A^power
};

/// Spectral derivative of any order >= 0 on n periodic points: D = T diag(|k|^order) T^T, T the real Fourier modes with
/// k = 0, 1, 1, 2, 2, …; A has eigenvalues k^(2 order), known without an eigensolver (integers for order 2: k^4).
BROCKETT_EXPORT Penalty fourier_derivative(double order = 2);
/// `order` compact differences. Periodic: eigenvalues (4 sin^2(pi k / n))^order, Fourier modes. Neumann (even
/// reflection at both ends): (4 sin^2(pi k / 2n))^order, k = 0 … n-1, the DCT-II basis, all eigenvalues distinct.
BROCKETT_EXPORT Penalty finite_difference(int order = 2, Boundary boundary = Boundary::periodic);
/// A = L^power of a graph Laplacian L (n, n) in host memory, symmetric with rows that sum to zero.
BROCKETT_EXPORT Penalty graph_laplacian(MatrixView<const double> L, int power = 1);
/// Neurons on a grid of any number of axes: A = (sum over the axes of the squared first derivative)^order as a Kronecker
/// sum; eigenvalues (k_1^2 + k_2^2 + …)^order. Periodic: Fourier modes in each axis; Neumann: DCT-II with k -> pi k / n.
BROCKETT_EXPORT Penalty grid(std::vector<index_t> shape, double order = 2, Boundary boundary = Boundary::periodic);
/// Any symmetric A (n, n) in host memory.
BROCKETT_EXPORT Penalty custom(MatrixView<const double> A);

/// Eigenvalues of A in ascending order, n numbers; exact for the closed forms. InvalidArgument if n does not fit.
BROCKETT_EXPORT std::vector<double> eigenvalues(const Context& context, const Penalty& penalty, index_t n);
/// Orthonormal eigenvectors T (n, n) in columns, in the order of eigenvalues(). Row-major. Frequency pairs: cosine, sine.
BROCKETT_EXPORT Array<double> basis(const Context& context, const Penalty& penalty, index_t n);
/// A (n, n) = T diag(eigenvalues) T^T. Row-major.
BROCKETT_EXPORT Array<double> matrix(const Context& context, const Penalty& penalty, index_t n);

}  // namespace brockett
