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
  if (single && (k < small || large >= 2 * small)) {
    c.gram = large * small * small / 5e10 + eigen_seconds(std::min(m, n), rank) + 2 * large * small * k / 5e10;
  }
  const KrylovCosts krylov = krylov_costs(std::min(m, n), rank, 4 * large * small, 6 * large * small, rate);
  c.columns = static_cast<long long>(krylov.columns);
  c.krylov = krylov.seconds;
  return c;
}

// The reduction to tridiagonal form, which leaves the cache as the order grows; inverse iteration and the way back for a part
// of the vectors, divide and conquer for all of them.
double eigen_seconds(index_t order, index_t count) {
  const double n = static_cast<double>(order), k = static_cast<double>(count), cube = n * n * n;
  if (k > 0.75 * n) return 2.5e-10 * cube;
  return 6e-11 * (1 + std::min(1.0, n / 4096)) * cube + 2 * n * n * k / 5e10 + 1.2e-7 * n * k + 2 * n * k * k / 5e10;
}

KrylovCosts krylov_costs(index_t order, index_t count, double product, double finish, double rate, double spread) {
  const double n = static_cast<double>(order), k = static_cast<double>(count), width = count <= 32 ? 8 : 16;
  KrylovCosts c;
  // 6.5 k and some blocks where the order is far away; a subspace of a good part of all directions converges earlier. A bulk:
  // eigenvalues of Gaussian matrices of order 512 and 1024 took 424 to 992 columns, of power laws 112 to 184 for the same
  c.columns = std::min(n, 1 / (1 / (6.5 * k + 16 * width + 4 * spread) + 1 / (1.4 * n)));
  const double depth = std::min(c.columns, 3 * k + 8 * width);
  c.seconds = product * c.columns / rate + 2.4 * n * depth * c.columns / rate  // and orthogonalization
              + 4e-10 * depth * depth * depth  // a few looks at the Ritz vectors
              + finish * k / rate  // with the residual
              + 1.2e-4 * c.columns / width;  // what a block costs whatever its size
  return c;
}

template SvdCosts svd_costs<float>(index_t, index_t, index_t);
template SvdCosts svd_costs<double>(index_t, index_t, index_t);

}  // namespace brockett
