// The search for a permutation: assignment problems by their duality certificate, small cases against all n! orders,
// rings and curves of neurons that were planted, and the local search by trying every move.
#include "permutation.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <numeric>
#include <random>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "assignment.hpp"
#include "engines.hpp"
#include "reference.hpp"

namespace brockett::test {
namespace {

using Order = std::vector<index_t>;
using Matrix = HostMatrix<double>;

Matrix rounded(const RealMatrix& A) { return A.as<double>(); }

Order identity_order(index_t n) {
  Order p(static_cast<std::size_t>(n));
  std::iota(p.begin(), p.end(), index_t{0});
  return p;
}

Order shuffled(index_t n, unsigned seed) {
  Order p = identity_order(n);
  std::mt19937_64 bits(seed);
  for (std::size_t i = p.size() - 1; i > 0; --i) std::swap(p[i], p[bits() % (i + 1)]);
  return p;
}

Order sorted_order(const std::vector<double>& keys) {
  Order p = identity_order(static_cast<index_t>(keys.size()));
  std::sort(p.begin(), p.end(), [&](index_t i, index_t j) {
    return keys[static_cast<std::size_t>(i)] < keys[static_cast<std::size_t>(j)];
  });
  return p;
}

Order inverse(const Order& p) {
  Order q(p.size());
  for (std::size_t i = 0; i < p.size(); ++i) q[static_cast<std::size_t>(p[i])] = static_cast<index_t>(i);
  return q;
}

bool is_permutation_of(const Order& p, index_t n) {
  Order sorted = p;
  std::sort(sorted.begin(), sorted.end());
  return sorted == identity_order(n);
}

// sum_ij A_ij C_{p_i p_j}, in long double.
Real eta(const Matrix& A, const Matrix& C, const Order& p) {
  Real total = 0;
  for (index_t i = 0; i < A.rows; ++i) {
    for (index_t j = 0; j < A.cols; ++j) {
      total += static_cast<Real>(A(i, j)) * C(p[static_cast<std::size_t>(i)], p[static_cast<std::size_t>(j)]);
    }
  }
  return total;
}

// C_ij -> C_{p_i p_j}
Matrix reordered(const Matrix& C, const Order& p) {
  Matrix out(C.rows, C.cols);
  for (index_t i = 0; i < C.rows; ++i) {
    for (index_t j = 0; j < C.cols; ++j) {
      out(i, j) = C(p[static_cast<std::size_t>(i)], p[static_cast<std::size_t>(j)]);
    }
  }
  return out;
}

Matrix random_symmetric(index_t n, unsigned seed) {
  const Matrix X = Matrix::random(n, n, seed);
  Matrix out(n, n);
  for (index_t i = 0; i < n; ++i) {
    for (index_t j = 0; j < n; ++j) out(i, j) = X(i, j) + X(j, i);
  }
  return out;
}

// Second moments of n Gaussian variables over m samples.
Matrix random_moments(index_t n, index_t m, unsigned seed) {
  const Matrix X = Matrix::random(n, m, seed);
  return rounded(times(X, X.transposed()));
}

// Moments of n neurons whose tuning curves exp(w cos(x - x_i)) stand evenly around a circle, each with noise of its
// own.
Matrix ring(index_t n, double noise, unsigned seed) {
  const index_t m = 512;
  const Matrix error = Matrix::random(n, m, seed);
  Matrix X(n, m);
  for (index_t i = 0; i < n; ++i) {
    for (index_t k = 0; k < m; ++k) {
      const double x =
          2 * std::numbers::pi * (static_cast<double>(k) / 512 - static_cast<double>(i) / static_cast<double>(n));
      X(i, k) = std::exp(3 * (std::cos(x) - 1)) + noise * error(i, k);
    }
  }
  Matrix C = rounded(times(X, X.transposed()));
  for (double& c : C.data) c /= m;
  return C;
}

// Moments of n neurons whose tuning curves stand along a line.
Matrix line(index_t n) {
  Matrix C(n, n);
  for (index_t i = 0; i < n; ++i) {
    for (index_t j = 0; j < n; ++j) {
      const double d = static_cast<double>(i - j) / static_cast<double>(n);
      C(i, j) = std::exp(-12 * d * d);
    }
  }
  return C;
}

struct Problem {
  Matrix A, C;
  std::span<const double> a() const { return A.data; }
  std::span<const double> c() const { return C.data; }
  index_t n() const { return A.rows; }
};

HostAlgebra host() { return host_algebra(linalg::lapack_backend()->full()); }

PermutationSearch search(const Problem& problem, const PermutationParams& params) {
  return search_permutation(problem.a(), problem.c(), problem.n(), params, host());
}

PermutationParams on_a_ring() {
  PermutationParams params;
  params.circulant = true;
  return params;
}

// --- assignment ------------------------------------------------------------------------------------------------------

Real total_cost(const std::vector<double>& cost, const Order& p) {
  Real total = 0;
  for (std::size_t i = 0; i < p.size(); ++i) total += cost[i * p.size() + static_cast<std::size_t>(p[i])];
  return total;
}

TEST(Assignment, by_hand) {
  EXPECT_EQ(solve_assignment(std::vector<double>{}, 0), Order{});
  EXPECT_EQ(solve_assignment(std::vector<double>{7}, 1), Order{0});
  EXPECT_EQ(solve_assignment(std::vector<double>{1, 2, 3, 5}, 2), (Order{1, 0}));  // 2 + 3 < 1 + 5
  EXPECT_EQ(solve_assignment(std::vector<double>{4, 1, 3, 2, 0, 5, 3, 2, 2}, 3), (Order{1, 0, 2}));
  // every row likes column 0 best; it goes to the row that loses most without it
  EXPECT_EQ(solve_assignment(std::vector<double>{0, 2, 9, 0, 3, 4, 0, 8, 8}, 3), (Order{1, 2, 0}));
}

TEST(Assignment, is_the_least_of_all_orders) {
  for (unsigned seed = 0; seed < 60; ++seed) {
    const index_t n = 2 + seed % 6;
    std::vector<double> cost = Matrix::random(n, n, seed).data;
    if (seed % 3 == 1) {
      for (double& x : cost) x = std::floor(2 * x);  // many ties
    }
    Order p = identity_order(n);
    Real least = std::numeric_limits<Real>::infinity();
    do {
      least = std::min(least, total_cost(cost, p));
    } while (std::next_permutation(p.begin(), p.end()));
    const Order found = solve_assignment(cost, n);
    ASSERT_TRUE(is_permutation_of(found, n)) << "seed " << seed;
    EXPECT_NEAR(static_cast<double>(total_cost(cost, found)), static_cast<double>(least), 1e-12) << "seed " << seed;
  }
}

// v and u_i = min_j (cost_ij - v_j) bound every order from below by sum u + sum v: an order that costs this is the
// least.
void expect_certified(const std::vector<double>& cost, const Order& p, const std::vector<double>& v, double tolerance) {
  const auto n = static_cast<index_t>(v.size());
  ASSERT_TRUE(is_permutation_of(p, n));
  Real bound = 0;
  for (index_t i = 0; i < n; ++i) {
    double u = std::numeric_limits<double>::infinity();
    for (index_t j = 0; j < n; ++j) {
      u = std::min(u, cost[static_cast<std::size_t>(i * n + j)] - v[static_cast<std::size_t>(j)]);
    }
    bound += u + static_cast<Real>(v[static_cast<std::size_t>(i)]);
  }
  EXPECT_NEAR(static_cast<double>(total_cost(cost, p) - bound), 0, tolerance);
}

TEST(Assignment, certifies_itself_by_its_duals) {
  for (const index_t n : {1, 2, 13, 57, 130}) {
    const Matrix X = Matrix::random(n, 3, 5);
    std::vector<std::vector<double>> costs = {Matrix::random(n, n, 1).data,
                                              rounded(times(X, X.transposed())).data,  // rank 3, as the descents have
                                              std::vector<double>(static_cast<std::size_t>(n * n), 2.5)};
    costs.push_back(costs[0]);
    for (double& x : costs.back()) x = std::floor(x);
    for (const auto& cost : costs) {
      std::vector<double> duals;
      const Order p = solve_assignment(cost, n, duals);
      expect_certified(cost, p, duals, 1e-11 * static_cast<double>(n));
      // from the duals of another problem, and from nonsense
      std::vector<double> warm = Matrix::random(n, 1, 9).data;
      for (double& x : warm) x *= 100;
      const Order q = solve_assignment(cost, n, warm);
      expect_certified(cost, q, warm, 1e-11 * static_cast<double>(n));
      EXPECT_NEAR(static_cast<double>(total_cost(cost, p) - total_cost(cost, q)), 0, 1e-11 * static_cast<double>(n));
    }
  }
}

TEST(Assignment, refuses_what_does_not_fit) {
  std::vector<double> duals(2);
  EXPECT_EQ(refused_argument([] { solve_assignment(std::vector<double>(5), 2); }), "cost");
  EXPECT_EQ(refused_argument([] { solve_assignment(std::vector<double>(1), -1); }), "cost");
  EXPECT_EQ(refused_argument([&] { solve_assignment(std::vector<double>(9), 3, duals); }), "duals");
}

// --- the dihedral gauge ----------------------------------------------------------------------------------------------

TEST(Permutation, dihedral_gauge_by_hand) {
  const auto fixed = [](Order p) {
    fix_dihedral_gauge(p);
    return p;
  };
  EXPECT_EQ(fixed({0}), Order{0});
  EXPECT_EQ(fixed({1, 0}), (Order{0, 1}));
  EXPECT_EQ(fixed({2, 1, 0}), (Order{0, 1, 2}));
  EXPECT_EQ(fixed({3, 4, 1, 0, 2}), (Order{0, 1, 4, 3, 2}));
  EXPECT_EQ(fixed({3, 4, 2, 0, 1}), (Order{0, 1, 3, 4, 2}));
}

TEST(Permutation, ring_costs_do_not_change_in_the_dihedral_group) {
  for (const index_t n : {3, 6, 11}) {
    const Problem ring_problem{rounded(fourier_penalty(n, 2)), random_moments(n, 2 * n, 3)};
    const Order p = shuffled(n, 4);
    const double cost = permutation_cost(ring_problem.a(), ring_problem.c(), p);
    EXPECT_NEAR(cost / static_cast<double>(eta(ring_problem.A, ring_problem.C, p)), 1, 1e-12);
    for (index_t k = 0; k < n; ++k) {
      Order q = p;
      std::rotate(q.begin(), q.begin() + k, q.end());
      EXPECT_NEAR(permutation_cost(ring_problem.a(), ring_problem.c(), q) / cost, 1, 1e-11);
      std::reverse(q.begin(), q.end());
      EXPECT_NEAR(permutation_cost(ring_problem.a(), ring_problem.c(), q) / cost, 1, 1e-11);
      fix_dihedral_gauge(q);
      Order fixed = p;
      fix_dihedral_gauge(fixed);
      EXPECT_EQ(q, fixed);
    }
  }
}

TEST(Permutation, knows_a_circulant) {
  EXPECT_TRUE(is_circulant(rounded(fourier_penalty(9, 2)).data, 9));
  EXPECT_TRUE(is_circulant(rounded(difference_penalty(8, 2, true)).data, 8));
  EXPECT_FALSE(is_circulant(rounded(difference_penalty(8, 2, false)).data, 8));
  EXPECT_FALSE(is_circulant(random_symmetric(5, 1).data, 5));
  EXPECT_TRUE(is_circulant(std::vector<double>{3}, 1));
}

// --- by hand ---------------------------------------------------------------------------------------------------------

// First differences of one sample y: the order that sorts y, and the tour of least squared steps.
TEST(Permutation, by_hand) {
  const auto outer = [](const std::vector<double>& y) {
    const Matrix column = [&] {
      Matrix m(static_cast<index_t>(y.size()), 1);
      m.data = y;
      return m;
    }();
    return rounded(times(column, column.transposed()));
  };
  const Problem path{rounded(difference_penalty(3, 1, false)), outer({0, 2, 1})};
  PermutationSearch found = search(path, {});
  EXPECT_EQ(found.order, (Order{0, 2, 1}));  // 0, 1, 2; its reverse comes later in the dictionary
  EXPECT_NEAR(found.cost, 2, 1e-14);
  EXPECT_TRUE(found.exact);
  // V^T A V has 1 and 3, V^T C V 2 and 0: 1 times 2 and 3 times 0
  EXPECT_NEAR(found.bound, 2, 1e-13);

  const Problem tour{rounded(difference_penalty(4, 1, true)), outer({0, 2, 1, 3})};
  found = search(tour, on_a_ring());
  EXPECT_EQ(found.order, (Order{0, 1, 3, 2}));  // steps 2, 1, -2, -1 around 0, 2, 3, 1
  EXPECT_NEAR(found.cost, 10, 1e-14);
  EXPECT_LE(found.bound, found.cost);

  const Problem one{Matrix{{2}}, Matrix{{3}}};
  for (const bool circulant : {false, true}) {
    PermutationParams params;
    params.circulant = circulant;
    for (const index_t exhaustive : {0, 8}) {
      params.exhaustive_up_to = exhaustive;
      found = search(one, params);
      EXPECT_EQ(found.order, Order{0});
      EXPECT_EQ(found.cost, 6);
      EXPECT_EQ(found.bound, 6);
    }
  }
}

// --- bound -----------------------------------------------------------------------------------------------------------

TEST(ProjectionBound, is_exact_for_two) {
  // 1*3 + 2*2*1 + 5*7 = 42 in one order, 1*7 + 2*2*1 + 5*3 = 26 in the other
  EXPECT_NEAR(projection_bound(Matrix{{1, 2}, {2, 5}}.data, Matrix{{3, 1}, {1, 7}}.data, 2, host()), 26, 1e-13);
  EXPECT_NEAR(projection_bound(Matrix{{-2}}.data, Matrix{{3}}.data, 1, host()), -6, 1e-14);
}

TEST(ProjectionBound, is_below_every_order) {
  double closest = 1;
  int more = 0;
  for (unsigned seed = 0; seed < 80; ++seed) {
    const index_t n = 2 + seed % 6;
    const bool fourier = seed % 2 == 0;
    const Problem problem{fourier ? rounded(fourier_penalty(n, 2)) : random_symmetric(n, seed),
                          seed % 4 < 2 ? random_moments(n, n + 2, seed) : random_symmetric(n, seed + 500)};
    const double bound = projection_bound(problem.a(), problem.c(), n, host());
    const auto least = static_cast<double>(least_permutation_cost(real(problem.A), real(problem.C)));
    const double size = static_cast<double>(frobenius(problem.A) * frobenius(problem.C));
    EXPECT_LE(bound, least + 1e-12 * size) << "n " << n << " seed " << seed;
    closest = std::min(closest, (least - bound) / size);
    if (fourier) {
      // with A 1 = 0 the projections know more than orthogonality alone
      const auto orthogonal = static_cast<double>(least_cost(real(problem.A), real(problem.C)));
      EXPECT_GE(bound, orthogonal - 1e-12 * size) << "n " << n << " seed " << seed;
      more += bound > orthogonal + 1e-3 * size;
      std::vector<double> eigenvalues;
      for (index_t k = 0; k < n; ++k) eigenvalues.push_back(std::pow(static_cast<double>((k + 1) / 2), 4));
      std::reverse(eigenvalues.begin(), eigenvalues.end());  // in any order
      EXPECT_NEAR(projection_bound(problem.a(), problem.c(), n, host(), eigenvalues), bound, 1e-12 * size);
    }
  }
  EXPECT_LT(closest, 1e-10);  // for n = 2 it is the optimum
  EXPECT_GT(more, 10);
}

TEST(ProjectionBound, holds_where_it_cannot_be_enumerated) {
  for (const index_t n : {12, 40}) {
    const Problem problem{random_symmetric(n, 7), random_symmetric(n, 8)};
    const PermutationSearch found = search(problem, {});
    EXPECT_LT(found.bound, found.cost);
    EXPECT_DOUBLE_EQ(found.bound, projection_bound(problem.a(), problem.c(), n, host()));
  }
}

// --- the local search ------------------------------------------------------------------------------------------------

// No exchange, insertion or reversal is left that helps: all of them are tried one by one.
TEST(Polish, ends_where_no_single_move_helps) {
  for (unsigned seed = 0; seed < 300; ++seed) {
    const index_t n = 3 + seed % 11;
    const int kind = static_cast<int>(seed % 3);
    const Problem problem{kind == 0   ? rounded(fourier_penalty(n, 2))
                          : kind == 1 ? rounded(difference_penalty(n, 2, false))
                                      : random_symmetric(n, seed),
                          kind == 2 ? random_symmetric(n, seed + 50) : random_moments(n, n, seed)};
    const double scale = static_cast<double>(frobenius(problem.A) * frobenius(problem.C));
    Order p = shuffled(n, seed);
    const Real before = eta(problem.A, problem.C, p);
    polish_permutation(problem.a(), problem.c(), n, 1000, host(), p);
    ASSERT_TRUE(is_permutation_of(p, n));
    const Real after = eta(problem.A, problem.C, p);
    EXPECT_LE(after, before);
    for (index_t i = 0; i < n; ++i) {
      for (index_t j = 0; j < n; ++j) {
        Order exchanged = p, inserted = p, reversed = p;
        std::swap(exchanged[static_cast<std::size_t>(i)], exchanged[static_cast<std::size_t>(j)]);
        const index_t neuron = p[static_cast<std::size_t>(i)];
        inserted.erase(inserted.begin() + i);
        inserted.insert(inserted.begin() + j, neuron);
        std::reverse(reversed.begin() + std::min(i, j), reversed.begin() + std::max(i, j) + 1);
        for (const Order* q : {&exchanged, &inserted, &reversed}) {
          EXPECT_GE(static_cast<double>(eta(problem.A, problem.C, *q) - after), -1e-11 * scale)
              << "n " << n << " seed " << seed << " i " << i << " j " << j << " move "
              << (q == &exchanged  ? "exchange"
                  : q == &inserted ? "insertion"
                                   : "reversal");
        }
      }
    }
  }
}

TEST(Polish, each_kind_of_move_is_needed_and_found) {
  // One move from sorted: a curve of neurons with two exchanged, one displaced, a stretch reversed.
  const index_t n = 24;
  const Problem problem{rounded(difference_penalty(n, 1, false)), line(n)};
  const Order sorted = identity_order(n);
  const auto least = static_cast<double>(eta(problem.A, problem.C, sorted));
  Order exchanged = sorted, displaced = sorted, turned = sorted;
  std::swap(exchanged[3], exchanged[17]);
  std::rotate(displaced.begin() + 2, displaced.begin() + 3, displaced.begin() + 20);
  std::reverse(turned.begin() + 5, turned.begin() + 19);
  for (const Order& start : {exchanged, displaced, turned}) {
    Order p = start;
    polish_permutation(problem.a(), problem.c(), n, 1000, host(), p);
    EXPECT_NEAR(permutation_cost(problem.a(), problem.c(), p) / least, 1, 1e-10);
  }
  Order p = turned;
  polish_permutation(problem.a(), problem.c(), n, 0, host(), p);
  EXPECT_EQ(p, turned);
}

// --- the search ------------------------------------------------------------------------------------------------------

TEST(Permutation, small_problems_are_solved_with_and_without_trying_all) {
  int heuristic = 0, not_in_gauge = 0;
  for (unsigned seed = 0; seed < 80; ++seed) {
    const index_t n = 4 + seed % 4;
    const Problem problem{rounded(fourier_penalty(n, 2)), random_moments(n, 2 * n, seed)};
    const auto least = static_cast<double>(least_permutation_cost(real(problem.A), real(problem.C)));
    PermutationParams params = on_a_ring();
    const PermutationSearch all = search(problem, params);
    EXPECT_TRUE(all.exact);
    EXPECT_NEAR(all.cost / least, 1, 1e-12);
    EXPECT_NEAR(static_cast<double>(eta(problem.A, problem.C, all.order)) / least, 1, 1e-12);
    EXPECT_EQ(all.order[0], 0);
    EXPECT_LT(all.order[1], all.order.back());
    EXPECT_LE(all.bound, all.cost);
    params.exhaustive_up_to = 0;
    const PermutationSearch some = search(problem, params);
    EXPECT_FALSE(some.exact);
    EXPECT_EQ(some.order[0], 0);
    heuristic += some.cost < least * (1 + 1e-12);
  }
  EXPECT_EQ(heuristic, 80);

  // A that is not circulant has no gauge: rotating its optimum would not be one.
  for (unsigned seed = 0; seed < 40; ++seed) {
    const index_t n = 3 + seed % 5;
    const Problem problem{seed % 2 ? random_symmetric(n, seed) : rounded(difference_penalty(n, 1, false)),
                          random_moments(n, 2 * n, seed + 900)};
    const auto least = static_cast<double>(least_permutation_cost(real(problem.A), real(problem.C)));
    const double tolerance = 1e-12 * static_cast<double>(frobenius(problem.A) * frobenius(problem.C));
    PermutationParams params;
    const PermutationSearch all = search(problem, params);
    EXPECT_NEAR(all.cost, least, tolerance);
    not_in_gauge += all.order[0] != 0;
    params.exhaustive_up_to = 0;
    EXPECT_NEAR(search(problem, params).cost, least, tolerance) << "n " << n << " seed " << seed;
  }
  EXPECT_GT(not_in_gauge, 10);
}

TEST(Permutation, planted_rings_come_back) {
  for (const index_t n : {16, 31, 64, 96}) {
    const Matrix A = rounded(fourier_penalty(n, 2));
    for (const double noise : {0.0, 0.01, 0.03}) {
      const Order hidden = shuffled(n, static_cast<unsigned>(n));
      const Problem problem{A, reordered(ring(n, noise, 11), hidden)};
      Order planted = inverse(hidden);
      fix_dihedral_gauge(planted);
      PermutationParams params = on_a_ring();
      params.starts = 2;
      const PermutationSearch found = search(problem, params);
      EXPECT_EQ(found.order, planted) << "n " << n << " noise " << noise;
      EXPECT_NEAR(found.cost / static_cast<double>(eta(problem.A, problem.C, planted)), 1, 1e-9);
      EXPECT_GT(found.bound, 0.2 * found.cost);  // a smooth ring is where the bound is of use
    }
  }
}

// A ring of neurons that differ in height, width and distance, by seeds; `others` directions of noise hide it.
struct UnevenRing {
  Problem problem;
  Order around;
};

UnevenRing uneven_ring(index_t n, index_t others, unsigned seed) {
  const index_t m = 256;
  std::mt19937_64 bits(seed);
  std::uniform_real_distribution<double> uniform;
  std::vector<double> place;
  Matrix X(n, m);
  for (index_t i = 0; i < n; ++i) {
    place.push_back(2 * std::numbers::pi * uniform(bits));
    const double height = 0.5 + uniform(bits), sharpness = 2 + 6 * uniform(bits);
    for (index_t k = 0; k < m; ++k) {
      const double x = 2 * std::numbers::pi * static_cast<double>(k) / static_cast<double>(m);
      X(i, k) = height * std::exp(sharpness * (std::cos(x - place.back()) - 1));
    }
  }
  const Matrix Z = Matrix::random(n, others, seed);
  const RealMatrix C = plus(times(X, X.transposed()), 20, times(Z, Z.transposed()));
  Order around = sorted_order(place);
  return {{rounded(fourier_penalty(n, 2)), rounded(C)}, around};
}

TEST(Permutation, search_is_better_than_the_order_of_an_uneven_ring) {
  const UnevenRing ring_of = uneven_ring(48, 0, 5);
  const PermutationSearch found = search(ring_of.problem, on_a_ring());
  EXPECT_LT(found.cost, 0.8 * static_cast<double>(eta(ring_of.problem.A, ring_of.problem.C, ring_of.around)));
  EXPECT_EQ(found.starts, 11);
}

// Without the shift they fall back to the barycentre and end anywhere.
TEST(Permutation, descents_are_good_before_they_are_polished) {
  for (const unsigned seed : {1u, 2u, 3u}) {
    const Problem problem = uneven_ring(48, 4, seed).problem;
    PermutationParams params = on_a_ring();
    params.max_sweeps = 0;
    const double descended = search(problem, params).cost;
    params.starts = 0;
    EXPECT_LT(descended, 0.6 * search(problem, params).cost) << "seed " << seed;
  }
}

// By the alignment of eigenvectors alone, and where it is polished.
TEST(Permutation, planted_lines_come_back) {
  for (const index_t n : {12, 33, 64}) {
    for (const int order : {1, 2}) {
      const Order hidden = shuffled(n, static_cast<unsigned>(n));
      const Problem problem{rounded(difference_penalty(n, order, false)), reordered(line(n), hidden)};
      Order planted = inverse(hidden), turned = planted;
      std::reverse(turned.begin(), turned.end());
      PermutationParams params;
      params.starts = 0;
      for (const int max_sweeps : {0, 1000}) {
        params.max_sweeps = max_sweeps;
        const PermutationSearch found = search(problem, params);
        EXPECT_TRUE(found.order == planted || found.order == turned) << "n " << n << " sweeps " << max_sweeps;
      }
    }
  }
}

TEST(Permutation, neurons_on_a_line_fold_around_a_ring) {
  const index_t n = 40;
  const Problem problem{rounded(fourier_penalty(n, 2)), reordered(line(n), shuffled(n, 2))};
  PermutationParams params = on_a_ring();
  params.starts = 0;
  Order around = inverse(shuffled(n, 2)), folded;  // the sorted line, cut open: what seriation by angles ends at
  for (index_t k = 0; k < n; k += 2) folded.push_back(around[static_cast<std::size_t>(k)]);
  for (index_t k = n - 1; k > 0; k -= 2) folded.push_back(around[static_cast<std::size_t>(k)]);
  const PermutationSearch found = search(problem, params);
  EXPECT_LE(found.cost, static_cast<double>(eta(problem.A, problem.C, folded)) * (1 + 1e-12));
  EXPECT_LT(found.cost, 0.2 * static_cast<double>(eta(problem.A, problem.C, around)));
}

TEST(Permutation, same_seed_same_order_and_more_starts_are_no_worse) {
  const Problem problem{rounded(fourier_penalty(40, 2)), random_moments(40, 60, 21)};
  PermutationParams params = on_a_ring();
  double cost = std::numeric_limits<double>::infinity();
  std::set<Order> orders;
  for (const int starts : {0, 1, 4, 16}) {
    params.starts = starts;
    const PermutationSearch found = search(problem, params);
    EXPECT_EQ(found.order, search(problem, params).order);
    EXPECT_EQ(found.starts, 3 + starts);
    EXPECT_LE(found.cost, cost);
    cost = found.cost;
    EXPECT_NEAR(found.cost / static_cast<double>(eta(problem.A, problem.C, found.order)), 1, 1e-11);
  }
  params.starts = 2;
  for (std::uint64_t seed = 0; seed < 6; ++seed) {
    params.seed = seed;
    orders.insert(search(problem, params).order);
  }
  EXPECT_GT(orders.size(), 1u);
}

TEST(Permutation, what_costs_nothing_to_permute_stays) {
  for (const index_t n : {2, 5, 9, 20}) {
    const Matrix A = rounded(fourier_penalty(n, 2)), zero(n, n);
    Matrix means(n, n);  // m 1^T + 1 m^T: nothing but its rounding is left of it
    for (index_t i = 0; i < n; ++i) {
      for (index_t j = 0; j < n; ++j) means(i, j) = std::sin(static_cast<double>(i)) + std::sin(static_cast<double>(j));
    }
    for (const Problem& problem :
         {Problem{A, zero}, Problem{A, means}, Problem{A, Matrix::identity(n)}, Problem{A, Matrix(n, n, 0.1)},
          Problem{zero, random_moments(n, n, 1)}, Problem{Matrix::identity(n), A}}) {
      for (const bool circulant : {false, true}) {
        PermutationParams params;
        params.circulant = circulant;
        params.exhaustive_up_to = 5;
        params.starts = 1;
        const PermutationSearch found = search(problem, params);
        EXPECT_EQ(found.order, identity_order(n)) << "n " << n;
        EXPECT_LE(found.bound, found.cost);
      }
    }
  }
}

TEST(Permutation, scale_does_not_matter) {
  const index_t n = 20;
  Problem problem{rounded(fourier_penalty(n, 2)), random_moments(n, n, 3)};
  const PermutationSearch plain = search(problem, on_a_ring());
  for (double& x : problem.A.data) x *= 0x1p-600;
  for (double& x : problem.C.data) x *= 0x1p900;
  const PermutationSearch scaled = search(problem, on_a_ring());
  EXPECT_EQ(scaled.order, plain.order);
  EXPECT_EQ(scaled.cost, plain.cost * 0x1p300);
  EXPECT_EQ(scaled.bound, plain.bound * 0x1p300);
}

// C + m 1^T + 1 m^T costs the same where A 1 = 0. In integers nothing of C is lost; left in, m would hide every move
// behind its rounding.
TEST(Permutation, mean_outputs_do_not_matter) {
  const index_t n = 20;
  Problem problem{rounded(fourier_penalty(n, 2)), random_moments(n, n, 3)};
  for (double& x : problem.C.data) x = std::floor(8 * x);
  const PermutationSearch plain = search(problem, on_a_ring());
  for (index_t i = 0; i < n; ++i) {
    for (index_t j = 0; j < n; ++j) problem.C(i, j) += 0x1p40 * static_cast<double>(i % 7 + j % 7);
  }
  const PermutationSearch shifted = search(problem, on_a_ring());
  EXPECT_EQ(shifted.order, plain.order);
  EXPECT_NEAR(shifted.cost / plain.cost, 1, 1e-2);  // the mean of C is rounded
}

TEST(Permutation, runs_over_every_backend) {
  const Problem problem{rounded(fourier_penalty(18, 2)), random_moments(18, 30, 3)};
  const auto guarded = make_guarded_backend();
  const PermutationSearch there =
      search_permutation(problem.a(), problem.c(), 18, on_a_ring(), host_algebra(guarded->full()));
  EXPECT_EQ(there.order, search(problem, on_a_ring()).order);
  EXPECT_EQ(there.bound, search(problem, on_a_ring()).bound);
}

TEST(Permutation, can_be_interrupted_anywhere) {
  const Problem problem{rounded(difference_penalty(160, 2, true)), random_moments(160, 200, 3)};
  PermutationParams params = on_a_ring();
  params.starts = 1;
  int calls = 0;
  search_permutation(problem.a(), problem.c(), 160, params, host(), [&] { ++calls; });
  EXPECT_GT(calls, 20);
  for (const int k : {0, 1, calls / 4, calls / 2, calls - 1}) {
    int left = k;
    EXPECT_THROW(search_permutation(problem.a(), problem.c(), 160, params, host(),
                                    [&] {
                                      if (left-- == 0) throw Interrupted();
                                    }),
                 Interrupted);
  }
}

TEST(Permutation, refuses_what_does_not_fit) {
  const Matrix A = rounded(fourier_penalty(3, 2));
  Matrix bad = A;
  bad.data[5] = std::numeric_limits<double>::quiet_NaN();
  EXPECT_EQ(refused_argument([&] { search_permutation(A.data, A.data, 4, {}, host()); }), "A");
  EXPECT_EQ(refused_argument([&] { search_permutation({}, {}, 0, {}, host()); }), "A");
  EXPECT_EQ(refused_argument([&] { search_permutation(A.data, std::vector<double>(4), 3, {}, host()); }), "C");
  EXPECT_EQ(nonfinite_index([&] { search_permutation(A.data, bad.data, 3, {}, host()); }), "C(1, 2)");
  bad.data[5] = std::numeric_limits<double>::infinity();
  EXPECT_EQ(nonfinite_index([&] { search_permutation(bad.data, A.data, 3, {}, host()); }), "A(1, 2)");
  EXPECT_EQ(nonfinite_index([&] { projection_bound(A.data, bad.data, 3, host()); }), "C(1, 2)");
}

}  // namespace
}  // namespace brockett::test
