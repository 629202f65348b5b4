#include "varying_polar.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace brockett {

using linalg::Buffer;
using linalg::Mat;
using linalg::Op;

namespace {

std::size_t at(index_t i) { return static_cast<std::size_t>(i); }

// exp(-pi^2 / h) = 7e-18; beyond the ends there is less than exp(-40), and exp(-70) over the smallest singular value.
constexpr double kStep = 0.25, kFirst = -70;
constexpr int kNodes = 441;

// Where columns of V G depend on each other in the null space of B, N (up to 1 / t^2) is singular but for rounding. A pivot
// below this share of the terms that it is the sum of is nothing else: taken as this share, it leaves an error of order t.
constexpr double kResolved = 1e-14;

double node(int k) { return std::exp(kFirst + kStep * k); }

}  // namespace

VaryingPolar::VaryingPolar(linalg::LinAlg<double>& la, Mat<const double> B, Mat<const double> V) : j_(V.cols) {
  const index_t q = B.rows, j = j_;
  std::vector<double> s(at(q)), D(at(q * j));
  {
    Buffer<double> work(la, q, q), X(la, q, q), Yt(la, q, q), XtV(la, q, j);
    la.copy(B, work);
    la.svd_thin(work, s.data(), X, Yt);
    la.multiply(Op::transpose, Op::none, 1.0, X, V, 0.0, XtV);
    la.download(XtV, D.data());
  }
  for (double& v : s) v *= v;
  moments_.assign(at(2 * j * j * kNodes), 0.0);
  std::vector<double> w(at(q)), wD(at(q));
  double* A = moments_.data();
  for (int k = 0; k < kNodes; ++k, A += 2 * j * j) {
    const double t = node(k);
    for (index_t i = 0; i < q; ++i) w[at(i)] = 1 / (s[at(i)] + t * t);
    for (index_t b = 0; b < j; ++b) {
      for (index_t i = 0; i < q; ++i) wD[at(i)] = w[at(i)] * D[at(i + b * q)];
      for (index_t a = 0; a <= b; ++a) {
        double first = 0, second = 0;
        for (index_t i = 0; i < q; ++i) {
          const double term = D[at(i + a * q)] * wD[at(i)];
          first += term;
          second += w[at(i)] * term;
        }
        A[a + b * j] = A[b + a * j] = first;
        A[j * j + a + b * j] = A[j * j + b + a * j] = second;
      }
    }
  }
}

double VaryingPolar::operator()(const std::vector<double>& G, index_t p, std::vector<double>& R) const {
  const index_t j = j_;
  std::vector<double> E(at(p * j)), F(at(p * j)), N(at(p * p)), Q(at(p * p)), least(at(p));
  // out (p x c) <- G^T A, or (G^T A) G
  const auto left = [&](const double* A, std::vector<double>& out) {
    for (index_t b = 0; b < j; ++b) {
      for (index_t v = 0; v < p; ++v) {
        double sum = 0;
        for (index_t a = 0; a < j; ++a) sum += G[at(a + v * j)] * A[a + b * j];
        out[at(v + b * p)] = sum;
      }
    }
  };
  const auto right = [&](const std::vector<double>& in, std::vector<double>& out) {
    for (index_t u = 0; u < p; ++u) {
      for (index_t v = 0; v < p; ++v) {
        double sum = 0;
        for (index_t b = 0; b < j; ++b) sum += in[at(v + b * p)] * G[at(b + u * j)];
        out[at(v + u * p)] = sum;
      }
    }
  };
  // X (p x c) <- N^-1 X, N = L L^T in its lower triangle
  const auto solve = [&](std::vector<double>& X, index_t columns) {
    for (index_t c = 0; c < columns; ++c) {
      double* x = X.data() + c * p;
      for (index_t i = 0; i < p; ++i) {
        for (index_t k = 0; k < i; ++k) x[i] -= N[at(i + k * p)] * x[k];
        x[i] /= N[at(i + i * p)];
      }
      for (index_t i = p; i-- > 0;) {
        for (index_t k = i + 1; k < p; ++k) x[i] -= N[at(k + i * p)] * x[k];
        x[i] /= N[at(i + i * p)];
      }
    }
  };
  R.assign(at(p * j), 0.0);
  double norm = 0;
  const double* A = moments_.data();
  for (int k = 0; k < kNodes; ++k, A += 2 * j * j) {
    const double t = node(k), weight = 2 * std::numbers::inv_pi * kStep * t;  // dt = t d(log t)
    left(A, E);
    right(E, N);
    left(A + j * j, F);
    right(F, Q);
    for (index_t i = 0; i < p; ++i) {
      double size = 0;
      for (index_t a = 0; a < j; ++a) size += std::abs(G[at(a + i * j)]) * std::sqrt(A[a + a * j]);
      N[at(i + i * p)] += 1;
      least[at(i)] = kResolved * (1 + size * size);
    }
    for (index_t i = 0; i < p; ++i) {
      for (index_t b = 0; b <= i; ++b) {
        double sum = N[at(i + b * p)];
        for (index_t c = 0; c < b; ++c) sum -= N[at(i + c * p)] * N[at(b + c * p)];
        N[at(i + b * p)] = i == b ? std::sqrt(std::max(sum, least[at(i)])) : sum / N[at(b + b * p)];
      }
    }
    solve(E, j);
    solve(Q, p);
    for (std::size_t i = 0; i < R.size(); ++i) R[i] += weight * E[i];
    // the nuclear norm is 1/pi int log det N dt above that of B, by parts
    for (index_t v = 0; v < p; ++v) norm += weight * t * t * Q[at(v + v * p)];
  }
  return norm;
}

}  // namespace brockett
