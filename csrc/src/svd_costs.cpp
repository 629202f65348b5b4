#include "svd_costs.hpp"

#include <algorithm>
#include <type_traits>

namespace brockett {

// Measured on heavy-tailed matrices of order 256 to 1024 (and 1024 x 4096) on one core of a Zen 4 with the AVX-512 kernels
// of OpenBLAS 0.3.34, both precisions. The text of python/brockett/_fallback/svd.py has the same numbers.
template <class T>
SvdCosts svd_costs(index_t m, index_t n, index_t rank) {
  constexpr bool single = std::is_same_v<T, float>;
  const double large = static_cast<double>(std::max(m, n)), small = static_cast<double>(std::min(m, n));
  const double k = static_cast<double>(rank), cube = small * small * small;
  const double rate = single ? 8e10 : 4e10;  // flops a second with 16 columns

  SvdCosts c;
  // gesdd with vectors; QR before it and one product after it where a side is longer
  c.exact = (single ? 3.4e-10 : 5.7e-10) * cube + 6 * (large - small) * small * small / (single ? 1e11 : 5e10);
  // float64 syrk; a range of eigenvectors up to a half of them, all of them beyond
  if (single && (k < small || large >= 2 * small)) {
    c.gram = large * small * small / 5e10 + cube * (7e-11 + 2.3e-10 * std::min(1.0, 2 * k / small)) +
             2 * large * small * k / 5e10;
  }
  const double width = k <= 32 ? 8 : 16;
  const double columns = std::min(small, 6 * k + 8 * width), depth = std::min(small, 3 * k + 8 * width);
  c.columns = static_cast<long long>(columns);
  c.krylov = 4 * large * small * columns / rate  // there and back
             + 2.4 * small * std::min(columns, depth) * columns / rate  // orthogonalization
             + 8e-10 * depth * depth * depth  // four looks at the Ritz vectors
             + 6 * large * small * k / rate  // the triplets and their residual
             + 1.2e-4 * columns / width;  // what a block costs whatever its size
  return c;
}

template SvdCosts svd_costs<float>(index_t, index_t, index_t);
template SvdCosts svd_costs<double>(index_t, index_t, index_t);

}  // namespace brockett
