#include "cost.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "check.hpp"

namespace brockett {

using linalg::Buffer;
using linalg::Mat;
using linalg::Op;

namespace {

double weighted(const PenaltyBasis& basis, const std::vector<double>& q) {
  return std::inner_product(q.begin(), q.end(), basis.lambda().begin(), 0.0);
}

}  // namespace

void for_each_centred_block(const Preactivations::Impl& y, const std::function<void(Mat<double>)>& f) {
  auto& la = y.context.backend().full();
  Buffer<double> mean;
  if (y.center) {
    mean = Buffer<double>(la, y.n, 1);
    la.upload(y.mean.data(), mean);
  }
  y.for_each_block([&](Mat<double> Y) {
    if (y.center) {
      Buffer<double> ones(la, 1, Y.cols);
      la.fill(ones, 1.0);
      la.multiply(Op::none, Op::none, -1.0, mean, ones, 1.0, Y);
    }
    f(Y);
  });
}

double evaluate_cost(const Preactivations::Impl& y, const PenaltyBasis& basis, Mat<const double> Pt) {
  auto& la = y.context.backend().full();
  const index_t n = y.n;
  Buffer<double> Qt(la, n, n);  // Q = T^T P, in rows
  la.copy(Pt, Qt);
  basis.apply(Op::transpose, Qt);
  std::vector<double> q(static_cast<std::size_t>(n));
  if (y.has_samples()) {
    std::vector<double> part(q.size());
    for_each_centred_block(y, [&](Mat<double> Y) {
      Buffer<double> Z(la, Y.cols, n);
      la.multiply(Op::transpose, Op::none, 1.0, Y, Qt, 0.0, Z);
      la.column_dots(Z, Z, part.data());
      for (std::size_t i = 0; i < q.size(); ++i) q[i] += part[i] / static_cast<double>(y.n_samples);
    });
  } else if (y.F.data()) {
    Buffer<double> Z(la, y.F.cols(), n);
    la.multiply(Op::transpose, Op::none, 1.0, y.F, Qt, 0.0, Z);
    la.column_dots(Z, Z, q.data());
  } else {
    Buffer<double> Z(la, n, n);
    la.multiply(Op::none, Op::none, 1.0, y.C, Qt, 0.0, Z);
    la.column_dots(Qt, Z, q.data());
  }
  return weighted(basis, q);
}

double evaluate_cost(const Preactivations::Impl& y, const PenaltyBasis& basis, const LeadingDescrambler& P,
                     Mat<const double> returned, const Buffer<double>* Pt, const LeadingSpectrum& lead) {
  const bool factored = P.base != LeadingDescrambler::Base::reference;  // a dense P0 has to be multiplied by C as it is
  if (y.has_samples() || y.F.data() || !factored) return evaluate_cost(y, basis, returned);
  auto& la = y.context.backend().full();
  const index_t n = y.n, z = P.F.cols();
  Buffer<double> K(la, n, n), Q(la, n, n);  // C P^T T, and the returned P^T T
  la.copy(y.C, K);
  if (z > 0) {
    Buffer<double> CF(la, n, z);
    la.multiply(Op::none, Op::none, 1.0, y.C, P.F, 0.0, CF);
    la.multiply(Op::none, Op::transpose, 1.0, CF, P.G, 1.0, K);
  }
  if (P.base == LeadingDescrambler::Base::identity) basis.apply(Op::transpose, K);
  la.copy(returned, Q);
  basis.apply(Op::transpose, Q);
  std::vector<double> q(static_cast<std::size_t>(n));
  la.column_dots(Q, K, q.data());
  if (Pt) {  // q = p + d: (p + d) C (p + d)^T = q C p^T + d C p^T + d C d^T
    Buffer<double> D(la, n, n);
    la.copy(*Pt, D);
    basis.apply(Op::transpose, D);
    la.scale(-1.0, D);
    la.add(1.0, Q, D);
    std::vector<double> first(q.size()), second(q.size()), along(q.size());
    la.column_dots(D, K, first.data());
    la.column_dots(D, D, second.data());
    if (const index_t r = lead.U.cols; r > 0) {
      Buffer<double> UD(la, r, n);
      la.multiply(Op::transpose, Op::none, 1.0, lead.U, D, 0.0, UD);
      std::vector<double> scale;
      for (const double v : lead.variances) scale.push_back(std::sqrt(std::max(0.0, v - lead.rest_mean)));
      la.scale_rows(UD, scale.data());
      la.column_dots(UD, UD, along.data());
    }
    for (std::size_t i = 0; i < q.size(); ++i) q[i] += first[i] + along[i] + lead.rest_mean * second[i];
  }
  return weighted(basis, q);
}

double identity_cost(const Preactivations::Impl& y, const PenaltyBasis& basis) {
  auto& la = y.context.backend().full();
  Buffer<double> T(la, y.n, y.n), CT(la, y.n, y.n);
  la.set_identity(T);
  basis.apply(Op::transpose, T);
  la.copy(y.C, CT);
  basis.apply(Op::transpose, CT);
  std::vector<double> q(static_cast<std::size_t>(y.n));
  la.column_dots(T, CT, q.data());
  return weighted(basis, q);
}

}  // namespace brockett
