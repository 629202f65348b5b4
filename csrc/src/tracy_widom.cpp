// Tracy and Widom's law of the largest eigenvalue of real noise.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <numbers>
#include <utility>

#include "brockett/error.hpp"
#include "brockett/random_matrix.hpp"
#include "quadrature.hpp"

namespace brockett {
namespace {

constexpr int kNodes = 40;
/// Ai(x) < 1e-18 beyond: what is cut off of the kernel.
constexpr double kFar = 16;

/// Airy's function for x > -11: Maclaurin's series (absolute error 1e-9 at -9, 1e-14 at 5), beyond 5 its asymptotic one.
double airy(double x) {
  if (x > 5) {
    const double zeta = 2.0 / 3.0 * x * std::sqrt(x);
    double term = 1, sum = 1;
    for (int k = 1; k < 12; ++k) {
      term *= -(6.0 * k - 5) * (6.0 * k - 3) * (6.0 * k - 1) / (216.0 * k * (2 * k - 1) * zeta);
      sum += term;
    }
    return std::exp(-zeta) * sum / (2 * std::sqrt(std::numbers::pi) * std::sqrt(std::sqrt(x)));
  }
  const double cube = x * x * x;
  double f = 1, g = x, even = 1, odd = x;
  for (int k = 1; k < 60; ++k) {
    even *= cube / ((3.0 * k - 1) * (3.0 * k));
    odd *= cube / ((3.0 * k) * (3.0 * k + 1));
    f += even;
    g += odd;
    if (std::abs(even) + std::abs(odd) < 1e-20) break;
  }
  // Ai(0) and -Ai'(0)
  return 0.355028053887817239 * f - 0.258819403792806798 * g;
}

/// det of a matrix that is overwritten: elimination with partial pivoting.
double determinant(std::array<std::array<double, kNodes>, kNodes>& A) {
  double product = 1;
  for (std::size_t k = 0; k < kNodes; ++k) {
    std::size_t pivot = k;
    for (std::size_t i = k + 1; i < kNodes; ++i) {
      if (std::abs(A[i][k]) > std::abs(A[pivot][k])) pivot = i;
    }
    if (pivot != k) {
      std::swap(A[pivot], A[k]);
      product = -product;
    }
    product *= A[k][k];
    if (product == 0) return 0;
    for (std::size_t i = k + 1; i < kNodes; ++i) {
      const double factor = A[i][k] / A[k][k];
      for (std::size_t j = k + 1; j < kNodes; ++j) A[i][j] -= factor * A[k][j];
    }
  }
  return product;
}

}  // namespace

double tracy_widom_cdf(double x) {
  if (std::isnan(x)) return x;
  if (x < -9) return 0;  // below 1e-14
  if (x >= kFar) return 1;
  static const Quadrature rule = gauss_legendre(kNodes);
  const double half = 0.5 * (kFar - x), middle = 0.5 * (kFar + x);
  std::array<std::array<double, kNodes>, kNodes> A;
  for (std::size_t i = 0; i < kNodes; ++i) {
    for (std::size_t j = 0; j <= i; ++j) {
      const double at = middle + 0.5 * half * (rule.nodes[i] + rule.nodes[j]);
      A[i][j] = A[j][i] = -0.5 * half * std::sqrt(rule.weights[i] * rule.weights[j]) * airy(at);
    }
    A[i][i] += 1;
  }
  return std::clamp(determinant(A), 0.0, 1.0);
}

double tracy_widom_quantile(double p) {
  if (!(p >= 1e-6 && p <= 1 - 1e-6)) {
    char what[96];
    std::snprintf(what, sizeof what, "expected a probability from 1e-6 to 1 - 1e-6, got %.17g", p);
    throw InvalidArgument("p", what);
  }
  // One fit asks for the same quantile as the next.
  thread_local double known_p = -1, known = 0;
  if (p == known_p) return known;
  double low = -9, high = 10;
  while (high - low > 1e-9) {
    const double x = 0.5 * (low + high);
    (tracy_widom_cdf(x) < p ? low : high) = x;
  }
  known_p = p;
  known = 0.5 * (low + high);
  return known;
}

}  // namespace brockett
