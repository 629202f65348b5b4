// Costs of a given P, evaluated from the data and never from the spectrum that P was made of.
#pragma once

#include <functional>

#include "penalty_basis.hpp"
#include "preactivations.hpp"

namespace brockett {

/// f(Y) for blocks of the samples of y, minus their mean where the source is centred.
void for_each_centred_block(const Preactivations::Impl& y, const std::function<void(linalg::Mat<double>)>& f);

/// sum_i lambda_i E|(T^T P y)_i|^2 of P^T (column-major): from the samples where they are at hand, else from the square
/// root F, else from C. The first two are sums of squares, without the cancellation of q C q^T.
double evaluate_cost(const Preactivations::Impl& y, const PenaltyBasis& basis, linalg::Mat<const double> Pt);

/// tr(A C), from C.
double identity_cost(const Preactivations::Impl& y, const PenaltyBasis& basis);

}  // namespace brockett
