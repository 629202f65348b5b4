// Real Fourier modes and DCT-II: apply_modes against sums in long double, at every kind of length.
#include <numbers>

#include "engines.hpp"
#include "roots_of_unity.hpp"

namespace {

using namespace brockett;
using namespace brockett::linalg;
using namespace brockett::test;

template <class E>
class ModesTest : public EngineTest<E> {};
TYPED_TEST_SUITE(ModesTest, Engines, EngineNames);

// cos(2 pi k / n), in long double.
class Circle {
 public:
  explicit Circle(index_t n) : cosines_(static_cast<std::size_t>(n)) {
    for (index_t k = 0; k < n; ++k) {
      cosines_[static_cast<std::size_t>(k)] =
          std::cos(2 * std::numbers::pi_v<long double> * static_cast<long double>(k) / static_cast<long double>(n));
    }
  }
  long double cosine(index_t k) const { return cosines_[static_cast<std::size_t>(k % size())]; }
  long double sine(index_t k) const { return cosine(k + 3 * (size() / 4)); }  // the size is a multiple of 4
  index_t size() const { return static_cast<index_t>(cosines_.size()); }

 private:
  std::vector<long double> cosines_;
};

// T_jc of linalg.hpp, on a circle of 4 n points.
long double mode(Modes modes, const Circle& circle, index_t j, index_t c) {
  const index_t n = circle.size() / 4;
  const auto one = static_cast<long double>(n);
  if (c == 0) return std::sqrt(1 / one);
  if (modes == Modes::dct) return std::sqrt(2 / one) * circle.cosine(c * (2 * j + 1));
  const index_t k = (c + 1) / 2;
  if (2 * k == n) return (j % 2 == 0 ? 1 : -1) * std::sqrt(1 / one);
  return std::sqrt(2 / one) * (c % 2 == 1 ? circle.cosine(4 * k * j) : circle.sine(4 * k * j));
}

// A T (transpose) or A T^T (none).
HostMatrix<double> reference(Modes modes, Op op, const HostMatrix<double>& A) {
  const index_t n = A.cols;
  const Circle circle(4 * n);
  HostMatrix<double> out(A.rows, n);
  std::vector<long double> sum(static_cast<std::size_t>(A.rows));
  for (index_t c = 0; c < n; ++c) {
    std::fill(sum.begin(), sum.end(), 0.0L);
    for (index_t j = 0; j < n; ++j) {
      const long double t = op == Op::transpose ? mode(modes, circle, j, c) : mode(modes, circle, c, j);
      for (index_t b = 0; b < A.rows; ++b) sum[static_cast<std::size_t>(b)] += t * A(b, j);
    }
    for (index_t b = 0; b < A.rows; ++b) out(b, c) = static_cast<double>(sum[static_cast<std::size_t>(b)]);
  }
  return out;
}

double relative_error(const HostMatrix<double>& A, const HostMatrix<double>& expected) {
  double error = 0, total = 0;
  for (std::size_t i = 0; i < A.data.size(); ++i) {
    error += (A.data[i] - expected.data[i]) * (A.data[i] - expected.data[i]);
    total += expected.data[i] * expected.data[i];
  }
  return std::sqrt(error / total);
}

TYPED_TEST(ModesTest, by_hand) {
  using T = typename TypeParam::T;
  const auto applied = [&](Modes modes, Op op, const HostMatrix<T>& A) {
    const auto a = this->to_device(A);
    this->la.apply_modes(modes, op, a);
    return this->to_host(a);
  };
  const double few = 4 * this->eps;
  const auto r = static_cast<T>(std::sqrt(0.5));
  for (const Modes modes : {Modes::fourier, Modes::dct}) {
    EXPECT_LE(difference(applied(modes, Op::transpose, {{3}}), HostMatrix<T>{{3}}), few);
    EXPECT_LE(difference(applied(modes, Op::transpose, {{1, 3}}), HostMatrix<T>{{4 * r, -2 * r}}), few);
    EXPECT_LE(difference(applied(modes, Op::none, {{4 * r, -2 * r}}), HostMatrix<T>{{1, 3}}), few);
  }
  // n = 4: 1, sqrt 2 cos, sqrt 2 sin, (-1)^j, each over 2.
  EXPECT_LE(difference(applied(Modes::fourier, Op::transpose, {{1, 2, 3, 5}}),
                       HostMatrix<T>{{static_cast<T>(5.5), -2 * r, -3 * r, static_cast<T>(-1.5)}}),
            2 * few);
  // A cosine, a sine: one coefficient each, in this order.
  HostMatrix<T> waves(2, 12), expected(2, 12);
  for (index_t j = 0; j < 12; ++j) {
    waves(0, j) = static_cast<T>(std::cos(2 * std::numbers::pi * 3 * static_cast<double>(j) / 12));
    waves(1, j) = static_cast<T>(std::sin(2 * std::numbers::pi * 5 * static_cast<double>(j) / 12));
  }
  expected(0, 5) = expected(1, 10) = static_cast<T>(std::sqrt(6.0));
  EXPECT_LE(difference(applied(Modes::fourier, Op::transpose, waves), expected), 2 * few);
}

// Powers of two, products of all the small primes, primes that go through the convolution, and all that is short.
TYPED_TEST(ModesTest, agree_with_sums_in_long_double) {
  using T = typename TypeParam::T;
  std::vector<index_t> lengths = {97, 127, 128};
  for (index_t n = 1; n <= 64; ++n) lengths.push_back(n);
  if (!this->apart && sizeof(T) == 8) lengths.insert(lengths.end(), {251, 256, 360, 1001, 1009, 1024, 4093, 4096});
  for (const index_t n : lengths) {
    const HostMatrix<T> A = HostMatrix<T>::random(n > 128 ? 3 : 19, n, static_cast<unsigned>(n));  // a group and a part
    for (const Modes modes : {Modes::fourier, Modes::dct}) {
      for (const Op op : {Op::none, Op::transpose}) {
        const auto a = this->to_device(A, Order::column_major, 2);
        this->la.apply_modes(modes, op, a);
        const double error =
            relative_error(this->to_host(a).template as<double>(), reference(modes, op, A.template as<double>()));
        // One rounding of T at the end, and 1e-16 or so for each doubling of the length.
        const double tolerance = (sizeof(T) == 4 ? this->eps / 2 : 0) + 1e-16 * (2 + std::log2(static_cast<double>(n)));
        EXPECT_LE(error, tolerance) << "n = " << n << ", modes " << static_cast<int>(modes) << ", op "
                                    << static_cast<int>(op);
      }
    }
  }
}

TYPED_TEST(ModesTest, undo_themselves) {
  using T = typename TypeParam::T;
  std::vector<index_t> lengths{45, 2048, 3 * 1009};
  if (TypeParam::kind == EngineKind::cuda) lengths = {45, 256, 3 * 101};  // n^2 operations there
  for (const index_t n : lengths) {
    const HostMatrix<T> A = HostMatrix<T>::random(37, n, 1);
    for (const Modes modes : {Modes::fourier, Modes::dct}) {
      const auto a = this->to_device(A, Order::column_major, 1);
      this->la.apply_modes(modes, Op::transpose, a);
      EXPECT_NEAR(this->la.norm(a), this->la.norm(this->to_device(A)), 1e-6 * this->la.norm(a));
      this->la.apply_modes(modes, Op::none, a);
      EXPECT_LE(difference(this->to_host(a), A), 10 * this->eps * largest_entry(A));
    }
  }
}

TEST(Rotation, is_exact_on_the_axes_and_symmetric) {
  for (const index_t n : {index_t{4}, index_t{8}, index_t{4096}, index_t{4 * 1009}}) {
    const index_t q = n / 4;
    EXPECT_EQ(rotation(0, n).cosine, 1);
    EXPECT_EQ(rotation(q, n).cosine, 0);
    EXPECT_EQ(rotation(q, n).sine, 1);
    EXPECT_EQ(rotation(2 * q, n).cosine, -1);
    EXPECT_EQ(rotation(3 * q, n).sine, -1);
    for (index_t k = 0; k < q; ++k) {
      EXPECT_EQ(rotation(k, n).cosine, rotation(q - k, n).sine);
      EXPECT_EQ(rotation(k, n).cosine, -rotation(2 * q - k, n).cosine);
      EXPECT_EQ(rotation(k, n).sine, -rotation(2 * q + k, n).sine);
      EXPECT_EQ(rotation(k, n).cosine, rotation(3 * q + k, n).sine * -1);
    }
  }
  // mpmath: cos and sin of 2 pi / 7 and 2 pi 5 / 7.
  EXPECT_DOUBLE_EQ(rotation(1, 7).cosine, 0.62348980185873353053);
  EXPECT_DOUBLE_EQ(rotation(1, 7).sine, 0.78183148246802980871);
  EXPECT_DOUBLE_EQ(rotation(5, 7).cosine, -0.22252093395631440429);
  EXPECT_DOUBLE_EQ(rotation(5, 7).sine, -0.97492791218182360702);
}

}  // namespace
