#include "gram.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>

namespace brockett {

using linalg::Buffer;
using linalg::Mat;
using linalg::Op;

Buffer<double> second_moment(const Context& context, const char* name, Mat<const double> M, Op op,
                             Mat<const double> R) {
  auto& la = context.backend().full();
  const index_t n = op == Op::none ? M.rows : M.cols, m = op == Op::none ? M.cols : M.rows;
  // logarithms: the product itself may be what leaves float64
  const double w = la.max_abs(M), r = la.max_abs(R);
  if (w > 0 && r > 0 && 2 * std::log10(w) + std::log10(r) < -290) {
    throw InvalidArgument(name, "the second moments of the pre-activations vanish in float64; rescale the data");
  }
  Buffer<double> WR(la, n, m), C(la, n, n);
  la.multiply(op, Op::none, 1.0, M, R, 0.0, WR);
  const index_t step = std::max<index_t>(256, n / 16);
  for (index_t first = 0; first < n; first += step) {  // the lower triangle alone
    const index_t b = std::min(step, n - first);
    const auto rows = op == Op::none ? M.block(first, 0, b, m) : M.block(0, first, m, b);
    la.multiply(Op::none, flip(op), 1.0, WR.mat().block(first, 0, n - first, m), rows, 0.0,
                C.mat().block(first, first, n - first, b));
  }
  la.mirror_lower(C);
  check_product_finite(context, name, C);
  return C;
}

void check_product_finite(const Context& context, const char* name, Mat<const double> C) {
  auto& la = context.backend().full();
  if (!std::isfinite(la.max_abs_of(DType::float64, C.data, C.rows, C.cols, C.ld))) {
    throw InvalidArgument(name, "the second moments of the pre-activations overflow float64; rescale the data");
  }
}

double rounding_of_zero(index_t n, double magnitude) {
  return 64 * static_cast<double>(n) * std::numeric_limits<double>::epsilon() * std::max(magnitude, 0.0);
}

void check_semidefinite(const char* name, const std::vector<double>& ascending, double noise) {
  check_semidefinite(name, static_cast<index_t>(ascending.size()), ascending.front(), ascending.back(), noise);
}

void check_semidefinite(const char* name, index_t n, double smallest, double largest, double noise) {
  if (smallest < -rounding_of_zero(n, std::max(largest, noise))) {
    char text[160];
    std::snprintf(text, sizeof text,
                  "is not positive semidefinite: the second moments have an eigenvalue %.6g beside %.6g", smallest,
                  largest);
    throw InvalidArgument(name, text);
  }
}

}  // namespace brockett
