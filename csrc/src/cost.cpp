#include "cost.hpp"

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
