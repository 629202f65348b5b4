// Singular value decompositions with a measured residual.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "brockett/context.hpp"
#include "brockett/matrix_view.hpp"

namespace brockett {

struct SvdParams {
  /// `exact`: LAPACK gesdd (gesvd where it fails). `gram`: eigenvectors of the smaller Gram matrix in float64.
  /// `quick`: randomized subspace iteration, re-orthonormalized in every step; its error is whatever `residual` says.
  /// `automatic` takes gram where its result meets `tol` and costs less, exact otherwise; never quick.
  enum class Method { automatic, exact, gram, quick } method = Method::automatic;
  index_t rank = 0;  ///< number of triplets kept; 0 keeps min(m, n)
  double tol = 1e-6;  ///< largest ||A^T u - s v|| or ||A v - s u|| over s_1 that `automatic` accepts
  double frobenius_tol = 0;  ///< > 0: the smallest rank whose tail ||A - A_r||_F is at most this times ||A||_F
  std::uint64_t seed = 0;  ///< quick: seed of the start block
  index_t oversampling = 10;  ///< quick: extra columns of the start block
  int iterations = 4;  ///< quick: subspace iterations, two products with A each
  /// Whose largest entry is made positive, vector by vector: U's columns or Vt's rows.
  enum class Signs { left, right } signs = Signs::right;
};

/// A ~ U diag(s) Vt. U (m, r) and Vt (r, n) come in the order (row- or column-major) of A.
template <class T>
struct Svd {
  Array<T> U;
  std::vector<double> s;  ///< r values, descending
  Array<T> Vt;
  /// max over i of max(||A v_i - s_i u_i||, ||A^T u_i - s_i v_i||) / s_1, measured with the vectors returned. 0 if A = 0.
  double residual = 0;
  std::string method;  ///< what ran: "exact", "gram" or "quick"
};

/// Truncated or full SVD of A (m, n). 4 m n min(m, n) flops upwards for exact; 2 m n min + 9 min^3 for gram.
template <class T>
Svd<T> svd(const Context& context, MatrixView<const T> A, const SvdParams& params = {});

struct SingularValues {
  std::vector<double> values;  ///< min(m, n), descending
  /// Number of leading values that the method resolves; the rest are below the
  /// resolution (1e-7 s_1 for gram) and only known to be so.
  index_t n_resolved = 0;
  /// Rounding bound. gram: |s_i^2 - exact^2| <= bound s_1^2; qr+gesdd: |s_i - exact| <= bound s_1.
  double bound = 0;
  std::string method;  ///< "gram" or "qr+gesdd"
};

struct SingularValuesParams {
  /// `gram`: float64 Gram matrix and a values-only eigensolver (two-stage for n >= 3000 where LAPACK has it). `exact`:
  /// QR to a square matrix and values-only gesdd. `automatic`: gram for float, and for double where it is accurate to
  /// 1e-12, exact otherwise.
  enum class Method { automatic, gram, exact } method = Method::automatic;
};

/// All singular values of A (m, n), largest first. Float input: values below 1e-7 s_1 are reported as unresolved.
template <class T>
SingularValues singular_values(const Context& context, MatrixView<const T> A, const SingularValuesParams& params = {});

/// Best approximation of W in the norm ||W||_R^2 = tr(W R W^T) (the mean squared change of the outputs W x).
template <class T>
struct WhitenedSvd {
  Array<T> U;  ///< (n, r), orthonormal: left singular vectors of W R^(1/2)
  std::vector<double> s;  ///< all min(n, m) singular values of W R^(1/2)
  Array<T> projected;  ///< (r, m) = U^T W; U projected is the approximation
  double error = 0;  ///< ||W - U U^T W||_R, sqrt of the sum of s_i^2 beyond r
};

/// W (n, m), R (m, m) symmetric positive semidefinite, singular allowed; rank 0 keeps min(n, m).
template <class T>
WhitenedSvd<T> whitened_svd(const Context& context, MatrixView<const T> W, MatrixView<const double> R,
                            index_t rank = 0);

extern template BROCKETT_EXPORT Svd<float> svd(const Context&, MatrixView<const float>, const SvdParams&);
extern template BROCKETT_EXPORT Svd<double> svd(const Context&, MatrixView<const double>, const SvdParams&);
extern template BROCKETT_EXPORT SingularValues singular_values(const Context&, MatrixView<const float>,
                                                               const SingularValuesParams&);
extern template BROCKETT_EXPORT SingularValues singular_values(const Context&, MatrixView<const double>,
                                                               const SingularValuesParams&);
extern template BROCKETT_EXPORT WhitenedSvd<float> whitened_svd(const Context&, MatrixView<const float>,
                                                                MatrixView<const double>, index_t);
extern template BROCKETT_EXPORT WhitenedSvd<double> whitened_svd(const Context&, MatrixView<const double>,
                                                                 MatrixView<const double>, index_t);

}  // namespace brockett
