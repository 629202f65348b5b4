// Singular value decompositions with a measured residual.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "brockett/context.hpp"
#include "brockett/matrix_view.hpp"
#include "brockett/operator.hpp"

namespace brockett {

struct SvdParams {
  /// `exact`: LAPACK gesdd (gesvd where it fails). `gram`: eigenvectors of the smaller Gram matrix in float64.
  /// `krylov`: block Lanczos with thick restarts until the measured residual is at most `tol`, else NotConverged.
  /// `quick`: the same within a budget of columns; its error is whatever `residual` says.
  /// `automatic` takes the cheapest of krylov, gram and exact by measured costs, and exact where the others miss `tol` and it is nearer;
  /// never quick.
  enum class Method { automatic, exact, gram, krylov, quick } method = Method::automatic;
  index_t rank = 0;  ///< number of triplets kept; 0 keeps min(m, n)
  double tol = 1e-6;  ///< largest ||A^T u - s v|| or ||A v - s u|| over s_1 that krylov and `automatic` accept
  /// > 0: the smallest rank whose tail ||A - A_r||_F is at most this times ||A||_F. krylov takes the tail as
  /// ||A||_F^2 minus the squares found (Yu, Gu, Li 2018): from 2e-3 (float) or 1e-7 (double) on.
  double frobenius_tol = 0;
  std::uint64_t seed = 0;  ///< krylov, quick: seed of the start block
  index_t oversampling = 10;  ///< quick: see iterations
  /// quick: (iterations + 1)(rank + oversampling) columns go through A and A^T, what so many subspace iterations take.
  int iterations = 1;
  /// krylov: columns through A and A^T before it gives up; 0: 10 min(m, n), about the work of a full decomposition
  index_t max_columns = 0;
  /// Whose largest entry is made positive, vector by vector: U's columns or Vt's rows.
  enum class Signs { left, right } signs = Signs::right;
};

/// A ~ U diag(s) Vt. U (m, r) and Vt (r, n) come in the order (row- or column-major) of A.
template <class T>
struct Svd {
  Array<T> U;
  std::vector<double> s;  ///< r values, descending
  Array<T> Vt;
  /// max over i of max(||A v_i - s_i u_i||, ||A^T u_i - s_i v_i||) / s_1, measured with the vectors returned; by quick from
  /// the recurrence of its basis where that is the same to two hundredths. 0 if A = 0.
  double residual = 0;
  std::string method;  ///< what ran: "exact", "gram", "krylov" or "quick"
  index_t columns = 0;  ///< krylov, quick: vectors that were multiplied by A and by A^T
};

/// Truncated or full SVD of A (m, n). 4 m n min(m, n) flops upwards for exact; 2 m n min + 9 min^3 for gram; 4 m n for
/// each column of krylov, whose number grows with the rank and with how slowly the values behind it fall (6 times the
/// rank on heavy tails). Beside A: 3 rank + 8 blocks of 16 vectors of the smaller side; as many of the larger one for quick
/// and for a tol above 400 eps; 6 rank vectors of either side in float64; and a turned copy of a row-major A that is wide, of
/// a column-major one that is tall or square. Of quick with less than min(m, n) / 4 columns the vectors are those of the right
/// side, and a column-major A alone is turned.
template <class T>
Svd<T> svd(const Context& context, MatrixView<const T> A, const SvdParams& params = {});

/// The same of a matrix that is never formed, by krylov (or quick): U and Vt row-major, `rank` needed unless
/// frobenius_tol > 0, which multiplies A with the identity for ||A||_F. InvalidArgument "A" where products are not finite.
template <class T>
Svd<T> svd(const Context& context, const Operator<T>& A, const SvdParams& params = {});

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
  /// `gram`: float64 Gram matrix and a values-only eigensolver (two-stage for n >= 2200 where LAPACK has it). `exact`:
  /// QR to a square matrix and values-only gesdd. `automatic`: gram for float, and for double where it is accurate to
  /// 1e-12, exact otherwise.
  enum class Method { automatic, gram, exact } method = Method::automatic;
};

/// All singular values of A (m, n), largest first. Float input: values below 1e-7 s_1 are reported as unresolved. The
/// Gram matrix is that of the smaller side and is summed over pieces of A: beside A there are its 8 min^2 bytes and 32 MB.
template <class T>
SingularValues singular_values(const Context& context, MatrixView<const T> A, const SingularValuesParams& params = {});

/// The same of matrices of one shape: on the workers of the host, or many at once on a device.
template <class T>
std::vector<SingularValues> singular_values_batch(const Context& context, const std::vector<MatrixView<const T>>& A,
                                                  const SingularValuesParams& params = {});

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
extern template BROCKETT_EXPORT Svd<float> svd(const Context&, const Operator<float>&, const SvdParams&);
extern template BROCKETT_EXPORT Svd<double> svd(const Context&, const Operator<double>&, const SvdParams&);
extern template BROCKETT_EXPORT SingularValues singular_values(const Context&, MatrixView<const float>,
                                                               const SingularValuesParams&);
extern template BROCKETT_EXPORT SingularValues singular_values(const Context&, MatrixView<const double>,
                                                               const SingularValuesParams&);
extern template BROCKETT_EXPORT std::vector<SingularValues> singular_values_batch(
    const Context&, const std::vector<MatrixView<const float>>&, const SingularValuesParams&);
extern template BROCKETT_EXPORT std::vector<SingularValues> singular_values_batch(
    const Context&, const std::vector<MatrixView<const double>>&, const SingularValuesParams&);
extern template BROCKETT_EXPORT WhitenedSvd<float> whitened_svd(const Context&, MatrixView<const float>,
                                                                MatrixView<const double>, index_t);
extern template BROCKETT_EXPORT WhitenedSvd<double> whitened_svd(const Context&, MatrixView<const double>,
                                                                 MatrixView<const double>, index_t);

}  // namespace brockett
