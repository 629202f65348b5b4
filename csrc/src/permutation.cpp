#include "permutation.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>
#include <utility>

#include "assignment.hpp"
#include "brockett/error.hpp"
#include "linalg/buffer.hpp"
#include "linalg/linalg.hpp"
#include "local_search.hpp"
#include "philox.hpp"

namespace brockett {
namespace {

// Above the first n only the cheapest of the given starts is polished, and there are fewer descents; above the second
// none, for an assignment problem costs n^3 without BLAS.
constexpr index_t kAllStarts = 256;
constexpr index_t kSomeStarts = 1024;
constexpr int kDescentSteps = 40;
constexpr double kDescentGain = 1e-5;
// Where between the smallest and the mean eigenvalue of A the shift lies, by turns. Measured on uneven rings and ReLU
// features, n = 32 … 128: polished by exchanges alone, descents at 0.7 and 1 end at 0.6-0.8 of the cost of random
// starts, at 0 no better than those and above 1 worse again; after all kinds of moves 1-3 % of it is left.
constexpr std::array<double, 2> kShifts = {0.7, 1.0};
// Eigenvectors looked at in case the leading one is degenerate: the lowest frequency of a square periodic grid has
// four.
constexpr index_t kLeading = 8;
constexpr std::size_t kSpectralStarts = 3;
constexpr double kInfinity = std::numeric_limits<double>::infinity();

using Poll = std::function<void()>;

int descents_of(index_t n, int starts) {
  if (n > kSomeStarts) return 0;
  if (n <= kAllStarts) return starts;
  const double share = static_cast<double>(kAllStarts) / static_cast<double>(n);
  return std::min(starts, std::max(1, static_cast<int>(starts * share * share * share)));
}

// The first cost that is the lowest to rounding.
std::size_t cheapest(const std::vector<double>& costs, double rounding) {
  const double lowest = *std::min_element(costs.begin(), costs.end());
  std::size_t k = 0;
  while (costs[k] > lowest + rounding) ++k;
  return k;
}

// --- the complement of 1 ---------------------------------------------------------------------------------------------

// H = I - 2 w w^T takes 1 / sqrt(n) to -e_0; its other columns are V.
std::vector<double> reflector(index_t n) {
  const double root = std::sqrt(static_cast<double>(n));
  std::vector<double> w(n, 1.0 / root);
  w[0] += 1;
  double norm = 0;
  for (const double x : w) norm += x * x;
  norm = std::sqrt(norm);
  for (double& x : w) x /= norm;
  return w;
}

// V^T A V, (n-1, n-1): H A H = A - 2 w z^T - 2 z w^T with z = A w - (w^T A w) w, without its first row and column.
std::vector<double> compress(const double* A, index_t n) {
  const std::vector<double> w = reflector(n);
  std::vector<double> z(n, 0.0);
  double form = 0;
  for (index_t i = 0; i < n; ++i) {
    for (index_t j = 0; j < n; ++j) z[i] += A[i * n + j] * w[j];
    form += z[i] * w[i];
  }
  for (index_t i = 0; i < n; ++i) z[i] -= form * w[i];
  std::vector<double> out((n - 1) * (n - 1));
  for (index_t i = 1; i < n; ++i) {
    for (index_t j = 1; j < n; ++j) {
      out[(i - 1) * (n - 1) + j - 1] = A[i * n + j] - 2 * (w[i] * z[j] + z[i] * w[j]);
    }
  }
  return out;
}

bool annihilates_ones(const double* A, index_t n) {
  double largest_sum = 0, largest = 0;
  for (index_t i = 0; i < n; ++i) {
    double sum = 0, magnitude = 0;
    for (index_t j = 0; j < n; ++j) {
      sum += A[i * n + j];
      magnitude += std::abs(A[i * n + j]);
    }
    largest_sum = std::max(largest_sum, std::abs(sum));
    largest = std::max(largest, magnitude);
  }
  return largest_sum <= 1e-10 * largest;
}

// C <- J C J with J = I - 1 1^T / n.
void center(double* C, index_t n) {
  std::vector<double> mean(n, 0.0);
  double total = 0;
  for (index_t i = 0; i < n; ++i) {
    for (index_t j = 0; j < n; ++j) mean[i] += C[i * n + j];
    mean[i] /= static_cast<double>(n);
    total += mean[i];
  }
  total /= static_cast<double>(n);
  for (index_t i = 0; i < n; ++i) {
    for (index_t j = 0; j < n; ++j) C[i * n + j] -= mean[i] + mean[j] - total;
  }
}

std::vector<double> row_sums(const double* A, index_t n) {
  std::vector<double> sums(n, 0.0);
  for (index_t i = 0; i < n; ++i) {
    for (index_t j = 0; j < n; ++j) sums[i] += A[i * n + j];
  }
  return sums;
}

double bound_of(const double* A, const double* C, index_t n, const HostAlgebra& algebra,
                std::span<const double> penalty_eigenvalues) {
  std::vector<double> ra = row_sums(A, n), rc = row_sums(C, n);
  std::sort(ra.begin(), ra.end());
  std::sort(rc.begin(), rc.end(), std::greater<>());
  const double size = static_cast<double>(n);
  const double sa = std::accumulate(ra.begin(), ra.end(), 0.0), sc = std::accumulate(rc.begin(), rc.end(), 0.0);
  double bound = 2 / size * std::inner_product(ra.begin(), ra.end(), rc.begin(), 0.0) - sa * sc / (size * size);
  if (n == 1) return bound;

  std::vector<double> a(n - 1), c(n - 1);
  if (penalty_eigenvalues.size() == static_cast<std::size_t>(n) && annihilates_ones(A, n)) {
    // 1 is an eigenvector of eigenvalue 0; V^T A V has the others.
    std::vector<double> all(penalty_eigenvalues.begin(), penalty_eigenvalues.end());
    all.erase(std::min_element(all.begin(), all.end(), [](double x, double y) { return std::abs(x) < std::abs(y); }));
    a = std::move(all);
    std::sort(a.begin(), a.end());
  } else {
    std::vector<double> compressed = compress(A, n);
    algebra.eigenvalues(compressed.data(), n - 1, a.data());
  }
  std::vector<double> compressed = compress(C, n);
  algebra.eigenvalues(compressed.data(), n - 1, c.data());
  return bound + std::inner_product(a.begin(), a.end(), c.rbegin(), 0.0);
}

// --- starts ----------------------------------------------------------------------------------------------------------

// Two orthonormal vectors of the leading eigenspaces of V^T C V, back in n coordinates, n pairs. Where eigenvalues
// coincide the basis of a LAPACK is anybody's; this one is made of the projections of unit vectors e_j onto the space,
// the longest first, so it depends on the space alone. A space that reaches beyond kLeading is nobody's: zeros instead.
std::vector<std::array<double, 2>> leading_plane(const double* C, index_t n, const HostAlgebra& algebra) {
  const index_t m = n - 1, count = std::min(m, kLeading);
  std::vector<double> compressed = compress(C, n);
  std::vector<double> values(count), rows(count * m);
  algebra.eigen_largest(compressed.data(), m, count, values.data(), rows.data());
  double largest = 0;
  for (const double x : values) largest = std::max(largest, std::abs(x));

  const std::vector<double> w = reflector(n);
  std::vector<double> vectors(count * n, 0.0);  // V z
  for (index_t c = 0; c < count; ++c) {
    double* v = vectors.data() + c * n;
    std::copy_n(rows.data() + c * m, m, v + 1);
    const double along = 2 * std::inner_product(w.begin(), w.end(), v, 0.0);
    for (index_t i = 0; i < n; ++i) v[i] -= along * w[i];
  }

  std::vector<std::array<double, 2>> plane(n, {0.0, 0.0});
  index_t found = 0;
  for (index_t first = 0, last; first < count && found < 2; first = last) {
    last = first + 1;
    while (last < count && values[last - 1] - values[last] <= 1e-9 * largest) ++last;
    if (last == count && count < m && last - first > 1) break;
    std::vector<double> length(n, 0.0);  // of the projection of e_j, squared
    for (index_t c = first; c < last; ++c) {
      for (index_t j = 0; j < n; ++j) length[j] += vectors[c * n + j] * vectors[c * n + j];
    }
    for (index_t taken = 0; taken < last - first && found < 2; ++taken, ++found) {
      const double longest = *std::max_element(length.begin(), length.end());
      index_t j = 0;
      while (length[j] < longest * (1 - 1e-6)) ++j;
      std::vector<double> u(n, 0.0);
      for (index_t c = first; c < last; ++c) {
        for (index_t i = 0; i < n; ++i) u[i] += vectors[c * n + j] * vectors[c * n + i];
      }
      if (taken == 1) {
        for (index_t i = 0; i < n; ++i) u[i] -= plane[j][0] * plane[i][0];
      }
      const double norm = std::sqrt(std::inner_product(u.begin(), u.end(), u.begin(), 0.0));
      for (index_t i = 0; i < n; ++i) {
        plane[i][found] = u[i] / norm;
        length[i] -= plane[i][found] * plane[i][found];
      }
    }
  }
  return plane;
}

// 0 … n-1 by their keys, and by themselves where keys differ by rounding: alike neurons would else change places at
// will.
template <class Key>
std::vector<index_t> sorted_by(index_t n, Key key) {
  std::vector<double> keys(n);
  double largest = 0;
  for (index_t i = 0; i < n; ++i) {
    keys[i] = key(i);
    largest = std::max(largest, std::abs(keys[i]));
  }
  std::vector<index_t> order(n);
  std::iota(order.begin(), order.end(), index_t{0});
  std::stable_sort(order.begin(), order.end(), [&](index_t i, index_t j) { return keys[i] < keys[j]; });
  for (auto first = order.begin(); first != order.end();) {
    auto last = first + 1;
    while (last != order.end() && keys[*last] - keys[*(last - 1)] <= 1e-9 * largest) ++last;
    std::sort(first, last);
    first = last;
  }
  return order;
}

// Neurons by their angle in the leading plane of the centred C: exact for a ring of neurons with alike tuning curves.
std::vector<index_t> circular_seriation(const double* C, index_t n, const HostAlgebra& algebra) {
  const auto plane = leading_plane(C, n, algebra);
  return sorted_by(n, [&](index_t i) { return std::atan2(plane[i][1], plane[i][0]); });
}

// The two smoothest eigenvectors of the graph whose weights fall with the distance of two neurons' outputs, w_ij =
// exp(-3 d_ij^2 / mean d^2), d_ij^2 = C_ii + C_jj - 2 C_ij. The first is monotone along a curve of neurons, where the
// leading eigenvectors of C bend back at the ends: the order by it is within 2 % of a planted curve's, theirs 90 times
// above.
std::vector<std::array<double, 2>> neighbour_plane(const double* C, index_t n, const HostAlgebra& algebra) {
  std::vector<double> L(n * n);  // weights minus degrees
  double total = 0;
  for (index_t i = 0; i < n; ++i) {
    for (index_t j = 0; j < n; ++j) {
      L[i * n + j] = std::max(0.0, C[i * n + i] + C[j * n + j] - 2 * C[i * n + j]);
      total += L[i * n + j];
    }
  }
  const double rate = total > 0 ? -3 * static_cast<double>(n) * static_cast<double>(n) / total : 0;
  for (index_t i = 0; i < n; ++i) {
    double degree = 0;
    for (index_t j = 0; j < n; ++j) {
      L[i * n + j] = std::exp(rate * L[i * n + j]);
      degree += L[i * n + j];
    }
    L[i * n + i] -= degree;
  }
  return leading_plane(L.data(), n, algebra);
}

// A curve of neurons laid around a ring: every other one on the way out, the others on the way back.
std::vector<index_t> folded_seriation(const double* C, index_t n, const HostAlgebra& algebra) {
  const auto plane = neighbour_plane(C, n, algebra);
  const std::vector<index_t> along = sorted_by(n, [&](index_t i) { return plane[i][0]; });
  std::vector<index_t> order;
  for (index_t k = 0; k < n; k += 2) order.push_back(along[k]);
  for (index_t k = n - 1 - n % 2; k > 0; k -= 2) order.push_back(along[k]);
  return order;
}

// Orders that lay the plane of the neurons over the smoothest plane of A: along the first axis either way, and by
// assignment for the eight ways of a square. The best few by cost.
std::vector<std::vector<index_t>> spectral_matches(std::span<const double> A, std::span<const double> C, index_t n,
                                                   double rounding, const HostAlgebra& algebra, Ticker& ticker) {
  std::vector<double> mismatch(A.begin(), A.end());
  for (double& x : mismatch) x = -x;
  const auto places = leading_plane(mismatch.data(), n, algebra);
  const auto neurons = neighbour_plane(C.data(), n, algebra);
  std::vector<std::vector<index_t>> orders;
  const std::vector<index_t> along = sorted_by(n, [&](index_t i) { return places[i][0]; });
  for (const double sign : {1.0, -1.0}) {
    const std::vector<index_t> ranked = sorted_by(n, [&](index_t i) { return sign * neurons[i][0]; });
    std::vector<index_t> order(n);
    for (index_t k = 0; k < n; ++k) order[along[k]] = ranked[k];
    orders.push_back(std::move(order));
  }
  if (n <= kSomeStarts) {
    // Places that are each other's mirror image tie; noise far below the distances of others decides, not the last bit.
    const double noise = 1e-7 / static_cast<double>(n);
    for (int way = 0; way < 8; ++way) {
      const int first = way / 4, second = 1 - first;
      const double sx = way & 1 ? -1 : 1, sy = way & 2 ? -1 : 1;
      for (index_t i = 0; i < n; ++i) {
        for (index_t j = 0; j < n; ++j) {
          mismatch[i * n + j] = -(sx * places[i][0] * neurons[j][first] + sy * places[i][1] * neurons[j][second]) +
                                noise * philox::uniform(0, static_cast<std::uint64_t>(i * n + j));
        }
      }
      orders.push_back(solve_assignment(mismatch, n));
      ticker.work(n * n * n / 8);
    }
  }
  std::vector<double> costs;
  for (const auto& order : orders) costs.push_back(permutation_cost(A, C, order));
  std::vector<std::vector<index_t>> out;
  while (out.size() < kSpectralStarts) {
    const std::size_t best = cheapest(costs, rounding);
    const double cost = costs[best];
    if (cost == kInfinity) break;
    out.push_back(std::move(orders[best]));
    // Equal costs are the same order up to a symmetry of A as a rule.
    for (double& other : costs) {
      if (other <= cost + 8 * rounding) other = kInfinity;
    }
  }
  return out;
}

// Half the barycentre and half a random doubly stochastic matrix, by ten rounds of Sinkhorn's scaling.
void random_doubly_stochastic(std::uint64_t seed, std::uint64_t first, index_t n, std::vector<double>& P) {
  for (index_t k = 0; k < n * n; ++k) P[k] = philox::uniform(seed, first + static_cast<std::uint64_t>(k));
  std::vector<double> sums(n);
  for (int round = 0; round < 10; ++round) {
    for (index_t i = 0; i < n; ++i) {
      double sum = 0;
      for (index_t j = 0; j < n; ++j) sum += P[i * n + j];
      for (index_t j = 0; j < n; ++j) P[i * n + j] /= sum;
    }
    std::fill(sums.begin(), sums.end(), 0.0);
    for (index_t i = 0; i < n; ++i) {
      for (index_t j = 0; j < n; ++j) sums[j] += P[i * n + j];
    }
    for (index_t i = 0; i < n; ++i) {
      for (index_t j = 0; j < n; ++j) P[i * n + j] /= sums[j];
    }
  }
  const double mean = 0.5 / static_cast<double>(n);
  for (double& x : P) x = 0.5 * x + mean;
}

// Frank-Wolfe on f(P) = tr(S P C P^T), S = A - a I, from the doubly stochastic P; the permutation nearest to where it
// ends. With M = S P C, Q the vertex that <M, Q> likes least and N = S Q C, along P + t (Q - P): f(t) = f + 2 t (<M, Q>
// - f) + t^2 (<N, Q> - 2 <M, Q> + f).
std::vector<index_t> descend(const std::vector<double>& S, const double* C, index_t n, std::vector<double>& P,
                             const HostAlgebra& algebra, Ticker& ticker) {
  std::vector<double> M(n * n), N(n * n), work(n * n), duals;
  algebra.multiply(P.data(), C, work.data(), n);
  algebra.multiply(S.data(), work.data(), M.data(), n);
  double f = std::inner_product(M.begin(), M.end(), P.begin(), 0.0);
  for (int step = 0; step < kDescentSteps; ++step) {
    const std::vector<index_t> q = solve_assignment(M, n, duals);
    for (index_t i = 0; i < n; ++i) std::copy_n(C + q[i] * n, n, work.data() + i * n);
    algebra.multiply(S.data(), work.data(), N.data(), n);
    ticker.work(3 * n * n * n);
    double mq = 0, nq = 0;
    for (index_t i = 0; i < n; ++i) {
      mq += M[i * n + q[i]];
      nq += N[i * n + q[i]];
    }
    const double slope = 2 * (mq - f), curvature = nq - 2 * mq + f;
    if (slope >= 0) break;
    const double t = curvature > 0 ? std::min(1.0, -slope / (2 * curvature)) : 1.0;
    for (index_t k = 0; k < n * n; ++k) {
      P[k] *= 1 - t;
      M[k] = (1 - t) * M[k] + t * N[k];
    }
    for (index_t i = 0; i < n; ++i) P[i * n + q[i]] += t;
    const double next = f + t * (slope + t * curvature);
    const bool stalled = f - next <= kDescentGain * (std::abs(f) + std::abs(next));
    f = next;
    if (stalled) break;
  }
  for (index_t k = 0; k < n * n; ++k) work[k] = -P[k];
  return solve_assignment(work, n);
}

// --- all orders ------------------------------------------------------------------------------------------------------

// The first in lexicographic order whose cost is the lowest to rounding; in the dihedral gauge if circulant.
std::vector<index_t> try_all(std::span<const double> A, std::span<const double> C, index_t n, bool circulant,
                             double rounding, Ticker& ticker) {
  std::vector<index_t> order(n), found;
  double lowest = kInfinity;
  for (const bool pick : {false, true}) {
    std::iota(order.begin(), order.end(), index_t{0});
    do {
      if (circulant && order[0] != 0) break;
      if (circulant && n > 2 && order[1] > order[n - 1]) continue;
      const double cost = permutation_cost(A, C, order);
      ticker.work(n * n);
      if (!pick) {
        lowest = std::min(lowest, cost);
      } else if (cost <= lowest + rounding) {
        found = order;
        break;
      }
    } while (std::next_permutation(order.begin(), order.end()));
  }
  return found;
}

void require_square(const char* name, std::span<const double> A, index_t n) {
  if (n < 1 || A.size() != static_cast<std::size_t>(n) * static_cast<std::size_t>(n)) {
    throw InvalidArgument(
        name, "expected n^2 entries for n = " + std::to_string(n) + ", n >= 1, got " + std::to_string(A.size()));
  }
  for (std::size_t k = 0; k < A.size(); ++k) {
    if (!std::isfinite(A[k])) throw NonFinite(name, static_cast<index_t>(k) / n, static_cast<index_t>(k) % n);
  }
}

// A scaled by a power of two so that its largest entry is in [1/2, 1), and the power. No entry is rounded.
std::pair<std::vector<double>, int> scaled(std::span<const double> A) {
  double largest = 0;
  for (const double x : A) largest = std::max(largest, std::abs(x));
  int exponent = 0;
  if (largest > 0) std::frexp(largest, &exponent);
  std::vector<double> out(A.size());
  for (std::size_t k = 0; k < A.size(); ++k) out[k] = std::ldexp(A[k], -exponent);
  return {std::move(out), exponent};
}

}  // namespace

HostAlgebra host_algebra(linalg::LinAlg<double>& la) {
  using linalg::Buffer;
  using linalg::Op;
  HostAlgebra out;
  // Row-major C = A B is column-major C^T = B^T A^T: the same memory with the factors the other way round.
  out.multiply = [&la](const double* A, const double* B, double* C, index_t n) {
    Buffer<double> a(la, n, n), b(la, n, n), c(la, n, n);
    la.upload(A, a.mat());
    la.upload(B, b.mat());
    la.multiply(Op::none, Op::none, 1.0, b.mat(), a.mat(), 0.0, c.mat());
    la.download(c.mat(), C);
  };
  out.eigenvalues = [&la](double* A, index_t n, double* values) {
    Buffer<double> a(la, n, n);
    la.upload(A, a.mat());
    la.eigen_symmetric(a.mat(), values, false);
  };
  out.eigen_largest = [&la](double* A, index_t n, index_t count, double* values, double* V) {
    Buffer<double> a(la, n, n), v(la, n, count);
    la.upload(A, a.mat());
    la.eigen_symmetric_largest(a.mat(), count, values, v.mat());
    la.download(v.mat(), V);
  };
  return out;
}

double permutation_cost(std::span<const double> A, std::span<const double> C, std::span<const index_t> order) {
  const index_t n = static_cast<index_t>(order.size());
  double total = 0;
  for (index_t i = 0; i < n; ++i) {
    const double *a = A.data() + i * n, *c = C.data() + order[i] * n;
    double sum = 0;
    for (index_t j = 0; j < n; ++j) sum += a[j] * c[order[j]];
    total += sum;
  }
  return total;
}

bool is_circulant(std::span<const double> A, index_t n) {
  double largest = 0;
  for (const double x : A) largest = std::max(largest, std::abs(x));
  for (index_t i = 1; i < n; ++i) {
    for (index_t j = 0; j < n; ++j) {
      if (std::abs(A[i * n + j] - A[(j - i + n) % n]) > 1e-10 * largest) return false;
    }
  }
  return true;
}

void fix_dihedral_gauge(std::vector<index_t>& order) {
  std::rotate(order.begin(), std::find(order.begin(), order.end(), index_t{0}), order.end());
  if (order.size() > 2 && order[1] > order.back()) std::reverse(order.begin() + 1, order.end());
}

double projection_bound(std::span<const double> A, std::span<const double> C, index_t n, const HostAlgebra& algebra,
                        std::span<const double> penalty_eigenvalues) {
  require_square("A", A, n);
  require_square("C", C, n);
  return bound_of(A.data(), C.data(), n, algebra, penalty_eigenvalues);
}

void polish_permutation(std::span<const double> A, std::span<const double> C, index_t n, int max_sweeps,
                        const HostAlgebra& algebra, std::vector<index_t>& order, const Poll& poll) {
  require_square("A", A, n);
  require_square("C", C, n);
  Ticker ticker(poll);
  LocalSearch(A.data(), C.data(), n, is_circulant(A, n), algebra, ticker).polish(order, max_sweeps);
}

PermutationSearch search_permutation(std::span<const double> A_given, std::span<const double> C_given, index_t n,
                                     const PermutationParams& params, const HostAlgebra& algebra, const Poll& poll) {
  require_square("A", A_given, n);
  require_square("C", C_given, n);
  Ticker ticker(poll);
  const auto [A, a_exponent] = scaled(A_given);
  auto [C, c_exponent] = scaled(C_given);
  // With A 1 = 0 the parts m 1^T + 1 m^T of C cost nothing, and taking them off keeps their rounding out of the rest.
  // What is left may be small beside them: it is scaled again, unless it is their rounding.
  if (annihilates_ones(A.data(), n)) {
    center(C.data(), n);
    const double nothing = 4.0 * static_cast<double>(n) * std::numeric_limits<double>::epsilon();
    if (std::all_of(C.begin(), C.end(), [&](double x) { return std::abs(x) <= nothing; })) C.assign(C.size(), 0.0);
    auto [rest, exponent] = scaled(C);
    C = std::move(rest);
    c_exponent += exponent;
  }
  LocalSearch search(A.data(), C.data(), n, params.circulant, algebra, ticker);

  PermutationSearch best;
  best.order.resize(n);
  std::iota(best.order.begin(), best.order.end(), index_t{0});
  best.cost = permutation_cost(A, C, best.order);
  if (n <= params.exhaustive_up_to) {
    best.order = try_all(A, C, n, params.circulant, search.rounding(), ticker);
    best.cost = permutation_cost(A, C, best.order);
    best.exact = true;
  } else {
    const auto consider = [&](std::vector<index_t> order) {
      if (params.circulant) fix_dihedral_gauge(order);
      search.polish(order, params.max_sweeps);
      const double cost = permutation_cost(A, C, order);
      if (cost < best.cost - 4 * search.rounding()) {
        best.cost = cost;
        best.order = std::move(order);
      }
      ++best.starts;
    };
    std::vector<std::vector<index_t>> given = {best.order};
    if (n > 2 && params.circulant) {
      given.push_back(circular_seriation(C.data(), n, algebra));
      given.push_back(folded_seriation(C.data(), n, algebra));
    } else if (n > 2) {
      given.emplace_back(best.order.rbegin(), best.order.rend());
      for (auto& order : spectral_matches(A, C, n, search.rounding(), algebra, ticker))
        given.push_back(std::move(order));
    }
    if (n > kAllStarts) {
      std::vector<double> costs;
      for (const auto& order : given) costs.push_back(permutation_cost(A, C, order));
      given = {given[cheapest(costs, search.rounding())]};
    }
    for (auto& order : given) consider(std::move(order));
    std::vector<double> shifted, apart, P;
    double smallest = 0, mean = 0;
    const int descents = descents_of(n, params.starts);
    if (descents > 0) {
      shifted.resize(n * n);
      P.resize(n * n);
      // Neurons that are alike tie in every assignment problem; this tells them apart above rounding.
      apart = C;
      for (index_t i = 0; i < n; ++i) apart[i * n + i] += 1e-7 * philox::uniform(0, static_cast<std::uint64_t>(i));
      std::vector<double> values(n);
      if (params.penalty_eigenvalues.size() == values.size()) {
        for (index_t i = 0; i < n; ++i) values[i] = std::ldexp(params.penalty_eigenvalues[i], -a_exponent);
      } else {
        std::copy(A.begin(), A.end(), shifted.begin());
        algebra.eigenvalues(shifted.data(), n, values.data());
      }
      smallest = *std::min_element(values.begin(), values.end());
      for (index_t i = 0; i < n; ++i) mean += A[i * n + i] / static_cast<double>(n);
    }
    for (int k = 0; k < descents; ++k) {
      const double shift = smallest + kShifts[k % kShifts.size()] * (mean - smallest);
      std::copy(A.begin(), A.end(), shifted.begin());
      for (index_t i = 0; i < n; ++i) shifted[i * n + i] -= shift;
      random_doubly_stochastic(params.seed, static_cast<std::uint64_t>(k) * static_cast<std::uint64_t>(n * n), n, P);
      consider(descend(shifted, apart.data(), n, P, algebra, ticker));
    }
  }
  if (params.circulant) fix_dihedral_gauge(best.order);

  std::vector<double> eigenvalues(params.penalty_eigenvalues.begin(), params.penalty_eigenvalues.end());
  for (double& x : eigenvalues) x = std::ldexp(x, -a_exponent);
  const double bound = bound_of(A.data(), C.data(), n, algebra, eigenvalues);
  best.bound = std::ldexp(std::min(bound, best.cost), a_exponent + c_exponent);
  best.cost = std::ldexp(best.cost, a_exponent + c_exponent);
  return best;
}

}  // namespace brockett
