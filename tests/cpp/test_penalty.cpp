#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "brockett/penalty.hpp"
#include "penalty_basis.hpp"
#include "reference.hpp"

namespace brockett::test {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kSqrt2 = std::numbers::sqrt2;

using Numbers = std::vector<double>;

/// A penalty, its matrix by definition, and whether its eigenvalues are integers.
struct Case {
  std::string name;
  Penalty penalty;
  RealMatrix A;
  bool exact = false;
};

RealMatrix random_symmetric(index_t n, unsigned seed) {
  const RealMatrix G = random_real(n, n, seed);
  const RealMatrix S = plus(G, 1, G.transposed());
  return real(S.as<double>());
}

std::vector<Case> cases(index_t n) {
  std::vector<Case> out;
  for (const int order : {0, 1, 2, 3}) {
    out.push_back(
        {"Fourier, order " + std::to_string(order), fourier_derivative(order), fourier_penalty(n, order), true});
  }
  out.push_back({"Fourier, order 1/2", fourier_derivative(0.5), fourier_penalty(n, 0.5L), true});
  out.push_back({"Fourier, order 1.3", fourier_derivative(1.3), fourier_penalty(n, 1.3), false});
  for (const int order : {1, 2, 3}) {
    for (const bool periodic : {true, false}) {
      out.push_back({"difference " + std::to_string(order) + (periodic ? ", periodic" : ", Neumann"),
                     finite_difference(order, periodic ? Boundary::periodic : Boundary::neumann),
                     difference_penalty(n, order, periodic)});
    }
  }
  out.push_back({"one-axis grid", grid({n}, 2), fourier_penalty(n, 2), true});
  out.push_back({"one-axis grid, Neumann", grid({n}, 1, Boundary::neumann), grid_penalty({n}, 1, false)});
  HostMatrix<double> L = difference_penalty(n, 1, false).as<double>();  // a path, and one more edge of weight 1/2
  if (n > 2) L(0, 0) += 0.5, L(n - 1, n - 1) += 0.5, L(0, n - 1) -= 0.5, L(n - 1, 0) -= 0.5;
  out.push_back({"graph", graph_laplacian(L.view()), real(L)});
  out.push_back({"graph, power 3", graph_laplacian(L.view(), 3), power(real(L), 3)});
  const HostMatrix<double> S = random_symmetric(n, 40).as<double>();  // indefinite
  out.push_back({"custom", custom(S.view()), real(S)});
  const HostMatrix<double> I = HostMatrix<double>::identity(n);
  out.push_back({"custom, identity", custom(I.view()), real(I)});
  return out;
}

template <class E>
class PenaltyTest : public EngineTest<E> {
 protected:
  void check(const Case& c, index_t n) {
    SCOPED_TRACE(c.name + ", n = " + std::to_string(n));
    const Numbers lambda = eigenvalues(this->context, c.penalty, n);
    const HostMatrix<double> T = this->to_host(basis(this->context, c.penalty, n));
    const HostMatrix<double> A = this->to_host(matrix(this->context, c.penalty, n));
    ASSERT_EQ(static_cast<index_t>(lambda.size()), n);
    ASSERT_EQ(T.rows, n);
    ASSERT_EQ(T.cols, n);
    const Real size =
        std::max(std::abs(static_cast<Real>(lambda.front())), std::abs(static_cast<Real>(lambda.back()))) + 1e-300L;
    EXPECT_LE(difference(A, c.A), 1e-12L * size + 1e-17L);
    EXPECT_EQ(difference(A, A.transposed()), 0);
    EXPECT_LE(orthogonality_error(T), 1e-13);
    const RealMatrix AT = times(c.A, T), TL = times(T, RealMatrix::diagonal({lambda.begin(), lambda.end()}));
    EXPECT_LE(difference(AT, TL), 1e-12L * size + 1e-17L);
    for (std::size_t i = 1; i < lambda.size(); ++i) EXPECT_LE(lambda[i - 1], lambda[i]);
    if (c.exact) {
      for (const double v : lambda) EXPECT_EQ(v, std::round(v));
    }
    // T is applied as what it is, from either side, to rows that are padded
    const PenaltyBasis p(this->context, c.penalty, n);
    const HostMatrix<double> X = HostMatrix<double>::random(3, n, 41);
    const auto values = this->to_device(X, Order::column_major, 2),
               coefficients = this->to_device(X, Order::column_major, 2);
    p.apply(linalg::Op::none, values);
    EXPECT_LE(difference(this->to_host(values), times(X, T.transposed())), 1e-13);
    p.apply(linalg::Op::transpose, coefficients);
    EXPECT_LE(difference(this->to_host(coefficients), times(X, T)), 1e-13);
    EXPECT_EQ(p.lambda(), lambda);
    EXPECT_EQ(p.n(), n);
    // blocks: equal within, different across
    const auto& blocks = p.blocks();
    ASSERT_EQ(blocks.front(), 0);
    ASSERT_EQ(blocks.back(), n);
    EXPECT_EQ(blocks, runs({lambda.begin(), lambda.end()}, 1e-12L * size));
  }
};
TYPED_TEST_SUITE(PenaltyTest, Backends, BackendNames);

TYPED_TEST(PenaltyTest, fourier_by_hand) {
  EXPECT_EQ(eigenvalues(this->context, fourier_derivative(), 1), Numbers({0}));
  EXPECT_EQ(eigenvalues(this->context, fourier_derivative(), 2), Numbers({0, 1}));
  EXPECT_EQ(eigenvalues(this->context, fourier_derivative(), 3), Numbers({0, 1, 1}));
  EXPECT_EQ(eigenvalues(this->context, fourier_derivative(), 6), Numbers({0, 1, 1, 16, 16, 81}));
  EXPECT_EQ(eigenvalues(this->context, fourier_derivative(1), 5), Numbers({0, 1, 1, 4, 4}));
  EXPECT_EQ(eigenvalues(this->context, fourier_derivative(0.5), 4), Numbers({0, 1, 1, 2}));
  EXPECT_EQ(eigenvalues(this->context, fourier_derivative(0), 3), Numbers({1, 1, 1}));
  EXPECT_EQ(eigenvalues(this->context, Penalty{}, 3), Numbers({0, 1, 1}));  // the default
  // n = 2: A = [[1, -1], [-1, 1]] / 2
  const auto A = this->to_host(matrix(this->context, fourier_derivative(), 2));
  EXPECT_LE(difference(A, HostMatrix<double>{{0.5, -0.5}, {-0.5, 0.5}}), 1e-15);
  // n = 4: constant, cosine, sine, Nyquist
  const double h = 0.5, r = 1 / kSqrt2;
  const HostMatrix<double> T{{h, r, 0, h}, {h, 0, r, -h}, {h, -r, 0, h}, {h, 0, -r, -h}};
  EXPECT_LE(difference(this->to_host(basis(this->context, fourier_derivative(), 4)), T), 1e-15);
  EXPECT_EQ(this->to_host(basis(this->context, fourier_derivative(), 1))(0, 0), 1);
}

TYPED_TEST(PenaltyTest, differences_by_hand) {
  // periodic, n = 4: 4 sin^2(pi k / 4) = 0, 2, 2, 4
  const auto first = eigenvalues(this->context, finite_difference(1), 4);
  const auto second = eigenvalues(this->context, finite_difference(2), 4);
  const double want[] = {0, 2, 2, 4};
  for (std::size_t i = 0; i < 4; ++i) {
    EXPECT_NEAR(first[i], want[i], 1e-15);
    EXPECT_NEAR(second[i], want[i] * want[i], 1e-14);
  }
  EXPECT_EQ(first[1], first[2]);  // a pair is exactly equal
  EXPECT_EQ(first[3], 4);
  // Neumann, n = 3: the path 1 - 2 - 3 has 0, 1, 3 and vectors (1, 1, 1), (1, 0, -1), (1, -2, 1)
  const Penalty path = finite_difference(1, Boundary::neumann);
  const auto lambda = eigenvalues(this->context, path, 3);
  EXPECT_NEAR(lambda[0], 0, 1e-15);
  EXPECT_NEAR(lambda[1], 1, 1e-15);
  EXPECT_NEAR(lambda[2], 3, 1e-15);
  const double a = 1 / std::sqrt(3.0), b = 1 / kSqrt2, c = 1 / std::sqrt(6.0);
  EXPECT_LE(difference(this->to_host(basis(this->context, path, 3)),
                       HostMatrix<double>{{a, b, c}, {a, 0, -2 * c}, {a, -b, c}}),
            1e-15);
  EXPECT_LE(difference(this->to_host(matrix(this->context, path, 3)),
                       HostMatrix<double>{{1, -1, 0}, {-1, 2, -1}, {0, -1, 1}}),
            1e-15);
}

TYPED_TEST(PenaltyTest, matrices_by_hand) {
  // two nodes, one edge of weight 3: eigenvalues 0, 6; power 2: 36
  const HostMatrix<double> L{{3, -3}, {-3, 3}};
  const auto one = eigenvalues(this->context, graph_laplacian(L.view()), 2);
  EXPECT_EQ(one[0], 0);
  EXPECT_NEAR(one[1], 6, 1e-14);
  EXPECT_NEAR(eigenvalues(this->context, graph_laplacian(L.view(), 2), 2)[1], 36, 1e-13);
  const double r = 1 / kSqrt2;
  // largest entry positive, the first of equals; which of the two is larger in the last bit is the solver's business
  const auto T = this->to_host(basis(this->context, graph_laplacian(L.view()), 2));
  EXPECT_NEAR(T(0, 0), r, 1e-15);
  EXPECT_NEAR(T(1, 0), r, 1e-15);
  EXPECT_NEAR(T(0, 1) * T(1, 1), -0.5, 1e-15);
  // negative eigenvalues come first; a power of them is sorted again
  const HostMatrix<double> D{{2, 0, 0}, {0, -3, 0}, {0, 0, 1}};
  EXPECT_EQ(eigenvalues(this->context, custom(D.view()), 3), Numbers({-3, 1, 2}));
  EXPECT_EQ(difference(this->to_host(basis(this->context, custom(D.view()), 3)),
                       HostMatrix<double>{{0, 0, 1}, {1, 0, 0}, {0, 1, 0}}),
            0);
  Penalty squared = custom(D.view());
  squared.power = 2;
  EXPECT_EQ(eigenvalues(this->context, squared, 3), Numbers({1, 4, 9}));
  EXPECT_LE(difference(this->to_host(matrix(this->context, squared, 3)), HostMatrix<double>::diagonal({4, 9, 1})),
            1e-14);
  EXPECT_EQ(eigenvalues(this->context, custom(HostMatrix<double>{{-7}}.view()), 1), Numbers({-7}));
}

TYPED_TEST(PenaltyTest, grids_by_hand) {
  // 2 x 3, order 1: k_1^2 + k_2^2 over k_1 in 0, 1 and k_2 in 0, 1, 1; ties by flat index
  EXPECT_EQ(eigenvalues(this->context, grid({2, 3}, 1), 6), Numbers({0, 1, 1, 1, 2, 2}));
  EXPECT_EQ(eigenvalues(this->context, grid({2, 3}, 2), 6), Numbers({0, 1, 1, 1, 4, 4}));
  EXPECT_EQ(eigenvalues(this->context, grid({1, 1, 1}, 2), 1), Numbers({0}));
  const auto T = this->to_host(basis(this->context, grid({2, 3}, 1), 6));
  const RealMatrix two{{1, 1}, {1, -1}};
  const Real s = std::sqrt(Real{2}), h = std::sqrt(Real{3}) / 2;
  const RealMatrix three{{1, s, 0}, {1, -s / 2, s * h}, {1, -s / 2, -s * h}};
  const RealMatrix K = kronecker(two, three);  // times 1 / sqrt 6; columns 0 … 5 have 0, 1, 1, 1, 2, 2: as they are
  EXPECT_LE(difference(T, plus(RealMatrix(6, 6), 1 / std::sqrt(Real{6}), K)), 1e-15);
  // 3 x 2: columns 0 … 5 have 0, 1, 1, 2, 1, 2: the fifth moves up
  const auto S = this->to_host(basis(this->context, grid({3, 2}, 1), 6));
  const RealMatrix M = kronecker(three, two);
  const index_t from[] = {0, 1, 2, 4, 3, 5};
  for (index_t j = 0; j < 6; ++j) {
    for (index_t i = 0; i < 6; ++i)
      EXPECT_NEAR(S(i, j), static_cast<double>(M(i, from[j]) / std::sqrt(Real{6})), 1e-15);
  }
}

TYPED_TEST(PenaltyTest, eigenpairs_of_every_kind) {
  for (const index_t n : {1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 17}) {
    for (const Case& c : cases(n)) this->check(c, n);
  }
}

TYPED_TEST(PenaltyTest, eigenpairs_of_grids) {
  const std::vector<std::vector<index_t>> shapes{{2, 2}, {3, 4},    {4, 4},    {5, 3}, {1, 7},
                                                 {7, 1}, {2, 3, 4}, {3, 3, 3}, {1, 1}, {2, 1, 5}};
  for (const auto& shape : shapes) {
    index_t n = 1;
    std::string name = "grid";
    for (const index_t length : shape) n *= length, name += " " + std::to_string(length);
    for (const int order : {1, 2}) {
      for (const bool periodic : {true, false}) {
        this->check({name + (periodic ? "" : ", Neumann"),
                     grid(shape, order, periodic ? Boundary::periodic : Boundary::neumann),
                     grid_penalty(shape, order, periodic), periodic},
                    n);
      }
    }
  }
}

TYPED_TEST(PenaltyTest, large_fourier_eigenvalues_are_exact) {
  const auto lambda = eigenvalues(this->context, fourier_derivative(), 1001);
  for (std::int64_t i = 0; i < 1001; ++i) {
    const std::int64_t k = (i + 1) / 2;
    EXPECT_EQ(lambda[static_cast<std::size_t>(i)], static_cast<double>(k * k * k * k));
  }
  EXPECT_EQ(eigenvalues(this->context, fourier_derivative(), 1000).back(), 62500000000.0);
}

TYPED_TEST(PenaltyTest, blocks_of_degenerate_matrices) {
  // eigenvalues 1, 1, 1, 4, 4, 9 in a random basis come with rounding, and are blocks all the same
  const HostMatrix<double> A = with_eigenvalues({1, 1, 1, 4, 4, 9}, 42).as<double>();
  EXPECT_EQ(PenaltyBasis(this->context, custom(A.view()), 6).blocks(), std::vector<index_t>({0, 3, 5, 6}));
  EXPECT_EQ(PenaltyBasis(this->context, fourier_derivative(), 6).blocks(), std::vector<index_t>({0, 1, 3, 5, 6}));
  EXPECT_EQ(PenaltyBasis(this->context, fourier_derivative(0), 4).blocks(), std::vector<index_t>({0, 4}));
  EXPECT_EQ(PenaltyBasis(this->context, finite_difference(2, Boundary::neumann), 4).blocks(),
            std::vector<index_t>({0, 1, 2, 3, 4}));
  EXPECT_EQ(PenaltyBasis(this->context, grid({4, 4}, 2), 16).blocks(), std::vector<index_t>({0, 1, 5, 9, 11, 15, 16}));
  EXPECT_EQ(PenaltyBasis(this->context, grid({3, 3}, 2, Boundary::neumann), 9).blocks(),
            std::vector<index_t>({0, 1, 3, 4, 6, 8, 9}));
  // the lowest eigenvalues of a long axis are 1e-13 of the highest, and not equal for that
  EXPECT_EQ(PenaltyBasis(this->context, grid({300}, 3, Boundary::neumann), 300).blocks().size(), 301u);
  const HostMatrix<double> path = difference_penalty(300, 1, false).as<double>();
  EXPECT_EQ(PenaltyBasis(this->context, graph_laplacian(path.view(), 4), 300).blocks().size(), 301u);
}

TYPED_TEST(PenaltyTest, matrix_eigenvectors_are_signed) {
  for (const unsigned seed : {1u, 2u, 3u}) {
    const HostMatrix<double> A = random_symmetric(7, seed).as<double>();
    const auto T = this->to_host(basis(this->context, custom(A.view()), 7));
    for (index_t j = 0; j < 7; ++j) {
      index_t at = 0;
      for (index_t i = 1; i < 7; ++i) at = std::abs(T(i, j)) > std::abs(T(at, j)) ? i : at;
      EXPECT_GT(T(at, j), 0);
    }
  }
}

TYPED_TEST(PenaltyTest, circulant_means_shift_invariant) {
  for (const index_t n : {4, 7}) {
    for (const Case& c : cases(n)) {
      bool shift_invariant = true;
      for (index_t i = 0; i < n; ++i) {
        for (index_t j = 0; j < n; ++j) {
          shift_invariant = shift_invariant &&
                            std::abs(c.A(i, j) - c.A((i + 1) % n, (j + 1) % n)) <= 1e-12L * (std::abs(c.A(0, 0)) + 1);
        }
      }
      // a matrix may be circulant without being known to be
      const bool said = PenaltyBasis(this->context, c.penalty, n).circulant();
      EXPECT_TRUE(said == shift_invariant || (c.penalty.kind == Penalty::Kind::matrix && !said)) << c.name;
    }
  }
  EXPECT_FALSE(PenaltyBasis(this->context, grid({2, 2}), 4).circulant());
}

TYPED_TEST(PenaltyTest, matrices_in_any_layout_and_barely_asymmetric) {
  HostMatrix<double> A = random_symmetric(5, 9).as<double>();
  const auto lambda = eigenvalues(this->context, custom(A.view()), 5);
  std::vector<double> padded(5 * 7, kNaN);
  for (index_t i = 0; i < 5; ++i) {
    for (index_t j = 0; j < 5; ++j) padded[static_cast<std::size_t>(i * 7 + j)] = A(i, j);
  }
  EXPECT_EQ(eigenvalues(this->context, custom({padded.data(), 5, 5, 7, Order::row_major}), 5), lambda);
  EXPECT_EQ(eigenvalues(this->context, custom({padded.data(), 5, 5, 7, Order::column_major}), 5), lambda);
  const double average = A(0, 1) * (1 + 0.5e-9);
  A(0, 1) *= 1 + 1e-9;  // averaged
  const auto mean = this->to_host(matrix(this->context, custom(A.view()), 5));
  EXPECT_EQ(difference(mean, mean.transposed()), 0);
  EXPECT_NEAR(mean(0, 1), average, 1e-13);
}

TYPED_TEST(PenaltyTest, what_is_refused_is_named) {
  const auto made = [](auto&& make) { return refused_argument([&] { make(); }); };
  EXPECT_EQ(made([] { fourier_derivative(-1); }), "order");
  EXPECT_EQ(made([] { fourier_derivative(kNaN); }), "order");
  EXPECT_EQ(made([] { fourier_derivative(kInf); }), "order");
  EXPECT_EQ(made([] { finite_difference(0); }), "order");
  EXPECT_EQ(made([] { grid({3, 4}, -2); }), "order");
  EXPECT_EQ(made([] { grid({}); }), "shape");
  EXPECT_EQ(made([] { grid({3, 0}); }), "shape");
  EXPECT_EQ(made([] { grid({-3, -4}); }), "shape");
  const HostMatrix<double> L{{1, -1}, {-1, 1}}, bad_sum{{1, -1}, {-1, 2}}, skew{{1, -1}, {1, 1}}, wide(2, 3);
  EXPECT_EQ(made([&] { graph_laplacian(L.view()); }), "");
  EXPECT_EQ(made([&] { graph_laplacian(L.view(), 0); }), "power");
  EXPECT_EQ(made([&] { graph_laplacian(bad_sum.view()); }), "L");
  EXPECT_EQ(made([&] { graph_laplacian(skew.view()); }), "L");
  EXPECT_EQ(made([&] { graph_laplacian(wide.view()); }), "L");
  EXPECT_EQ(made([&] { custom(skew.view()); }), "A");
  EXPECT_EQ(made([&] { custom(wide.view()); }), "A");
  EXPECT_EQ(made([&] { custom({}); }), "A");
  EXPECT_EQ(made([&] { custom(MatrixView<const double>(nullptr, 2, 2)); }), "A");
  EXPECT_EQ(made([&] { custom(MatrixView<const double>(L.data.data(), 2, 2, 1, Order::row_major)); }), "A");
  HostMatrix<double> bad = HostMatrix<double>::identity(3);
  bad(1, 2) = bad(2, 1) = kInf;
  EXPECT_EQ(nonfinite_index([&] { custom(bad.view()); }), "A(1, 2)");
  EXPECT_EQ(nonfinite_index([&] { graph_laplacian(bad.view()); }), "L(1, 2)");

  for (const index_t n : {0, -1}) {
    EXPECT_EQ(made([&] { eigenvalues(this->context, fourier_derivative(), n); }), "n");
    EXPECT_EQ(made([&] { basis(this->context, finite_difference(), n); }), "n");
    EXPECT_EQ(made([&] { matrix(this->context, grid({2}), n); }), "n");
  }
  EXPECT_EQ(made([&] { eigenvalues(this->context, grid({2, 3}), 5); }), "penalty");
  EXPECT_EQ(made([&] { eigenvalues(this->context, grid({2, 3}), 7); }), "penalty");
  EXPECT_EQ(made([&] { eigenvalues(this->context, custom(L.view()), 3); }), "penalty");
  EXPECT_EQ(made([&] { eigenvalues(this->context, fourier_derivative(200), 1000); }), "penalty");  // 500^400
  EXPECT_EQ(made([&] { eigenvalues(this->context, graph_laplacian(L.view(), 2000), 2); }), "penalty");
  Penalty short_of_entries = custom(L.view());
  short_of_entries.A.pop_back();
  EXPECT_EQ(made([&] { eigenvalues(this->context, short_of_entries, 2); }), "penalty");
  const index_t huge = index_t{1} << 40;  // the number of points overflows
  EXPECT_EQ(made([&] { eigenvalues(this->context, grid({huge, huge}), 4); }), "penalty");
}

TEST(PenaltyMemory, failing_allocations_leak_nothing) {
  const auto backend = make_guarded_backend();
  const Context context{backend};
  for (const Case& c : cases(5)) {
    EXPECT_GE(sweep_failing_allocations(*backend, [&] { basis(context, c.penalty, 5); }), 1u) << c.name;
    EXPECT_GE(sweep_failing_allocations(*backend, [&] { matrix(context, c.penalty, 5); }), 1u) << c.name;
  }
}

}  // namespace
}  // namespace brockett::test
