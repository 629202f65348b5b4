#include "svd_costs.hpp"
#include <algorithm>
namespace brockett {
template <class T>
SvdCosts svd_costs(index_t m, index_t n, index_t) { SvdCosts c; c.exact = 1; c.gram = sizeof(T) == 4 && (m >= 2 * n || n >= 2 * m); c.krylov = 2; c.columns = 1; return c; }
template SvdCosts svd_costs<float>(index_t, index_t, index_t);
template SvdCosts svd_costs<double>(index_t, index_t, index_t);
}
