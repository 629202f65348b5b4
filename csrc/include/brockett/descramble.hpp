// The descrambler: the orthogonal P that makes P W X smoothest, in closed form.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "brockett/autocorrelation.hpp"
#include "brockett/penalty.hpp"

namespace brockett {

/// Second moments C = E[y y^T] of the pre-activations y = W x (+ b) of a layer of n neurons: what a descrambler needs.
///
/// Costs are per sample: divisor N, never N - 1.
class BROCKETT_EXPORT Preactivations {
 public:
  /// From samples of y, (n_samples, n). The samples are read again for the cost and the error bars.
  static Preactivations from_samples(const Context& context, const SampleView& y, bool center = false);
  /// From the inputs x (n_samples, m) of W (n, m); `bias` n numbers on the host or null. As above.
  template <class T>
  static Preactivations from_inputs(const Context& context, MatrixView<const T> W, const SampleView& x,
                                    const double* bias = nullptr, bool center = false);
  /// From the accumulated R (m, m) of the inputs: C = W R W^T (+ bias terms through the mean of x).
  template <class T>
  static Preactivations from_autocorrelation(const Context& context, MatrixView<const T> W, const Autocorrelation& R,
                                             const double* bias = nullptr, bool center = false);
  /// From a bare matrix R (m, m), symmetric positive semidefinite; n_samples = 0 means unknown.
  template <class T>
  static Preactivations from_matrix(const Context& context, MatrixView<const T> W, MatrixView<const double> R,
                                    index_t n_samples = 0);
  /// White inputs, R = I; with a bias b, C = W W^T + b b^T.
  template <class T>
  static Preactivations isotropic(const Context& context, MatrixView<const T> W, const double* bias = nullptr);
  /// C itself (n, n).
  static Preactivations from_covariance(const Context& context, MatrixView<const double> C, index_t n_samples = 0);

  /// Stack another source of the same n neurons: C += alpha E[y2 y2^T], y2 (n_samples, n), alpha >= 0.
  void add(double alpha, const SampleView& y2);

  index_t n() const;
  /// C (n, n), symmetric, float64.
  Array<double> matrix() const;
  /// 0 where it is not known.
  index_t n_samples() const;

  ~Preactivations();
  Preactivations(Preactivations&&) noexcept;
  Preactivations& operator=(Preactivations&&) noexcept;
  struct Impl;
  Impl& impl() const { return *impl_; }

 private:
  explicit Preactivations(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

struct DescrambleParams {
  /// eta(P) = tr(A P C P^T) is minimised with this A.
  Penalty penalty = fourier_derivative(2);
  /// Which P are allowed. `permutation` is a quadratic assignment problem: a good P and a lower bound, not the optimum.
  enum class Group { orthogonal, special_orthogonal, permutation } group = Group::orthogonal;
  /// Which of the equally good P is returned. `identity`: the one nearest to I (zero data give I). `canonical`: P = T U^T
  /// with sign-fixed eigenvectors. `given`: the one nearest to P0.
  enum class Gauge { identity, canonical, given } gauge = Gauge::identity;
  /// For Gauge::given: n x n, orthogonal to 1e-6.
  MatrixView<const double> P0;
  /// Treat the spectrum beyond the first `rank` directions as one degenerate cluster: their rows are fixed by the gauge
  /// alone, so that P - I (or P - P0) has rank 2 `rank` or a little more, and they are not computed: n^2 rank operations in
  /// place of n^3 once C is there. A cut through equal variances moves to before them. 0 or n: no cut. No effect on
  /// permutations.
  index_t rank = 0;
  /// permutation: seed and number of randomized starts of the search, and a cap on its local-search sweeps.
  std::uint64_t seed = 0;
  int starts = 8;
  int max_sweeps = 1000;
  /// Evaluate `cost` from the P returned, `identity_cost` and the block errors. Off saves 2 n^3 flops, or the
  /// second reading of the samples; the costs are NaN then.
  bool verify = true;
};

/// Costs are per sample, float64.
template <class T>
struct Descrambling {
  Array<T> P;  ///< (n, n), row-major
  Array<T> weights;  ///< P W (n, m), row-major; empty without W
  std::vector<index_t> permutation;  ///< group permutation: row i of P W is row permutation[i] of W; else empty
  double cost = 0;  ///< eta(P), evaluated from the P above as cast to T
  /// sum_i lambda_i sigma_i^2, the exact minimum over O(n); NaN for permutations, and where `rank` left sigma_i unknown
  double optimum = 0;
  double identity_cost = 0;  ///< eta(I)
  /// Lower bound on the cost in the group: the optimum, or the projection bound. With `rank`: the least that variances with
  /// the known beginning and the trace of C can cost.
  double bound = 0;
  /// Numerical rank of C: sigma_i^2 > n eps sigma_1^2, or sigma_i > n eps sigma_1 from an accumulated square root (qr). At
  /// most the `rank` asked for.
  index_t rank = 0;
  /// Standard deviations sigma_i, descending (square roots of the eigenvalues of C): n of them, or the `rank` asked for.
  std::vector<double> sigma;
  /// Smallest singular value of the overlap between the returned gauge's blocks and the reference; 1 is ideal, 0 means
  /// that the choice of P among its equals is arbitrary. NaN for permutations and the canonical gauge.
  double gauge_conditioning = 0;
  /// Start offset of each block of equal eigenvalues of A, with n at the end.
  std::vector<index_t> blocks;
  /// Sampling error of each block's subspace: sqrt(E ||sin Theta||_F^2), at most sqrt(block size); with `rank` an upper bound
  /// of it. Empty where the number of samples is unknown, and for permutations.
  std::vector<double> block_error;
  std::string error_model;  ///< "gaussian", "moments" (fourth moments of the samples) or "" where there is none
};

/// P minimising eta(P) = tr(A P C P^T): P = T U^T, A = T diag(lambda) T^T ascending, C = U diag(sigma^2) U^T descending.
/// One symmetric eigendecomposition of n, 9 n^3 flops, plus n^2 log n; W (n, m) may be an empty view. With params.rank = r
/// some 10 r products of C with a vector and 24 n^2 r flops in its place (leading_descrambler.hpp has the derivation).
/// Source: arXiv 2301.07820; R. W. Brockett, Linear Algebra Appl. 146 (1991) 79.
template <class T>
Descrambling<T> descramble(const Context& context, const Preactivations& y, MatrixView<const T> W,
                           const DescrambleParams& params = {});

struct DiagonalizeParams {
  /// `sum`: maximise sum_i (P W)_ii, closed form by the polar factor. `square`: maximise sum_i (P W)_ii^2 by the monotone
  /// iteration P <- polar(diag(d) W^T), d = diag(P W), from the closed form.
  enum class Criterion { sum, square } criterion = Criterion::sum;
  enum class Group { orthogonal, special_orthogonal } group = Group::orthogonal;
  int max_iterations = 1000;
  double tol = 1e-14;  ///< square: stop when the relative gain of an iteration is below this
};

template <class T>
struct Diagonalization {
  Array<T> P;  ///< (n, n), row-major
  Array<T> weights;  ///< P W (n, m), row-major
  double value = 0;  ///< the criterion, evaluated from the P above as cast to T
  double bound = 0;  ///< sum: the nuclear norm over min(n, m) columns (the optimum in O(n)); square: ||W||_F^2
  int iterations = 0;
  bool converged = true;
};

/// P that makes P W (n, m) as diagonal as can be, over its min(n, m) diagonal entries.
template <class T>
Diagonalization<T> diagonalize(const Context& context, MatrixView<const T> W, const DiagonalizeParams& params = {});

struct BrockettCost {
  double value = 0;  ///< tr(A P C P^T)
  Array<double> gradient;  ///< 2 A P C, (n, n), row-major: the Euclidean gradient in P
};

/// Cost of any P (n, n), orthogonal or not, against C (n, n) symmetric. 4 n^3 flops.
BROCKETT_EXPORT BrockettCost brockett_cost(const Context& context, MatrixView<const double> P,
                                           MatrixView<const double> C, const Penalty& penalty = {});

#define BROCKETT_DESCRAMBLE_TEMPLATES(linkage, T)                                                                   \
  linkage Preactivations Preactivations::from_inputs(const Context&, MatrixView<const T>, const SampleView&,        \
                                                     const double*, bool);                                          \
  linkage Preactivations Preactivations::from_autocorrelation(const Context&, MatrixView<const T>,                  \
                                                              const Autocorrelation&, const double*, bool);         \
  linkage Preactivations Preactivations::from_matrix(const Context&, MatrixView<const T>, MatrixView<const double>, \
                                                     index_t);                                                      \
  linkage Preactivations Preactivations::isotropic(const Context&, MatrixView<const T>, const double*);             \
  linkage Descrambling<T> descramble(const Context&, const Preactivations&, MatrixView<const T>,                    \
                                     const DescrambleParams&);                                                      \
  linkage Diagonalization<T> diagonalize(const Context&, MatrixView<const T>, const DiagonalizeParams&);
BROCKETT_DESCRAMBLE_TEMPLATES(extern template BROCKETT_EXPORT, float)
BROCKETT_DESCRAMBLE_TEMPLATES(extern template BROCKETT_EXPORT, double)

}  // namespace brockett
