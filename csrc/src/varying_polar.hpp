// The polar factor of [V G, B], of which a few columns vary with G, by what one SVD of B tells about all G.
//
// polar(M) = M (M^T M)^(-1/2) = 2/pi int_0^inf M (M^T M + t^2)^-1 dt. With B B^T = X S^2 X^T, D = X^T V, w = 1 / (S^2 + t^2)
// and A(t) = D^T diag(w) D the varying columns of M (M^T M + t^2)^-1 are X diag(w) D G N^-1, N = I + G^T A G. The integrand is
// analytic in log t in a strip of width pi, where the trapezoidal rule of step h errs by exp(-pi^2 / h) (Trefethen and
// Weideman, SIAM Review 56 (2014) 385).
#pragma once

#include <vector>

#include "linalg/buffer.hpp"

namespace brockett {

class VaryingPolar {
 public:
  /// B (q x q) with zeros in place of the p columns that vary, V (q x j), all of norms about 1. One SVD of B.
  VaryingPolar(linalg::LinAlg<double>& la, linalg::Mat<const double> B, linalg::Mat<const double> V);

  /// R (p x j) <- (the varying columns of the polar factor of [V G, B])^T V, column-major as G (j x p) is; returns the nuclear
  /// norm of [V G, B] less that of B. p <= j. To rounding; to about 1e-7 where [V G, B] is singular.
  double operator()(const std::vector<double>& G, index_t p, std::vector<double>& R) const;

  /// Where this is cheaper than some SVDs of order q, and its 7056 j^2 bytes are few.
  static bool pays(index_t q, index_t j) { return j > 0 && j <= 64 && 16 * j <= q; }

 private:
  index_t j_ = 0;
  std::vector<double> moments_;  // for each t: D^T diag(w) D, D^T diag(w^2) D
};

}  // namespace brockett
