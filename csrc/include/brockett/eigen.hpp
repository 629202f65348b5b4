// Eigenvalues and eigenvectors of symmetric matrices.
#pragma once

#include <vector>

#include "brockett/context.hpp"
#include "brockett/matrix_view.hpp"

namespace brockett {

/// Which triangle of a symmetric matrix is read; the other one may hold anything.
enum class Triangle { lower, upper };

/// A = V diag(values) V^T.
template <class T>
struct SymmetricEigen {
  std::vector<double> values;  ///< n, ascending
  Array<T> vectors;  ///< V (n, n), row-major, eigenvectors in its columns; empty where they were not asked for
};

/// All eigenvalues, and with `vectors` all eigenvectors, of the symmetric matrix of which A (n, n) holds one triangle. A is
/// not changed. 9 n^3 flops with vectors (LAPACK syevd), 4/3 n^3 without (two-stage from n = 2200 on, where LAPACK has it);
/// one copy of A beside what LAPACK takes. NonFinite names the first NaN or Inf of the triangle.
template <class T>
SymmetricEigen<T> eigen_symmetric(const Context& context, MatrixView<const T> A, Triangle triangle = Triangle::lower,
                                  bool vectors = true);

extern template BROCKETT_EXPORT SymmetricEigen<float> eigen_symmetric(const Context&, MatrixView<const float>, Triangle,
                                                                      bool);
extern template BROCKETT_EXPORT SymmetricEigen<double> eigen_symmetric(const Context&, MatrixView<const double>,
                                                                       Triangle, bool);

}  // namespace brockett
