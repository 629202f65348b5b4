// Costs of a given P, evaluated from the data and never from the spectrum that P was made of.
#pragma once

#include <functional>

#include "leading_descrambler.hpp"
#include "penalty_basis.hpp"
#include "preactivations.hpp"

namespace brockett {

/// f(Y) for blocks of the samples of y, minus their mean where the source is centred.
void for_each_centred_block(const Preactivations::Impl& y, const std::function<void(linalg::Mat<double>)>& f);

/// sum_i lambda_i E|(T^T P y)_i|^2 of P^T (column-major): from the samples where they are at hand, else from the square
/// root F, else from C. The first two are sums of squares, without the cancellation of q C q^T.
double evaluate_cost(const Preactivations::Impl& y, const PenaltyBasis& basis, linalg::Mat<const double> Pt);

/// The same of a P that is known as its factors, too, at the cost of products with those: from C, n^2 (4 z + 2 r) flops and 2 n
/// FFTs of n (a third n in float). Samples and square roots are gone through as above, 2 n^2 flops for each of their columns.
///
/// `returned` is P^T as it is returned, `Pt` as it was before it was cast (null: nothing was cast). q C q^T of a row q of T^T P
/// then is that of the factors, plus what the cast adds: exact to first order, and in second order along the columns of U, C
/// being their variances and `rest_mean` in all other directions.
struct LeadingSpectrum {
  linalg::Mat<const double> U;
  const std::vector<double>& variances;
  double rest_mean;
};
double evaluate_cost(const Preactivations::Impl& y, const PenaltyBasis& basis, const LeadingDescrambler& P,
                     linalg::Mat<const double> returned, const linalg::Buffer<double>* Pt, const LeadingSpectrum& lead);

/// tr(A C), from C.
double identity_cost(const Preactivations::Impl& y, const PenaltyBasis& basis);

}  // namespace brockett
