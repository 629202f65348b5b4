// A power of two that brings a matrix of extreme magnitude to where products are safe.
#pragma once

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "linalg/buffer.hpp"
#include "linalg/linalg.hpp"

namespace brockett {

/// 1 where max|entry| is harmless; else a power of two that brings it near 1. Scaling by it and back is exact.
/// `large`: the largest magnitude that is harmless, its inverse the smallest; squares of sums have to fit in beside it.
template <class T>
double safe_scale(double max_abs, double large = std::is_same_v<T, float> ? 1e30 : 1e140) {
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

/// The matrix itself, or an exactly scaled copy when its magnitude is extreme.
template <class T>
struct Scaled {
  linalg::Mat<const T> M;
  double scale = 1;
  linalg::Buffer<T> copy;
};
template <class T>
Scaled<T> scaled(linalg::Backend& backend, linalg::Mat<const T> M, double max_abs) {
  auto& la = linalg::of<T>(backend);
  Scaled<T> out{M, safe_scale<T>(max_abs, std::is_same_v<T, float> ? 1e12 : 1e100), {}};
  if (out.scale != 1) {
    out.copy = linalg::Buffer<T>(la, M.rows, M.cols);
    la.copy(M, out.copy);
    scale_exactly(la, out.scale, out.copy.mat());
    out.M = out.copy;
  }
  return out;
}

}  // namespace brockett
