// The contract of linalg.hpp: factorizations, eigenvalues, singular values. By hand, then by reconstruction and
// orthogonality at sizes that fit no block, with padded columns; ranks that are missing, ties, zeros.
#include <random>

#include "engines.hpp"
#include "linalg/lapack/tridiagonal_vectors.hpp"

namespace {

using namespace brockett;
using namespace brockett::linalg;
using namespace brockett::test;

constexpr index_t kRows = 197, kCols = 43, kPadding = 2;

template <class E>
class Decompositions : public EngineTest<E> {
 protected:
  using Matrix = HostMatrix<typename E::T>;
  using Values = std::vector<typename E::T>;

  DeviceMatrix<typename E::T> padded(const Matrix& A) { return this->to_device(A, Order::column_major, kPadding); }
  // Q diag(d) Q^T with a random rotation Q, symmetric to the last bit.
  Matrix symmetric(const Values& d, unsigned seed) {
    const auto n = static_cast<index_t>(d.size());
    const auto q = this->to_device(HostMatrix<double>::random(n, n, seed));
    this->backend->full().orthonormalize(q);
    const HostMatrix<double> Q = this->to_host(q);
    HostMatrix<double> A = product(product(Q, Matrix::diagonal(d)), Q.transposed());
    for (index_t j = 0; j < n; ++j) {
      for (index_t i = 0; i < j; ++i) A(i, j) = A(j, i);
    }
    return A.template as<typename E::T>();
  }
  // The upper triangle of what eigen_symmetric reads is nobody's business.
  static Matrix with_nan_above_diagonal(Matrix A) {
    for (index_t j = 0; j < A.cols; ++j) {
      for (index_t i = 0; i < j; ++i) A(i, j) = std::numeric_limits<typename E::T>::quiet_NaN();
    }
    return A;
  }
};
TYPED_TEST_SUITE(Decompositions, Engines, EngineNames);

// --- triangular factors --------------------------------------------------------------------------------------------

TYPED_TEST(Decompositions, lq_by_hand) {
  using T = typename TypeParam::T;
  const auto a = this->to_device(HostMatrix<T>{{3, 4}, {4, -3}});
  this->la.lq_factor(a);
  const HostMatrix<T> L = this->to_host(a);
  EXPECT_NEAR(std::abs(L(0, 0)), 5, 10 * this->eps);
  EXPECT_NEAR(L(1, 0), 0, 10 * this->eps);
  EXPECT_NEAR(std::abs(L(1, 1)), 5, 10 * this->eps);
  EXPECT_EQ(L(0, 1), T{0});
}

TYPED_TEST(Decompositions, lq_and_qr_reproduce_the_gram_matrix) {
  using T = typename TypeParam::T;
  const HostMatrix<T> A = HostMatrix<T>::random(kRows, kCols, 1);
  const HostMatrix<double> gram = product(A.transposed(), A);
  const auto qr = this->padded(A), lq = this->padded(A.transposed());
  this->la.qr_factor(qr);
  this->la.lq_factor(lq);
  const HostMatrix<T> R = this->to_host(qr), L = this->to_host(lq);
  for (index_t j = 0; j < kCols; ++j) {
    for (index_t i = j + 1; i < kRows; ++i) ASSERT_EQ(R(i, j), T{0});
    for (index_t i = 0; i < j; ++i) ASSERT_EQ(L(i, j), T{0});
  }
  const HostMatrix<T> top = R.block(0, 0, kCols, kCols), left = L.block(0, 0, kCols, kCols);
  EXPECT_LE(difference(product(top.transposed(), top), gram), 20 * this->eps * largest_entry(gram));
  EXPECT_LE(difference(product(left, left.transposed()), gram), 20 * this->eps * largest_entry(gram));
}

TYPED_TEST(Decompositions, orthonormalizes) {
  using T = typename TypeParam::T;
  const HostMatrix<T> A = HostMatrix<T>::random(kRows, kCols, 2);
  const auto a = this->padded(A);
  this->la.orthonormalize(a);
  const HostMatrix<T> Q = this->to_host(a);
  EXPECT_LE(orthogonality_error(Q), 20 * this->eps);
  // The same column space: A = Q Q^T A.
  EXPECT_LE(difference(product(Q, product(Q.transposed(), A)), A), 40 * this->eps * largest_entry(A));
}

TYPED_TEST(Decompositions, orthonormalizes_what_has_no_full_rank) {
  using T = typename TypeParam::T;
  HostMatrix<T> A = HostMatrix<T>::random(kRows, 7, 3);
  for (index_t i = 0; i < kRows; ++i) A(i, 3) = A(i, 1), A(i, 4) = T{0}, A(i, 6) = A(i, 0) - 2 * A(i, 2);
  for (const HostMatrix<T>& B : {A, HostMatrix<T>(kRows, 7), HostMatrix<T>(7, 7)}) {
    const auto b = this->padded(B);
    this->la.orthonormalize(b);
    EXPECT_LE(orthogonality_error(this->to_host(b)), 20 * this->eps);
  }
}

TYPED_TEST(Decompositions, cholesky_by_hand) {
  using T = typename TypeParam::T;
  const T nan = std::numeric_limits<T>::quiet_NaN();
  const auto a = this->to_device(HostMatrix<T>{{4, nan, nan}, {2, 10, nan}, {-2, 2, 6}});
  EXPECT_EQ(this->la.cholesky(a), 0);
  EXPECT_LE(difference(this->to_host(a), HostMatrix<T>{{2, 0, 0}, {1, 3, 0}, {-1, 1, 2}}), 4 * this->eps);
  const auto indefinite = this->to_device(HostMatrix<T>{{4, 0, 0}, {0, -1, 0}, {0, 0, 1}});
  EXPECT_EQ(this->la.cholesky(indefinite), 2);
  EXPECT_EQ(this->la.cholesky(this->to_device(HostMatrix<T>(3, 3))), 1);
}

TYPED_TEST(Decompositions, solves_triangular_systems) {
  using T = typename TypeParam::T;
  HostMatrix<T> L = HostMatrix<T>::random(kCols, kCols, 4);
  for (index_t j = 0; j < kCols; ++j) {
    L(j, j) = T{8};
    for (index_t i = 0; i < j; ++i) L(i, j) = T{0};
  }
  const auto l = this->padded(this->with_nan_above_diagonal(L));
  const HostMatrix<T> B = HostMatrix<T>::random(kCols, 11, 5);
  for (const Op op : {Op::none, Op::transpose}) {
    const HostMatrix<T> M = op == Op::none ? L : L.transposed();
    const auto left = this->padded(B), right = this->padded(B.transposed());
    this->la.triangular_solve(Side::left, op, l, left);
    EXPECT_LE(difference(product(M, this->to_host(left)), B), 100 * this->eps);
    this->la.triangular_solve(Side::right, op, l, right);
    EXPECT_LE(difference(product(this->to_host(right), M), B.transposed()), 100 * this->eps);
  }
}

TYPED_TEST(Decompositions, knows_the_sign_of_a_determinant) {
  using T = typename TypeParam::T;
  const auto sign = [&](const HostMatrix<T>& A) { return this->la.determinant_sign(this->padded(A)); };
  EXPECT_EQ(sign({{2}}), 1);
  EXPECT_EQ(sign({{-2}}), -1);
  EXPECT_EQ(sign({{0}}), 0);
  EXPECT_EQ(sign({{0, 1}, {1, 0}}), -1);
  EXPECT_EQ(sign({{1, 2}, {2, 4}}), 0);
  EXPECT_EQ(sign({{0, 0, 1}, {1, 0, 0}, {0, 1, 0}}), 1);  // a cycle of three
  EXPECT_EQ(sign({{1, 2, 3}, {4, 5, 6}, {7, 8, 10}}), -1);
  HostMatrix<T> P = HostMatrix<T>::identity(kCols);
  EXPECT_EQ(sign(P), 1);
  P(17, 17) = T{-1};
  EXPECT_EQ(sign(P), -1);
}

// --- eigenvalues ---------------------------------------------------------------------------------------------------

TYPED_TEST(Decompositions, eigenvalues_by_hand) {
  using T = typename TypeParam::T;
  const HostMatrix<T> A{{2, 1, 0}, {1, 2, 0}, {0, 0, -5}};  // -5, 1, 3
  T values[3];
  const auto a = this->to_device(this->with_nan_above_diagonal(A));
  this->la.eigen_symmetric(a, values, true);
  const HostMatrix<T> V = this->to_host(a);
  for (const bool vectors : {true, false}) {
    if (!vectors) this->la.eigen_symmetric(this->to_device(this->with_nan_above_diagonal(A)), values, false);
    EXPECT_NEAR(values[0], -5, 10 * this->eps);
    EXPECT_NEAR(values[1], 1, 10 * this->eps);
    EXPECT_NEAR(values[2], 3, 10 * this->eps);
  }
  EXPECT_NEAR(std::abs(V(2, 0)), 1, 4 * this->eps);
  EXPECT_NEAR(V(0, 1) + V(1, 1), 0, 4 * this->eps);
  EXPECT_NEAR(V(0, 2) - V(1, 2), 0, 4 * this->eps);
}

TYPED_TEST(Decompositions, eigenvectors_diagonalize) {
  using T = typename TypeParam::T;
  for (const index_t n : {index_t{1}, index_t{2}, index_t{5}, index_t{97}}) {
    HostMatrix<T> A = HostMatrix<T>::random(n, n, 6);
    for (index_t j = 0; j < n; ++j) {
      for (index_t i = 0; i < j; ++i) A(i, j) = A(j, i);
    }
    const auto a = this->padded(this->with_nan_above_diagonal(A)), b = this->padded(this->with_nan_above_diagonal(A));
    std::vector<T> values(static_cast<std::size_t>(n)), alone(values);
    this->la.eigen_symmetric(a, values.data(), true);
    this->la.eigen_symmetric(b, alone.data(), false);
    const HostMatrix<T> V = this->to_host(a);
    const double scale = 20 * this->eps * std::max(1.0, std::sqrt(static_cast<double>(n)));
    EXPECT_LE(orthogonality_error(V), scale);
    EXPECT_LE(difference(product(A, V), product(V, HostMatrix<T>::diagonal(values))), 2 * scale);
    EXPECT_TRUE(std::is_sorted(values.begin(), values.end()));
    for (std::size_t i = 0; i < values.size(); ++i) EXPECT_NEAR(values[i], alone[i], 2 * scale);
  }
}

// The path graph's Laplacian: 2 - 2 cos(pi k / n). Large enough for the two-stage reduction.
TYPED_TEST(Decompositions, eigenvalues_alone_of_a_large_matrix) {
  using T = typename TypeParam::T;
  const index_t n = this->apart ? 300 : 2301;
  for (const double share : {0.0, 0.9, -0.9}) {  // of the exponents that there are: squares leave the range
    const T unit = std::exp2(static_cast<T>(std::round(share * std::numeric_limits<T>::max_exponent)));
    HostMatrix<T> A(n, n);
    for (index_t i = 0; i < n; ++i) {
      A(i, i) = i == 0 || i == n - 1 ? unit : 2 * unit;
      if (i > 0) A(i, i - 1) = -unit;
    }
    std::vector<T> values(static_cast<std::size_t>(n));
    this->la.eigen_symmetric(this->padded(this->with_nan_above_diagonal(A)), values.data(), false);
    double worst = 0;
    for (index_t k = 0; k < n; ++k) {
      const double expected = 2 - 2 * std::cos(M_PI * static_cast<double>(k) / static_cast<double>(n));
      worst = std::max(worst, std::abs(static_cast<double>(values[static_cast<std::size_t>(k)] / unit) - expected));
    }
    EXPECT_LE(worst, 100 * this->eps) << unit;
  }
}

// H diag(1, 2, …) H / n of a reflection H = I - 2 v v^T: dense, so that every step of the reduction has something to do.
TYPED_TEST(Decompositions, eigenvalues_alone_of_a_large_dense_matrix) {
  using T = typename TypeParam::T;
  const index_t n = this->apart ? 300 : 2301;
  std::vector<double> v(static_cast<std::size_t>(n)), Dv(v);
  double square = 0, vDv = 0;
  for (index_t i = 0; i < n; ++i) {
    v[static_cast<std::size_t>(i)] = std::sin(3.0 * static_cast<double>(i) + 1);
    square += v[static_cast<std::size_t>(i)] * v[static_cast<std::size_t>(i)];
  }
  for (index_t i = 0; i < n; ++i) {
    auto& x = v[static_cast<std::size_t>(i)];
    x /= std::sqrt(square);
    Dv[static_cast<std::size_t>(i)] = static_cast<double>(i + 1) / static_cast<double>(n) * x;
    vDv += x * Dv[static_cast<std::size_t>(i)];
  }
  HostMatrix<T> A(n, n);
  for (index_t j = 0; j < n; ++j) {
    const double vj = v[static_cast<std::size_t>(j)], dj = Dv[static_cast<std::size_t>(j)];
    for (index_t i = j; i < n; ++i) {
      const double vi = v[static_cast<std::size_t>(i)], di = Dv[static_cast<std::size_t>(i)];
      const double diagonal = i == j ? static_cast<double>(i + 1) / static_cast<double>(n) : 0;
      A(i, j) = static_cast<T>(diagonal - 2 * (vi * dj + di * vj) + 4 * vDv * vi * vj);
    }
  }
  std::vector<T> values(static_cast<std::size_t>(n));
  this->la.eigen_symmetric(this->padded(this->with_nan_above_diagonal(A)), values.data(), false);
  double worst = 0;
  for (index_t k = 0; k < n; ++k) {
    const double expected = static_cast<double>(k + 1) / static_cast<double>(n);
    worst = std::max(worst, std::abs(static_cast<double>(values[static_cast<std::size_t>(k)]) - expected));
  }
  EXPECT_LE(worst, 100 * this->eps);
}

TYPED_TEST(Decompositions, eigenvectors_of_ties_are_orthonormal) {
  using T = typename TypeParam::T;
  std::vector<T> d(60, T{0});
  for (std::size_t i = 0; i < 20; ++i) d[i] = T{3};
  d[59] = T{7};
  for (const HostMatrix<T>& A : {this->symmetric(d, 7), HostMatrix<T>(60, 60), HostMatrix<T>::identity(60)}) {
    const auto a = this->padded(A), b = this->padded(A), v = this->padded(HostMatrix<T>(60, 5));
    T values[60], largest[5];
    this->la.eigen_symmetric(a, values, true);
    this->la.eigen_symmetric_largest(b, 5, largest, v);
    EXPECT_LE(orthogonality_error(this->to_host(a)), 40 * this->eps);
    EXPECT_LE(orthogonality_error(this->to_host(v)), 40 * this->eps);
    for (int i = 0; i < 5; ++i) EXPECT_NEAR(largest[i], values[59 - i], 100 * this->eps);
  }
}

TYPED_TEST(Decompositions, largest_eigenvalues_come_first) {
  using T = typename TypeParam::T;
  std::vector<T> d(61);
  for (std::size_t i = 0; i < d.size(); ++i) d[i] = static_cast<T>(static_cast<double>(i) - 20);
  const HostMatrix<T> A = this->symmetric(d, 8);
  // Few of them, half of them, all of them: two drivers.
  for (const index_t count : {index_t{0}, index_t{1}, index_t{2}, index_t{15}, index_t{16}, index_t{31}, index_t{61}}) {
    const auto a = this->padded(this->with_nan_above_diagonal(A));
    const auto v = this->padded(HostMatrix<T>(61, count));
    std::vector<T> values(static_cast<std::size_t>(count));
    this->la.eigen_symmetric_largest(a, count, values.data(), v);
    const HostMatrix<T> V = this->to_host(v);
    for (index_t i = 0; i < count; ++i)
      EXPECT_NEAR(values[static_cast<std::size_t>(i)], 40.0 - static_cast<double>(i), 1000 * this->eps);
    EXPECT_LE(orthogonality_error(V), 100 * this->eps);
    EXPECT_LE(difference(product(A, V), product(V, HostMatrix<T>::diagonal(values))), 2000 * this->eps);

    const auto again = this->padded(this->with_nan_above_diagonal(A));
    std::vector<T> all(61);
    this->la.eigen_symmetric_leading(again, count, all.data(), v);
    for (index_t i = 0; i < 61; ++i)
      EXPECT_NEAR(all[static_cast<std::size_t>(i)], 40.0 - static_cast<double>(i), 1000 * this->eps);
    const HostMatrix<T> U = this->to_host(v);
    all.resize(static_cast<std::size_t>(count));
    EXPECT_LE(orthogonality_error(U), 100 * this->eps);
    EXPECT_LE(difference(product(A, U), product(U, HostMatrix<T>::diagonal(all))), 2000 * this->eps);
  }
}

TYPED_TEST(Decompositions, largest_eigenvectors_of_awkward_matrices) {
  using T = typename TypeParam::T;
  constexpr index_t n = 147, count = 90;
  const auto tridiagonal = [](auto diagonal, auto beside) {
    HostMatrix<T> A(n, n);
    for (index_t i = 0; i < n; ++i) {
      A(i, i) = static_cast<T>(diagonal(i));
      if (i + 1 < n) A(i, i + 1) = A(i + 1, i) = static_cast<T>(beside(i));
    }
    return A;
  };
  std::vector<T> decaying(n), equal(n, T{1});
  for (std::size_t i = 0; i < decaying.size(); ++i)
    decaying[i] = static_cast<T>(std::pow(0.7, i));  // below eps from i = 100
  for (std::size_t i = 0; i < 60; ++i) equal[i] = T{2};
  const auto wilkinson = [](index_t i) { return std::abs(static_cast<double>(i % 21) - 10); };
  const HostMatrix<T> cases[] = {
      tridiagonal(wilkinson, [](index_t i) { return i % 21 == 20 ? 1e-8 : 1.0; }),  // seven copies, all but apart
      tridiagonal(wilkinson, [](index_t i) { return i % 21 == 20 ? 1e-3 : 1.0; }),
      tridiagonal([](index_t i) { return std::pow(0.7, n - 1 - i); },
                  [](index_t i) { return 0.4 * std::pow(0.7, n - 2 - i); }),
      tridiagonal([](index_t i) { return std::pow(0.7, i); }, [](index_t i) { return 0.4 * std::pow(0.7, i); }),
      this->symmetric(decaying, 11),
      this->symmetric(equal, 12),
  };
  for (const double scale : {1.0, std::is_same_v<T, float> ? 1e-30 : 1e-290, std::is_same_v<T, float> ? 1e30 : 1e290}) {
    for (std::size_t c = 0; c < std::size(cases); ++c) {
      SCOPED_TRACE(testing::Message() << "case " << c << " times " << scale);
      HostMatrix<T> A = cases[c], all = A;
      for (T& x : A.data) x *= static_cast<T>(scale);
      const auto a = this->padded(this->with_nan_above_diagonal(A)), b = this->padded(A);
      const auto v = this->padded(HostMatrix<T>(n, count));
      std::vector<T> values(count), expected(n);
      this->la.eigen_symmetric_largest(a, count, values.data(), v);
      this->la.eigen_symmetric(b, expected.data(), false);
      HostMatrix<T> V = this->to_host(v);
      EXPECT_LE(orthogonality_error(V), 100 * this->eps);
      for (index_t i = 0; i < count; ++i) {
        T& value = values[static_cast<std::size_t>(i)];
        EXPECT_NEAR(value / scale, expected[static_cast<std::size_t>(n - 1 - i)] / scale, 1500 * this->eps);
        if (i > 0) {
          EXPECT_LE(value, values[static_cast<std::size_t>(i - 1)]);
        }
      }
      for (T& x : values) x = static_cast<T>(x / scale);
      EXPECT_LE(difference(product(all, V), product(V, HostMatrix<T>::diagonal(values))), 2000 * this->eps);
    }
  }
}

// Entries of all magnitudes: in float a solve of inverse iteration leaves the range of its numbers, on some lanes.
TYPED_TEST(Decompositions, largest_eigenvectors_where_inverse_iteration_overflows) {
  using T = typename TypeParam::T;
  constexpr index_t n = 200;
  std::mt19937_64 bits(5);
  const auto magnitude = [&] {
    return static_cast<T>(std::pow(10.0, -16 * static_cast<double>(bits() >> 11) * 0x1p-53));
  };
  for (int trial = 0; trial < 4; ++trial) {
    HostMatrix<T> A(n, n);
    for (index_t i = 0; i < n; ++i) {
      A(i, i) = trial % 2 ? T{0} : magnitude();
      if (i + 1 < n) A(i, i + 1) = A(i + 1, i) = magnitude();
    }
    const auto b = this->padded(A);
    std::vector<T> expected(n);
    this->la.eigen_symmetric(b, expected.data(), false);
    for (const index_t count : {index_t{20}, index_t{100}, index_t{150}}) {
      SCOPED_TRACE(testing::Message() << "trial " << trial << ", " << count << " vectors");
      const auto a = this->padded(A), v = this->padded(HostMatrix<T>(n, count));
      std::vector<T> values(n);
      this->la.eigen_symmetric_leading(a, count, values.data(), v);
      for (index_t i = 0; i < n; ++i) {
        const auto at = static_cast<std::size_t>(i);
        EXPECT_NEAR(values[at], expected[static_cast<std::size_t>(n - 1 - i)], 200 * this->eps);
        if (i > 0) {
          EXPECT_LE(values[at], values[at - 1]);
        }
      }
      values.resize(static_cast<std::size_t>(count));
      const HostMatrix<T> V = this->to_host(v);
      EXPECT_LE(orthogonality_error(V), 100 * this->eps);
      EXPECT_LE(difference(product(A, V), product(V, HostMatrix<T>::diagonal(values))), 500 * this->eps);
    }
  }
}

// The values with vectors are computed otherwise than those without, and a cut through equal ones shows the difference.
TYPED_TEST(Decompositions, leading_eigenvalues_descend_across_a_cut_through_ties) {
  using T = typename TypeParam::T;
  std::vector<T> d(64, T{1});
  for (std::size_t i = 0; i < 16; ++i) d[i] = T{2};
  for (const HostMatrix<T>& A : {HostMatrix<T>::identity(64), this->symmetric(d, 13)}) {
    for (index_t count = 1; count <= 48; ++count) {
      const auto a = this->padded(A), v = this->padded(HostMatrix<T>(64, count));
      std::vector<T> values(64);
      this->la.eigen_symmetric_leading(a, count, values.data(), v);
      EXPECT_TRUE(std::is_sorted(values.rbegin(), values.rend())) << count;
    }
  }
}

TEST(RayleighQuotients, a_residual_that_is_no_number_stays) {
  const double d[] = {1, 2, 3}, e[] = {0, 0}, nan = std::numeric_limits<double>::quiet_NaN();
  for (index_t bad = 0; bad < 3; ++bad) {
    HostMatrix<double> V = HostMatrix<double>::identity(3);
    double values[3];
    EXPECT_EQ(lapack::rayleigh_quotients<double>(d, e, {V.data.data(), 3, 3, 3}, values), 0);
    V(0, bad) = nan;
    EXPECT_TRUE(std::isnan(lapack::rayleigh_quotients<double>(d, e, {V.data.data(), 3, 3, 3}, values))) << bad;
  }
}

TYPED_TEST(Decompositions, eigenvalues_of_a_batch) {
  using T = typename TypeParam::T;
  // matrices of order 7 side by side with a row of NaN below, the upper triangles NaN too: fewer and more than are solved at once
  constexpr index_t n = 7;
  for (const index_t batch : {index_t{1}, index_t{3}, index_t{21}}) {
    HostMatrix<T> stacked(n + 1, batch * n);
    for (T& x : stacked.data) x = std::numeric_limits<T>::quiet_NaN();
    for (index_t k = 0; k < batch; ++k) {
      std::vector<T> d;
      for (index_t i = 0; i < n; ++i) d.push_back(static_cast<T>(10 * (k % 3) + i));
      const HostMatrix<T> A = this->symmetric(d, 30 + static_cast<unsigned>(k));
      for (index_t j = 0; j < n; ++j)
        for (index_t i = j; i < n; ++i) stacked(i, k * n + j) = A(i, j);
    }
    const auto a = this->to_device(stacked);
    const Mat<T> first = a.mat().block(0, 0, n, n);
    std::vector<T> values(static_cast<std::size_t>(n * batch));
    this->la.eigenvalues_batched(first, n * first.ld, batch, values.data());
    for (index_t k = 0; k < batch; ++k)
      for (index_t i = 0; i < n; ++i)
        EXPECT_NEAR(values[static_cast<std::size_t>(i + k * n)], static_cast<double>(10 * (k % 3) + i),
                    500 * this->eps);
  }
}

TYPED_TEST(Decompositions, hermitian_eigenvalues_by_hand) {
  using T = typename TypeParam::T;
  constexpr T nan = std::numeric_limits<T>::quiet_NaN();
  // [2 -i; i 2] has 1 and 3; the imaginary part of the diagonal is not looked at
  const auto a = this->to_device(HostMatrix<T>{{2, nan}, {0, 2}}), b = this->to_device(HostMatrix<T>{{7, nan}, {1, 7}});
  T values[2];
  this->la.eigenvalues_hermitian_batched(a, b, 4, 1, values);
  EXPECT_NEAR(values[0], 1, 10 * this->eps);
  EXPECT_NEAR(values[1], 3, 10 * this->eps);
}

TYPED_TEST(Decompositions, hermitian_eigenvalues_of_a_batch) {
  using T = typename TypeParam::T;
  // A + i B has the eigenvalues of [A -B; B A], each once instead of twice.
  constexpr index_t n = 9;
  for (const index_t batch : {2, 19}) {
    HostMatrix<T> re(n, n * batch), im(n, n * batch);
    std::vector<double> expected;
    for (index_t k = 0; k < batch; ++k) {
      const HostMatrix<T> X = HostMatrix<T>::random(n, n, 40 + static_cast<unsigned>(k));
      HostMatrix<double> doubled(2 * n, 2 * n);
      for (index_t j = 0; j < n; ++j) {
        for (index_t i = 0; i < n; ++i) {
          re(i, k * n + j) = X(i, j) + X(j, i);
          im(i, k * n + j) = X(i, j) - X(j, i);
          doubled(i, j) = doubled(n + i, n + j) = static_cast<double>(re(i, k * n + j));
          doubled(n + i, j) = static_cast<double>(im(i, k * n + j));
          doubled(i, n + j) = -doubled(n + i, j);
        }
      }
      const auto a = this->to_device(doubled);
      std::vector<double> twice(2 * n);
      this->backend->full().eigen_symmetric(a, twice.data(), false);
      for (std::size_t i = 0; i < twice.size(); i += 2) expected.push_back(twice[i]);
    }
    const auto a = this->to_device(re), b = this->to_device(im);
    std::vector<T> values(static_cast<std::size_t>(n * batch));
    this->la.eigenvalues_hermitian_batched(a.mat().columns(0, n), b.mat().columns(0, n), n * n, batch, values.data());
    for (std::size_t i = 0; i < values.size(); ++i) EXPECT_NEAR(values[i], expected[i], 200 * this->eps);
  }
}

// --- singular values -----------------------------------------------------------------------------------------------

TYPED_TEST(Decompositions, singular_values_by_hand) {
  using T = typename TypeParam::T;
  const auto a = this->to_device(HostMatrix<T>{{0, 3, 0}, {-2, 0, 0}});
  const auto u = this->to_device(HostMatrix<T>(2, 2)), vt = this->to_device(HostMatrix<T>(2, 3));
  T s[2];
  this->la.svd_thin(a, s, u, vt);
  EXPECT_NEAR(s[0], 3, 10 * this->eps);
  EXPECT_NEAR(s[1], 2, 10 * this->eps);
  EXPECT_NEAR(this->to_host(u)(0, 0) * this->to_host(vt)(0, 1), 1, 10 * this->eps);
  EXPECT_NEAR(this->to_host(u)(1, 1) * this->to_host(vt)(1, 0), -1, 10 * this->eps);
}

TYPED_TEST(Decompositions, singular_vectors_reconstruct) {
  using T = typename TypeParam::T;
  const HostMatrix<T> tall = HostMatrix<T>::random(kRows, kCols, 9), square = HostMatrix<T>::random(kCols, kCols, 10);
  HostMatrix<T> deficient = tall;
  for (index_t i = 0; i < kRows; ++i) deficient(i, 3) = deficient(i, 1), deficient(i, 4) = T{0};
  const HostMatrix<T> one{{-3}}, zero(5, 3);
  for (const HostMatrix<T>& A : {tall, tall.transposed(), square, deficient, deficient.transposed(), one, zero}) {
    const index_t k = std::min(A.rows, A.cols);
    const auto a = this->padded(A), b = this->padded(A);
    const auto u = this->padded(HostMatrix<T>(A.rows, k)), vt = this->padded(HostMatrix<T>(k, A.cols));
    std::vector<T> s(static_cast<std::size_t>(k)), alone(s);
    this->la.svd_thin(a, s.data(), u, vt);
    this->la.svd_thin(b, alone.data(), Mat<T>(), Mat<T>());
    const HostMatrix<T> U = this->to_host(u), Vt = this->to_host(vt);
    const double tolerance = 20 * this->eps * std::max(1.0, static_cast<double>(s[0]));
    EXPECT_LE(orthogonality_error(U), 40 * this->eps);
    EXPECT_LE(orthogonality_error(Vt.transposed()), 40 * this->eps);
    EXPECT_LE(difference(product(product(U, HostMatrix<T>::diagonal(s)), Vt), A), tolerance);
    EXPECT_TRUE(std::is_sorted(s.rbegin(), s.rend()));
    for (std::size_t i = 0; i < s.size(); ++i) EXPECT_NEAR(s[i], alone[i], tolerance);
  }
}

// Zero singular values stay zero, and the rest is not moved by them, at orders where an algorithm may treat them apart.
TYPED_TEST(Decompositions, singular_vectors_of_a_deficient_matrix) {
  using T = typename TypeParam::T;
  constexpr index_t n = 300, rank = 290;
  const HostMatrix<T> A =
      product(HostMatrix<T>::random(n, rank, 12), HostMatrix<T>::random(rank, n, 13)).template as<T>();
  const auto a = this->padded(A), b = this->padded(A);
  const auto u = this->padded(HostMatrix<T>(n, n)), vt = this->padded(HostMatrix<T>(n, n));
  std::vector<T> s(n), alone(n);
  this->la.svd_thin(a, s.data(), u, vt);
  this->la.svd_thin(b, alone.data(), Mat<T>(), Mat<T>());
  const double unit = this->eps * static_cast<double>(s[0]);
  for (std::size_t i = 0; i < n; ++i) EXPECT_NEAR(s[i], alone[i], 20 * unit) << i;
  for (std::size_t i = rank; i < n; ++i) EXPECT_LE(s[i], n * unit) << i;
  EXPECT_GT(s[rank - 1], n * unit);
  const HostMatrix<T> U = this->to_host(u), Vt = this->to_host(vt);
  EXPECT_LE(orthogonality_error(U), 100 * this->eps);
  EXPECT_LE(orthogonality_error(Vt.transposed()), 100 * this->eps);
  EXPECT_LE(difference(product(product(U, HostMatrix<T>::diagonal(s)), Vt), A), 40 * unit);
}

TYPED_TEST(Decompositions, takes_what_is_empty) {
  using T = typename TypeParam::T;
  const Mat<T> none(nullptr, 0, 0, 1);
  this->la.lq_factor(none);
  this->la.qr_factor(none);
  this->la.orthonormalize(Mat<T>(nullptr, 4, 0));
  EXPECT_EQ(this->la.cholesky(none), 0);
  EXPECT_EQ(this->la.determinant_sign(none), 1);
  this->la.triangular_solve(Side::left, Op::none, none, none);
  this->la.eigen_symmetric(none, nullptr, true);
  this->la.eigen_symmetric_largest(none, 0, nullptr, none);
  this->la.eigen_symmetric_leading(none, 0, nullptr, none);
  this->la.eigenvalues_batched(none, 0, 3, nullptr);
  this->la.eigenvalues_hermitian_batched(none, none, 0, 3, nullptr);
  this->la.svd_thin(none, nullptr, none, none);
  this->la.apply_modes(Modes::fourier, Op::none, none);
}

}  // namespace
