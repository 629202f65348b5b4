// A power of two that brings a matrix of extreme magnitude to where products are safe.
#pragma once

#include <algorithm>
#include <cmath>

#include "linalg/linalg.hpp"

namespace brockett {

/// 1 where max|entry| is harmless; else a power of two that brings it near 1. Scaling by it and back is exact.
template <class T>
double safe_scale(double max_abs) {
  const double large = std::is_same_v<T, float> ? 1e30 : 1e140;
  if (max_abs == 0 || (max_abs <= large && max_abs >= 1 / large)) return 1;
  // subnormal numbers: 2^1000 is enough, and what is beyond 2^1023 is no number
  return std::exp2(std::min(1000.0, -std::round(std::log2(max_abs))));
}

/// A <- 2^e A for any exponent, in steps that T can represent.
template <class T>
void scale_exactly(linalg::LinAlg<T>& la, double factor, linalg::Mat<T> A) {
  const double step = std::is_same_v<T, float> ? 0x1p100 : 0x1p1000;
  while (factor > step) {
    la.scale(static_cast<T>(step), A);
    factor /= step;
  }
  while (factor < 1 / step) {
    la.scale(static_cast<T>(1 / step), A);
    factor *= step;
  }
  la.scale(static_cast<T>(factor), A);
}

}  // namespace brockett
