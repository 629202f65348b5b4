#include "roots_of_unity.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace brockett {

// Reduced to the first octant in integers, so that the library functions see an angle of at most pi / 4 and the
// symmetries of the circle hold exactly; long double where the machine has it.
Rotation rotation(index_t k, index_t n) {
  const index_t octant = 8 * k / n;
  const index_t rest = 8 * k - octant * n;  // angle = (octant + rest / n) pi / 4
  const index_t folded = octant % 2 == 0 ? rest : n - rest;  // distance from the nearest axis
  const long double angle =
      std::numbers::pi_v<long double> / 4 * static_cast<long double>(folded) / static_cast<long double>(n);
  const auto c = static_cast<double>(std::cos(angle)), s = static_cast<double>(std::sin(angle));
  switch (octant) {
    case 0:
      return {c, s};
    case 1:
      return {s, c};
    case 2:
      return {-s, c};
    case 3:
      return {-c, s};
    case 4:
      return {-c, -s};
    case 5:
      return {-s, -c};
    case 6:
      return {s, -c};
    default:
      return {c, -s};
  }
}

index_t smooth_length(index_t n) {
  index_t best = 1;
  while (best < n) best *= 2;
  for (index_t fives = 1; fives < best; fives *= 5) {
    for (index_t threes = fives; threes < best; threes *= 3) {
      index_t m = threes;
      while (m < n) m *= 2;
      best = std::min(best, m);
    }
  }
  return best;
}

}  // namespace brockett
