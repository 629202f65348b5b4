// Gauss-Legendre quadrature.
#pragma once

#include <cmath>
#include <numbers>
#include <vector>

namespace brockett {

struct Quadrature {
  std::vector<double> nodes, weights;  ///< on [-1, 1], nodes ascending
};

/// n points, exact for polynomials of degree 2 n - 1: roots of the Legendre polynomial P_n by Newton's method.
inline Quadrature gauss_legendre(int n) {
  Quadrature q{std::vector<double>(static_cast<std::size_t>(n)), std::vector<double>(static_cast<std::size_t>(n))};
  for (int i = 0; i < n; ++i) {
    double x = -std::cos(std::numbers::pi * (i + 0.75) / (n + 0.5)), slope = 1;
    for (int step = 0; step < 8; ++step) {
      double p = 1, before = 0;
      for (int k = 1; k <= n; ++k) {
        const double next = ((2 * k - 1) * x * p - (k - 1) * before) / k;
        before = p;
        p = next;
      }
      slope = n * (x * p - before) / (x * x - 1);
      x -= p / slope;
    }
    q.nodes[static_cast<std::size_t>(i)] = x;
    q.weights[static_cast<std::size_t>(i)] = 2 / ((1 - x * x) * slope * slope);
  }
  return q;
}

}  // namespace brockett
