#include "svd_costs.hpp"

#include <algorithm>
#include <type_traits>

namespace brockett {

// Measured on heavy-tailed matrices (200 power-law spikes above a Gaussian bulk) of order 512 to 4096, 512 x 2048 and
// 4096 x 11008, at 16 to 1638 triplets, on one core of a Zen 4 with the AVX-512 kernels of OpenBLAS 0.3.34; the table is
// in test_svd_costs. The text of python/brockett/_fallback/svd.py has the same numbers.
template <class T>
SvdCosts svd_costs(index_t m, index_t n, index_t rank) {
  constexpr bool single = std::is_same_v<T, float>;
  const double large = static_cast<double>(std::max(m, n)), small = static_cast<double>(std::min(m, n));
  const double k = static_cast<double>(rank), cube = small * small * small;
  const double rate = single ? 8e10 : 4e10;  // flops a second with 16 columns

  SvdCosts c;
  // gesdd with vectors; QR before it and one product after it where a side is longer
  c.exact = (single ? 3.4e-10 : 5.7e-10) * cube + 6 * (large - small) * small * small / (single ? 1e11 : 5e10);
  // float64 syrk; the reduction to tridiagonal form, which leaves the cache as the order grows; inverse iteration and the
  // way back for a part of the vectors, divide and conquer for all of them
  if (single && (k < small || large >= 2 * small)) {
    const double part = 6e-11 * (1 + std::min(1.0, small / 4096)) * cube + 2 * small * small * k / 5e10 +
                        1.2e-7 * small * k + 2 * small * k * k / 5e10;
    c.gram = large * small * small / 5e10 + (k <= 0.75 * small ? part : 2.5e-10 * cube) + 2 * large * small * k / 5e10;
  }
  const double width = k <= 32 ? 8 : 16;
  // 6.5 k and some blocks where the order is far away; a subspace of a good part of all directions converges earlier
  const double columns = std::min(small, 1 / (1 / (6.5 * k + 16 * width) + 1 / (1.4 * small)));
  const double depth = std::min(columns, 3 * k + 8 * width);
  c.columns = static_cast<long long>(columns);
  c.krylov = 4 * large * small * columns / rate  // there and back
             + 2.4 * small * std::min(columns, depth) * columns / rate  // orthogonalization
             + 4e-10 * depth * depth * depth  // a few looks at the Ritz vectors
             + 6 * large * small * k / rate  // the triplets and their residual
             + 1.2e-4 * columns / width;  // what a block costs whatever its size
  return c;
}

template SvdCosts svd_costs<float>(index_t, index_t, index_t);
template SvdCosts svd_costs<double>(index_t, index_t, index_t);

}  // namespace brockett
