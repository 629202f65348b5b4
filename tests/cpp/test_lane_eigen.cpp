// The eigensolver on vector lanes, on every instruction set that this processor has, against LAPACK, closed forms and
// bounds.
#include <gtest/gtest.h>

#include <cmath>
#include <complex>
#include <limits>
#include <numbers>

#include "host_matrix.hpp"
#include "linalg/lapack/blas.hpp"
#include "linalg/lapack/lane_eigen.hpp"

namespace {

using namespace brockett;
using namespace brockett::linalg;
using brockett::test::HostMatrix;
using lapack::blas_int;
using lapack::LaneEigen;

constexpr double kEps = std::numeric_limits<double>::epsilon(), kNan = std::numeric_limits<double>::quiet_NaN();
using Complex = std::complex<double>;
using Hermitian = std::vector<Complex>;  // n x n, column-major

/// A batch in the memory of the host: leading dimension n + 3, NaN wherever nothing may be read.
struct Batch {
  index_t n, ld, stride;
  bool hermitian;
  std::vector<double> re, im;

  Batch(index_t order, bool is_hermitian, const std::vector<Hermitian>& matrices)
      : n(order),
        ld(order + 3),
        stride(ld * order + 5),
        hermitian(is_hermitian),
        re(static_cast<std::size_t>(stride) * matrices.size(), kNan),
        im(re) {
    for (std::size_t k = 0; k < matrices.size(); ++k) {
      for (index_t j = 0; j < n; ++j) {
        for (index_t i = j; i < n; ++i) {
          const auto at = static_cast<std::size_t>(i + j * ld) + k * static_cast<std::size_t>(stride);
          const Complex value = matrices[k][static_cast<std::size_t>(i + j * n)];
          re[at] = value.real();
          if (i > j) im[at] = value.imag();
        }
      }
    }
  }
  /// What is left for LAPACK, and the values.
  std::vector<index_t> solve(const LaneEigen& e, std::vector<double>& values) const {
    const auto count = static_cast<index_t>(re.size()) / stride;
    values.assign(static_cast<std::size_t>(n * count), kNan);
    return lapack::lane_eigenvalues<double>(e, {re.data(), n, n, ld},
                                            hermitian ? Mat<const double>(im.data(), n, n, ld) : Mat<const double>(),
                                            stride, count, values.data());
  }
};

Hermitian random_hermitian(index_t n, bool hermitian, unsigned seed) {
  const HostMatrix<double> X = HostMatrix<double>::random(n, n, seed),
                           Y = HostMatrix<double>::random(n, n, seed + 1000);
  Hermitian H(static_cast<std::size_t>(n * n));
  for (index_t j = 0; j < n; ++j) {
    for (index_t i = 0; i < n; ++i) {
      H[static_cast<std::size_t>(i + j * n)] = {X(i, j) + X(j, i), hermitian ? Y(i, j) - Y(j, i) : 0.0};
    }
  }
  return H;
}

/// LAPACK's QL on the same matrix.
std::vector<double> by_lapack(index_t n, Hermitian H) {
  const auto order = static_cast<blas_int>(n);
  const blas_int lwork = 2 * order;
  blas_int info = 0;
  std::vector<double> w(static_cast<std::size_t>(n)), work(static_cast<std::size_t>(2 * lwork)),
      rwork(static_cast<std::size_t>(3 * n));
  lapack::Fortran<double>::heev("N", "L", &order, reinterpret_cast<double*>(H.data()), &order, w.data(), work.data(),
                                &lwork, rwork.data(), &info, 1, 1);
  EXPECT_EQ(info, 0);
  return w;
}

void expect_values(const std::vector<double>& values, std::size_t k, const std::vector<double>& expected,
                   double tolerance) {
  for (std::size_t i = 0; i < expected.size(); ++i) {
    ASSERT_NEAR(values[k * expected.size() + i], expected[i], tolerance) << "matrix " << k << ", value " << i;
  }
}

class LaneEigenTest : public testing::TestWithParam<const LaneEigen*> {
 protected:
  /// One matrix on all lanes of two rounds and one more.
  void expect_everywhere(index_t n, bool hermitian, const Hermitian& H, const std::vector<double>& expected,
                         double tolerance) {
    const LaneEigen& e = *GetParam();
    const auto count = static_cast<std::size_t>(2 * e.lanes + 1);
    std::vector<double> values;
    EXPECT_TRUE(Batch(n, hermitian, std::vector<Hermitian>(count, H)).solve(e, values).empty());
    for (std::size_t k = 0; k < count; ++k) expect_values(values, k, expected, tolerance);
  }
};

TEST_P(LaneEigenTest, equals_lapack_at_any_order_and_count) {
  const LaneEigen& e = *GetParam();
  for (const bool hermitian : {false, true}) {
    for (const index_t n : {1, 2, 3, 4, 5, 8, 17, 32, 65, 130}) {
      for (const index_t count : {index_t{1}, e.group, e.group + 1, e.lanes - 1, e.lanes, e.lanes + 1}) {
        SCOPED_TRACE(testing::Message() << n << (hermitian ? " Hermitian, " : " real, ") << count);
        std::vector<Hermitian> matrices;
        for (index_t k = 0; k < count; ++k) {
          matrices.push_back(random_hermitian(n, hermitian, static_cast<unsigned>(100 * n + k)));
        }
        std::vector<double> values;
        EXPECT_TRUE(Batch(n, hermitian, matrices).solve(e, values).empty());
        for (std::size_t k = 0; k < matrices.size(); ++k) {
          const std::vector<double> expected = by_lapack(n, matrices[k]);
          const double norm = std::max(std::abs(expected.front()), std::abs(expected.back()));
          expect_values(values, k, expected, 2 * static_cast<double>(n) * kEps * norm);
        }
      }
    }
  }
}

// Eigenvalues that are known: they come out in ascending order whatever the order of the entries.
TEST_P(LaneEigenTest, closed_forms) {
  constexpr index_t n = 37;
  const auto at = [](index_t i, index_t j) { return static_cast<std::size_t>(i + j * n); };
  std::vector<double> expected(n);
  const Hermitian zero(n * n);
  for (const bool hermitian : {false, true}) {
    SCOPED_TRACE(hermitian);
    expect_everywhere(n, hermitian, zero, std::vector<double>(n, 0.0), 0);

    Hermitian H = zero;  // a diagonal is sorted, and nothing is rounded
    for (index_t i = 0; i < n; ++i) H[at(i, i)] = static_cast<double>(i * 7 % n) - 18;
    for (index_t i = 0; i < n; ++i) expected[static_cast<std::size_t>(i)] = static_cast<double>(i) - 18;
    expect_everywhere(n, hermitian, H, expected, 0);

    for (auto& x : H) x = 1.5;  // rank one
    expected.assign(n, 0.0);
    expected.back() = 1.5 * n;
    expect_everywhere(n, hermitian, H, expected, n * n * kEps);

    H = zero;  // second differences: 2 - 2 cos(pi k / (n + 1)), already tridiagonal
    for (index_t i = 0; i < n; ++i) {
      H[at(i, i)] = 2;
      if (i + 1 < n) H[at(i + 1, i)] = -1;
      expected[static_cast<std::size_t>(i)] = 2 - 2 * std::cos(std::numbers::pi * static_cast<double>(i + 1) / (n + 1));
    }
    expect_everywhere(n, hermitian, H, expected, 8 * n * kEps);

    H = zero;  // blocks [0 b; b 0]: +-b, and one zero left over; off-diagonal entries vanish in between
    for (index_t i = 0; i + 1 < n; i += 2) {
      H[at(i + 1, i)] = hermitian ? Complex(0, static_cast<double>(i + 2)) : Complex(static_cast<double>(i + 2), 0);
      expected[static_cast<std::size_t>(i / 2)] = -static_cast<double>(n - 1 - i);
      expected[static_cast<std::size_t>(n - 1 - i / 2)] = static_cast<double>(n - 1 - i);
    }
    expected[n / 2] = 0;
    expect_everywhere(n, hermitian, H, expected, n * n * kEps);
  }
  // exp(i (j - k) t) hopping on a ring of n places, all phases different: 2 cos(2 pi m / n + t)
  Hermitian H = zero;
  for (index_t i = 0; i < n; ++i) {
    const Complex hop = std::polar(1.0, 0.3);
    H[at(std::max(i, (i + 1) % n), std::min(i, (i + 1) % n))] = i + 1 < n ? hop : std::conj(hop);
    expected[static_cast<std::size_t>(i)] = 2 * std::cos(2 * std::numbers::pi * static_cast<double>(i) / n + 0.3);
  }
  std::sort(expected.begin(), expected.end());
  expect_everywhere(n, true, H, expected, 8 * n * kEps);
}

// H = Q diag(d) Q^*, Q = I - 2 q q^* exactly unitary up to rounding: graded and clustered spectra.
TEST_P(LaneEigenTest, graded_and_degenerate_spectra_to_the_norm) {
  constexpr index_t n = 50;
  for (const bool hermitian : {false, true}) {
    for (const int kind : {0, 1, 2}) {
      SCOPED_TRACE(testing::Message() << hermitian << " " << kind);
      std::vector<double> d(n);
      std::vector<Complex> q(n);
      double length = 0;
      for (index_t i = 0; i < n; ++i) {
        const double x = static_cast<double>(i);
        d[static_cast<std::size_t>(i)] = kind == 0   ? std::pow(10.0, -x)  // 1 to 1e-49
                                         : kind == 1 ? (i % 3 == 0 ? 1.0 : -2.0)
                                                     : 1 + 1e-13 * x;
        q[static_cast<std::size_t>(i)] = {std::cos(x), hermitian ? std::sin(3 * x) : 0.0};
        length += std::norm(q[static_cast<std::size_t>(i)]);
      }
      const auto reflect = [&](std::vector<Complex>& x) {
        Complex inner = 0;
        for (std::size_t i = 0; i < n; ++i) inner += std::conj(q[i]) * x[i];
        for (std::size_t i = 0; i < n; ++i) x[i] -= 2 / length * inner * q[i];
      };
      std::vector<Hermitian> matrices(2, Hermitian(n * n));
      for (std::size_t j = 0; j < n; ++j) {
        std::vector<Complex> x(n);
        x[j] = 1;
        reflect(x);
        for (std::size_t i = 0; i < n; ++i) x[i] *= d[i];
        reflect(x);
        for (std::size_t i = 0; i < n; ++i) {
          matrices[0][i + j * n] = x[i];  // large entries where q has them
          matrices[1][(n - 1 - i) + (n - 1 - j) * n] = x[i];  // upside down
        }
      }
      std::sort(d.begin(), d.end());
      for (const Hermitian& H : matrices) expect_everywhere(n, hermitian, H, d, 2 * n * kEps * 2);
    }
  }
}

TEST_P(LaneEigenTest, any_magnitude) {
  constexpr index_t n = 20;
  for (const bool hermitian : {false, true}) {
    const Hermitian H = random_hermitian(n, hermitian, 9);
    const std::vector<double> expected = by_lapack(n, H);
    std::vector<Hermitian> matrices;
    const std::vector<int> exponents{0, -40, 40, -1000, 1000, -1030, 500, -500};  // side by side on the lanes
    for (const int exponent : exponents) {
      matrices.push_back(H);
      for (auto& x : matrices.back()) x = {std::ldexp(x.real(), exponent), std::ldexp(x.imag(), exponent)};
    }
    std::vector<double> values;
    EXPECT_TRUE(Batch(n, hermitian, matrices).solve(*GetParam(), values).empty());
    for (std::size_t k = 0; k < matrices.size(); ++k) {
      // subnormal entries have lost the digits below 2^-1074
      const double tolerance =
          2 * n * kEps * 10 + (exponents[k] < -1020 ? n * std::ldexp(1.0, -1074 - exponents[k]) : 0);
      for (std::size_t i = 0; i < n; ++i) {
        EXPECT_NEAR(std::ldexp(values[i + k * n], -exponents[k]), expected[i], tolerance) << exponents[k];
      }
    }
  }
}

// Entries of one matrix from 1 down to where squares vanish: columns that are dropped leave the rest as it is.
TEST_P(LaneEigenTest, entries_far_apart) {
  constexpr index_t n = 12;
  for (const bool hermitian : {false, true}) {
    for (const int step : {30, 60, 90}) {
      Hermitian H = random_hermitian(n, hermitian, 17);
      for (index_t j = 0; j < n; ++j) {
        for (index_t i = 0; i < n; ++i) {
          H[static_cast<std::size_t>(i + j * n)] *= std::ldexp(1.0, -static_cast<int>(step * std::abs(i - j)));
        }
      }
      expect_everywhere(n, hermitian, H, by_lapack(n, H), 2 * n * kEps * 10);
    }
  }
}

TEST_P(LaneEigenTest, what_does_not_converge_is_left_and_harms_nobody) {
  const LaneEigen& e = *GetParam();
  constexpr index_t n = 6;
  std::vector<Hermitian> matrices;
  for (index_t k = 0; k < e.lanes + 2; ++k) matrices.push_back(random_hermitian(n, true, static_cast<unsigned>(k)));
  std::vector<double> alone, values;
  EXPECT_TRUE(Batch(n, true, matrices).solve(e, alone).empty());
  matrices[1][0] = kNan;
  matrices.back()[n * n - 1] = kNan;
  const auto last = static_cast<index_t>(matrices.size()) - 1;
  EXPECT_EQ(Batch(n, true, matrices).solve(e, values), (std::vector<index_t>{1, last}));
  for (index_t k = 0; k < last; ++k) {
    for (index_t i = 0; i < n && k != 1; ++i) {
      EXPECT_EQ(values[static_cast<std::size_t>(i + k * n)], alone[static_cast<std::size_t>(i + k * n)]);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(InstructionSets, LaneEigenTest, testing::ValuesIn(lapack::lane_eigen()),
                         [](const auto& one) { return std::string(one.param->name); });

// Without a choice of instruction set: every matrix is either solved or left, whatever the count.
TEST(LaneEigenvalues, every_matrix_is_solved_or_left) {
  for (const index_t n : {3, 40, 200}) {
    for (index_t count = 0; count <= 37; count += n == 3 ? 1 : 9) {
      SCOPED_TRACE(testing::Message() << n << " " << count);
      const Hermitian H = random_hermitian(n, false, 3);
      const std::vector<double> expected = by_lapack(n, H);
      const Batch batch(n, false, std::vector<Hermitian>(static_cast<std::size_t>(count), H));
      std::vector<double> values(static_cast<std::size_t>(n * count), kNan);
      const auto left =
          lapack::lane_eigenvalues<double>({batch.re.data(), n, n, batch.ld}, {}, batch.stride, count, values.data());
      EXPECT_LE(left.size(), 1U);
      for (index_t k = 0; k < count; ++k) {
        if (std::find(left.begin(), left.end(), k) != left.end()) continue;
        expect_values(values, static_cast<std::size_t>(k), expected,
                      4 * static_cast<double>(n) * kEps * std::sqrt(8.0 * n));
      }
    }
  }
}

}  // namespace
