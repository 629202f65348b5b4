// The contract of linalg.hpp, one primitive after the other: memory, entries, products. Decompositions have a file of
// their own. By hand first, then at sizes that fit no block, with padded columns.
#include <cstdint>
#include <limits>
#include <numeric>

#include "engines.hpp"
#include "philox.hpp"

namespace {

using namespace brockett;
using namespace brockett::linalg;
using namespace brockett::test;

constexpr index_t kRows = 597, kCols = 43, kPadding = 2;

template <class E>
class LinAlgTest : public EngineTest<E> {
 protected:
  using Matrix = HostMatrix<typename E::T>;
  Matrix awkward(unsigned seed) const { return Matrix::random(kRows, kCols, seed); }
  DeviceMatrix<typename E::T> padded(const Matrix& A) { return this->to_device(A, Order::column_major, kPadding); }
};
TYPED_TEST_SUITE(LinAlgTest, Engines, EngineNames);

// --- memory --------------------------------------------------------------------------------------------------------

TYPED_TEST(LinAlgTest, allocates_aligned_memory_and_nothing_for_nothing) {
  EXPECT_EQ(this->la.allocate(0), nullptr);
  this->la.deallocate(nullptr);
  void* p = this->la.allocate(3);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(p) % 64, 0U);
  this->la.deallocate(p);
}

TYPED_TEST(LinAlgTest, names_the_size_that_it_cannot_allocate) {
  for (const std::size_t bytes : {std::size_t{1} << 60, std::numeric_limits<std::size_t>::max()}) {
    try {
      this->la.deallocate(this->la.allocate(bytes));
      ADD_FAILURE() << "got " << bytes << " bytes";
    } catch (const OutOfMemory& e) {
      EXPECT_NE(std::string(e.what()).find(std::to_string(bytes)), std::string::npos) << e.what();
    }
  }
}

TYPED_TEST(LinAlgTest, moves_matrices_in_and_out) {
  using T = typename TypeParam::T;
  const HostMatrix<T> A = this->awkward(1);
  const DeviceMatrix<T> a = this->padded(A), b = this->to_device(HostMatrix<T>(kRows, kCols));
  EXPECT_EQ(difference(this->to_host(a), A), 0);
  this->la.copy(a, b);
  EXPECT_EQ(difference(this->to_host(b), A), 0);
  this->la.copy(b, a);
  EXPECT_EQ(difference(this->to_host(a), A), 0);
}

TYPED_TEST(LinAlgTest, transposes) {
  using T = typename TypeParam::T;
  const DeviceMatrix<T> small = this->to_device(HostMatrix<T>{{1, 2, 3}, {4, 5, 6}}),
                        t = this->to_device(HostMatrix<T>(3, 2));
  this->la.transpose(small, t);
  EXPECT_EQ(difference(this->to_host(t), HostMatrix<T>{{1, 4}, {2, 5}, {3, 6}}), 0);

  const HostMatrix<T> A = this->awkward(2);
  const DeviceMatrix<T> a = this->padded(A), b = this->to_device(HostMatrix<T>(kCols, kRows), Order::column_major, 5);
  this->la.transpose(a, b);
  EXPECT_EQ(difference(this->to_host(b), A.transposed()), 0);
}

TYPED_TEST(LinAlgTest, converts_between_float_and_double) {
  using T = typename TypeParam::T;
  const HostMatrix<double> D = HostMatrix<double>::random(kRows, kCols, 3);
  const auto d = this->to_device(D, Order::column_major, 1);
  const auto f = this->to_device(D.as<float>());
  const auto a = this->padded(HostMatrix<T>(kRows, kCols));
  this->la.convert_from(DType::float64, d.mat().data, d.mat().ld, a);
  EXPECT_EQ(difference(this->to_host(a), D.as<T>()), 0);
  this->la.convert_from(DType::float32, f.mat().data, f.mat().ld, a);
  EXPECT_EQ(difference(this->to_host(a), D.as<float>()), 0);

  const auto out = this->to_device(HostMatrix<double>(kRows, kCols), Order::column_major, 3);
  this->la.convert_to(a, DType::float64, out.mat().data, out.mat().ld);
  EXPECT_EQ(difference(this->to_host(out), D.as<float>()), 0);
  this->la.convert_to(a, DType::float32, f.mat().data, f.mat().ld);
  EXPECT_EQ(difference(this->to_host(f), D.as<float>()), 0);
}

/// All numbers >= 0 of a half type, by their definition; the last is where infinity begins.
std::vector<double> half_numbers(DType type) {
  const int mantissa_bits = type == DType::float16 ? 10 : 7, bias = type == DType::float16 ? 15 : 127;
  std::vector<double> out;
  for (int i = 0; i <= (2 * bias + 1) << mantissa_bits; ++i) {
    const int exponent = i >> mantissa_bits, mantissa = i & ((1 << mantissa_bits) - 1);
    const double fraction = std::ldexp(mantissa, -mantissa_bits);
    out.push_back(exponent == 0 ? std::ldexp(fraction, 1 - bias) : std::ldexp(1 + fraction, exponent - bias));
  }
  return out;
}

// Rounding to nearest, ties to even, against a search through all numbers; float64 goes by way of float32.
TYPED_TEST(LinAlgTest, rounds_to_half_numbers) {
  using T = typename TypeParam::T;
  for (const DType type : {DType::float16, DType::bfloat16}) {
    const std::vector<double> numbers = half_numbers(type);
    std::vector<T> x;
    const HostMatrix<double> random = HostMatrix<double>::random(4000, 1, 31);
    for (std::size_t i = 0; i < random.data.size(); ++i) {
      x.push_back(static_cast<T>(std::ldexp(random.data[i], static_cast<int>(i % 60) - 40)));
    }
    for (std::size_t i = 0; i + 1 < numbers.size(); i += 7) {  // numbers, and what lies in the middle between two
      x.push_back(static_cast<T>(numbers[i]));
      x.push_back(static_cast<T>(-(numbers[i] + numbers[i + 1]) / 2));
    }
    const double largest = numbers[numbers.size() - 2], beyond = numbers.back();
    for (const double v : {largest, (largest + beyond) / 2, largest * 0.75 + beyond * 0.25, beyond}) {
      x.push_back(static_cast<T>(v));
    }
    const auto n = static_cast<index_t>(x.size());
    HostMatrix<T> A(n, 1);
    A.data = x;
    const auto a = this->padded(A), back = this->padded(HostMatrix<T>(n, 1));
    const auto halves = bytes_to_device(this->backend, std::vector<std::uint16_t>(x.size()).data(), 2 * x.size());
    void* target = const_cast<void*>(halves.get());
    this->la.convert_to(a, type, target, n);
    this->la.convert_from(type, target, n, back);
    const HostMatrix<T> got = this->to_host(back);
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double magnitude = std::abs(static_cast<double>(static_cast<float>(x[i])));
      const auto above = std::lower_bound(numbers.begin(), numbers.end(), magnitude);
      double want = std::numeric_limits<double>::infinity();
      if (above != numbers.end()) {
        const auto below = above == numbers.begin() || *above == magnitude ? above : above - 1;
        const double up = *above - magnitude, down = magnitude - *below;
        const bool even_above = (above - numbers.begin()) % 2 == 0;
        const auto nearest = up < down || (up == down && even_above) ? above : below;
        want = nearest + 1 == numbers.end() ? want : *nearest;
      }
      ASSERT_EQ(static_cast<double>(got.data[i]), std::copysign(want, static_cast<double>(x[i]))) << x[i];
    }
  }
}

TYPED_TEST(LinAlgTest, adds_elements_of_another_type) {
  using T = typename TypeParam::T;
  const HostMatrix<double> D = HostMatrix<double>::random(kRows, kCols, 5);
  const HostMatrix<T> Y = this->awkward(6);
  const auto d = this->to_device(D, Order::column_major, 1);
  const auto f = this->to_device(D.as<float>(), Order::column_major, 2);
  HostMatrix<T> with_double = Y, with_float = Y;
  for (std::size_t i = 0; i < Y.data.size(); ++i) {
    with_double.data[i] += static_cast<T>(D.data[i]);
    with_float.data[i] += static_cast<T>(static_cast<float>(D.data[i]));
  }
  const auto y = this->padded(Y), z = this->padded(Y);
  this->la.add_from(DType::float64, d.mat().data, d.mat().ld, y);
  EXPECT_LE(difference(this->to_host(y), with_double), 8 * this->eps);
  this->la.add_from(DType::float32, f.mat().data, f.mat().ld, z);
  EXPECT_EQ(difference(this->to_host(z), with_float), 0);

  const std::uint16_t three_and_a_half[] = {0x4200, 0x3800};  // float16
  const auto halves = bytes_to_device(this->backend, three_and_a_half, sizeof three_and_a_half);
  const auto small = this->to_device(HostMatrix<T>{{1}, {-1}});
  this->la.add_from(DType::float16, halves.get(), 2, small);
  EXPECT_EQ(difference(this->to_host(small), HostMatrix<T>{{4}, {-0.5}}), 0);
}

TYPED_TEST(LinAlgTest, finds_the_largest_magnitude_of_any_type) {
  HostMatrix<double> D = HostMatrix<double>::random(kRows, kCols, 7);
  D(kRows - 1, kCols - 1) = -1e4;
  const auto d = this->to_device(D, Order::column_major, 3);
  const auto f = this->to_device(D.as<float>(), Order::column_major, 1);
  EXPECT_EQ(this->la.max_abs_of(DType::float64, d.mat().data, kRows, kCols, d.mat().ld), 1e4);
  EXPECT_EQ(this->la.max_abs_of(DType::float32, f.mat().data, kRows, kCols, f.mat().ld), 1e4);
  EXPECT_LT(this->la.max_abs_of(DType::float64, d.mat().data, kRows - 1, kCols, d.mat().ld), 10);
  EXPECT_EQ(this->la.max_abs_of(DType::float64, nullptr, 0, kCols, 1), 0);
  const std::uint16_t bits[] = {0x3C00, 0xC500, 0x0001};  // 1, -5, 2^-24; 0.0078125, -2048, 9e-41 as bfloat16
  const auto halves = bytes_to_device(this->backend, bits, sizeof bits);
  EXPECT_EQ(this->la.max_abs_of(DType::float16, halves.get(), 3, 1, 3), 5);
  EXPECT_EQ(this->la.max_abs_of(DType::bfloat16, halves.get(), 3, 1, 3), 2048);
}

// Packed and with gaps, at sizes that whole vectors of 16 bytes make up and others, from addresses of all kinds: wherever a
// NaN or an Inf is, it is not missed, and beside it nothing is.
TYPED_TEST(LinAlgTest, the_largest_magnitude_is_not_finite_where_an_element_is_not) {
  struct Type {
    DType dtype;
    std::size_t size;
    std::uint64_t one, infinity, nan;
  };
  const Type types[] = {{DType::float16, 2, 0x3C00, 0xFC00, 0x7C01},
                        {DType::bfloat16, 2, 0x3F80, 0xFF80, 0x7F81},
                        {DType::float32, 4, 0x3F800000, 0xFF800000, 0x7F800001},
                        {DType::float64, 8, 0x3FF0000000000000, 0xFFF0000000000000, 0x7FF0000000000001}};
  for (const Type& type : types) {
    for (const index_t rows : {1, 7, 16}) {
      for (const index_t ld : {rows, rows + 1, rows + 8}) {
        for (const index_t first : {0, 1}) {
          constexpr index_t cols = 5;
          std::vector<unsigned char> bytes(type.size * static_cast<std::size_t>(first + ld * cols), 0xFF);
          const auto put = [&](index_t i, index_t j, std::uint64_t bits) {
            std::memcpy(&bytes[type.size * static_cast<std::size_t>(first + i + j * ld)], &bits, type.size);
          };
          for (index_t j = 0; j < cols; ++j) {
            for (index_t i = 0; i < rows; ++i) put(i, j, type.one);
          }
          const auto found = [&] {
            const auto data = bytes_to_device(this->backend, bytes.data(), bytes.size());
            const char* p = static_cast<const char*>(data.get()) + type.size * static_cast<std::size_t>(first);
            return this->la.max_abs_of(type.dtype, p, rows, cols, ld);
          };
          EXPECT_EQ(found(), 1);
          for (const std::uint64_t bits : {type.infinity, type.nan}) {
            for (const index_t at : {index_t{0}, rows * 2, rows * cols - 1}) {
              put(at % rows, at / rows, bits);
              EXPECT_FALSE(std::isfinite(found())) << rows << " " << ld << " " << first << " " << at;
              put(at % rows, at / rows, type.one);
            }
          }
        }
      }
    }
  }
}

// All 65,536 numbers of both half types, against the definition: (-1)^s 2^(e - bias) (1 + m / 2^p), subnormal 2^(1 -
// bias) m / 2^p.
TYPED_TEST(LinAlgTest, widens_every_half_number_exactly) {
  using T = typename TypeParam::T;
  std::vector<std::uint16_t> bits(65536);
  std::iota(bits.begin(), bits.end(), std::uint16_t{0});
  const auto halves = bytes_to_device(this->backend, bits.data(), 2 * bits.size());
  for (const DType type : {DType::float16, DType::bfloat16}) {
    const int mantissa_bits = type == DType::float16 ? 10 : 7, bias = type == DType::float16 ? 15 : 127;
    const int top = 2 * bias + 1;
    const auto a = this->to_device(HostMatrix<T>(256, 256));
    this->la.convert_from(type, halves.get(), 256, a);
    const HostMatrix<T> A = this->to_host(a);
    for (int i = 0; i < 65536; ++i) {
      const int exponent = (i & 0x7FFF) >> mantissa_bits, mantissa = i & ((1 << mantissa_bits) - 1);
      const auto got = static_cast<double>(A.data[static_cast<std::size_t>(i)]);
      ASSERT_EQ(std::signbit(got), i >= 0x8000) << i;
      if (exponent == top) {
        ASSERT_TRUE(mantissa == 0 ? std::isinf(got) : std::isnan(got)) << i;
        continue;
      }
      const double fraction = std::ldexp(mantissa, -mantissa_bits);
      const double expected =
          exponent == 0 ? std::ldexp(fraction, 1 - bias) : std::ldexp(1 + fraction, exponent - bias);
      ASSERT_EQ(std::abs(got), expected) << i;
    }
  }
}

TYPED_TEST(LinAlgTest, finds_the_first_number_that_is_not_finite) {
  using T = typename TypeParam::T;
  constexpr DType type = sizeof(T) == 4 ? DType::float32 : DType::float64;
  const T inf = std::numeric_limits<T>::infinity(), nan = std::numeric_limits<T>::quiet_NaN();
  HostMatrix<T> A = this->awkward(4);
  A(5, 5) = std::numeric_limits<T>::max();
  A(6, 6) = std::numeric_limits<T>::denorm_min();
  const auto first = [&](index_t padding) {
    const auto a = this->to_device(A, Order::column_major, padding);
    return this->la.first_nonfinite(type, a.mat().data, kRows, kCols, a.mat().ld);
  };
  EXPECT_EQ(first(0), -1);
  EXPECT_EQ(first(kPadding), -1);  // the NaN between the columns are nobody's business
  for (const T bad : {nan, -nan, inf, -inf}) {
    HostMatrix<T> clean = A;
    A(kRows - 1, kCols - 1) = bad;
    EXPECT_EQ(first(0), kRows * kCols - 1);
    A(3, 17) = bad;
    EXPECT_EQ(first(0), 3 + 17 * kRows);
    EXPECT_EQ(first(kPadding), 3 + 17 * kRows);
    A(0, 0) = bad;
    EXPECT_EQ(first(kPadding), 0);
    A = clean;
  }
  EXPECT_EQ(this->la.first_nonfinite(type, nullptr, 0, 7, 1), -1);
}

TYPED_TEST(LinAlgTest, finds_halves_that_are_not_finite) {
  // 65504 and the like are the largest finite numbers; one bit more is infinite.
  const std::vector<std::uint16_t> half = {0x7BFF, 0xFBFF, 0x0001, 0x7C00}, bfloat = {0x7F7F, 0xFF7F, 0x0001, 0xFF80};
  for (const auto& [type, bits] : {std::pair{DType::float16, half}, std::pair{DType::bfloat16, bfloat}}) {
    const auto p = bytes_to_device(this->backend, bits.data(), 8);
    EXPECT_EQ(this->la.first_nonfinite(type, p.get(), 4, 1, 4), 3);
    EXPECT_EQ(this->la.first_nonfinite(type, p.get(), 3, 1, 4), -1);
    EXPECT_EQ(this->la.first_nonfinite(type, p.get(), 2, 2, 2), 3);
  }
}

// --- entries -------------------------------------------------------------------------------------------------------

TYPED_TEST(LinAlgTest, fills_and_sets_the_identity) {
  using T = typename TypeParam::T;
  const auto a = this->padded(this->awkward(5));
  this->la.fill(a, T{2.5});
  EXPECT_EQ(difference(this->to_host(a), HostMatrix<T>(kRows, kCols, T{2.5})), 0);
  this->la.set_identity(a);
  EXPECT_EQ(difference(this->to_host(a), HostMatrix<T>::identity(kRows).block(0, 0, kRows, kCols)), 0);
}

TYPED_TEST(LinAlgTest, draws_the_normals_of_the_stream_column_by_column) {
  using T = typename TypeParam::T;
  constexpr std::uint64_t seed = 0x123456789ABCDEF0;
  const auto a = this->padded(HostMatrix<T>(kRows, kCols));
  this->la.normals(a, seed);
  const HostMatrix<T> A = this->to_host(a);
  for (index_t i = 0; i < kRows * kCols; ++i) {
    ASSERT_EQ(A.data[static_cast<std::size_t>(i)], static_cast<T>(philox::normal(seed, static_cast<std::uint64_t>(i))));
  }
}

TYPED_TEST(LinAlgTest, scales_adds_and_squares) {
  using T = typename TypeParam::T;
  const HostMatrix<T> A = this->awkward(6), B = this->awkward(7);
  const auto a = this->padded(A), b = this->to_device(B);
  std::vector<T> rows(kRows), cols(kCols);
  for (index_t i = 0; i < kRows; ++i) rows[static_cast<std::size_t>(i)] = static_cast<T>(i % 7 - 3);
  for (index_t j = 0; j < kCols; ++j) cols[static_cast<std::size_t>(j)] = static_cast<T>(j % 5 - 2);
  HostMatrix<T> expected(kRows, kCols);
  this->la.scale(T{-2}, a);
  this->la.add(T{4}, b, a);
  this->la.scale_columns(a, cols.data());
  this->la.scale_rows(a, rows.data());
  this->la.square(a);
  for (index_t j = 0; j < kCols; ++j) {
    for (index_t i = 0; i < kRows; ++i) {
      const T x = (-2 * A(i, j) + 4 * B(i, j)) * cols[static_cast<std::size_t>(j)] * rows[static_cast<std::size_t>(i)];
      expected(i, j) = x * x;
    }
  }
  EXPECT_LE(difference(this->to_host(a), expected), 4 * this->eps * largest_entry(expected));
  this->la.scale(T{0}, a);
  EXPECT_EQ(difference(this->to_host(a), HostMatrix<T>(kRows, kCols)), 0);
}

TYPED_TEST(LinAlgTest, sums_products_in_double) {
  using T = typename TypeParam::T;
  const HostMatrix<T> A = this->awkward(8), B = this->awkward(9);
  const auto a = this->padded(A), b = this->to_device(B);
  std::vector<double> columns(kCols);
  this->la.column_dots(a, b, columns.data());
  long double total = 0;
  for (index_t j = 0; j < kCols; ++j) {
    long double sum = 0;
    for (index_t i = 0; i < kRows; ++i) sum += static_cast<long double>(A(i, j)) * B(i, j);
    EXPECT_NEAR(columns[static_cast<std::size_t>(j)], static_cast<double>(sum), 1e-13);
    total += sum;
  }
  EXPECT_NEAR(this->la.dot(a, b), static_cast<double>(total), 1e-12);
  this->la.column_dots(a, a, columns.data());
  EXPECT_NEAR(std::accumulate(columns.begin(), columns.end(), 0.0), this->la.dot(a, a), 1e-9);
  // 2^24 + 1 is lost in a float sum.
  const auto big = this->to_device(HostMatrix<T>{{4096}, {1}});
  EXPECT_EQ(this->la.dot(big, big), 16777217.0);
  EXPECT_EQ(this->la.dot(Mat<T>(nullptr, 0, 3), Mat<T>(nullptr, 0, 3)), 0);
}

TYPED_TEST(LinAlgTest, measures_norms_without_overflow_or_underflow) {
  using T = typename TypeParam::T;
  const auto norm = [&](const HostMatrix<T>& A) { return this->la.norm(this->to_device(A, Order::column_major, 1)); };
  EXPECT_EQ(norm({{3, 0}, {0, -4}}), 5);
  EXPECT_EQ(norm({{0, 0}, {0, 0}}), 0);
  const T huge = std::numeric_limits<T>::max(), tiny = std::numeric_limits<T>::denorm_min();
  EXPECT_EQ(norm({{huge / 2, huge / 2}, {huge / 2, huge / 2}}), static_cast<double>(huge));
  EXPECT_EQ(norm({{tiny * 3, 0}, {0, tiny * 4}}), static_cast<double>(tiny) * 5);
  EXPECT_EQ(norm({{tiny, 0}, {0, 0}}), static_cast<double>(tiny));
  const double small = sizeof(T) == 4 ? 1e-30 : 1e-161;  // its square has lost its digits, or all, in T
  EXPECT_NEAR(norm({{static_cast<T>(3 * small), static_cast<T>(4 * small)}}), 5 * small, 5 * small * this->eps);
  EXPECT_EQ(norm({{1, -std::numeric_limits<T>::infinity()}}), std::numeric_limits<double>::infinity());
  EXPECT_TRUE(std::isnan(norm({{1, std::numeric_limits<T>::quiet_NaN()}})));
  const HostMatrix<T> A = this->awkward(10);
  EXPECT_NEAR(this->la.norm(this->padded(A)), std::sqrt(this->la.dot(this->padded(A), this->padded(A))), 1e-11);
  EXPECT_EQ(this->la.norm(Mat<T>(nullptr, 0, 3)), 0);
}

TYPED_TEST(LinAlgTest, finds_the_largest_magnitudes) {
  using T = typename TypeParam::T;
  HostMatrix<T> A = this->awkward(11);
  A(596, 42) = T{-100};
  EXPECT_EQ(this->la.max_abs(this->padded(A)), 100);
  EXPECT_EQ(this->la.max_abs(Mat<T>(nullptr, 0, 3)), 0);
  EXPECT_EQ(this->la.max_abs(this->to_device(HostMatrix<T>{{0, -std::numeric_limits<T>::infinity()}})), INFINITY);

  const auto small = this->to_device(HostMatrix<T>{{1, -7, 0}, {-3, 7, 0}, {3, 2, 0}});
  index_t row[kCols];
  T value[kCols];
  this->la.column_argmax(small, row, value);
  EXPECT_EQ(row[0], 1);  // the first of -3 and 3
  EXPECT_EQ(value[0], T{-3});
  EXPECT_EQ(row[1], 0);
  EXPECT_EQ(value[1], T{-7});
  EXPECT_EQ(row[2], 0);
  EXPECT_EQ(value[2], T{0});
  this->la.column_argmax(this->padded(A), row, value);
  for (index_t j = 0; j < kCols; ++j) {
    index_t best = 0;
    for (index_t i = 1; i < kRows; ++i) {
      if (std::abs(A(i, j)) > std::abs(A(best, j))) best = i;
    }
    EXPECT_EQ(row[j], best);
    EXPECT_EQ(value[j], A(best, j));
  }
}

// --- products ------------------------------------------------------------------------------------------------------

TYPED_TEST(LinAlgTest, multiplies_by_hand) {
  using T = typename TypeParam::T;
  const HostMatrix<T> A{{1, 2}, {3, 4}, {5, 6}}, B{{1, 0, -1}, {2, 1, 0}};
  const auto a = this->to_device(A), b = this->to_device(B), c = this->to_device(HostMatrix<T>(3, 3, T{1}));
  this->la.multiply(Op::none, Op::none, T{2}, a, b, T{-1}, c);
  EXPECT_EQ(difference(this->to_host(c), HostMatrix<T>{{9, 3, -3}, {21, 7, -7}, {33, 11, -11}}), 0);
  const auto d = this->to_device(HostMatrix<T>(2, 2, std::numeric_limits<T>::quiet_NaN()));
  this->la.multiply(Op::transpose, Op::transpose, T{1}, a, b, T{0}, d);  // beta = 0: the NaN in d do not count
  EXPECT_EQ(difference(this->to_host(d), HostMatrix<T>{{-4, 5}, {-4, 8}}), 0);
}

TYPED_TEST(LinAlgTest, multiplies_in_every_reading) {
  using T = typename TypeParam::T;
  constexpr index_t m = 43, n = 29, k = 101;
  const HostMatrix<T> A = HostMatrix<T>::random(m, k, 12), B = HostMatrix<T>::random(k, n, 13);
  const HostMatrix<double> expected = product(A, B);
  for (const Op op_a : {Op::none, Op::transpose}) {
    for (const Op op_b : {Op::none, Op::transpose}) {
      const auto a = this->to_device(op_a == Op::none ? A : A.transposed(), Order::column_major, 2);
      const auto b = this->to_device(op_b == Op::none ? B : B.transposed(), Order::column_major, 3);
      const auto c = this->to_device(HostMatrix<T>(m, n), Order::column_major, 1);
      this->la.multiply(op_a, op_b, T{1}, a, b, T{0}, c);
      EXPECT_LE(difference(this->to_host(c), expected), 100 * this->eps);
    }
  }
}

TYPED_TEST(LinAlgTest, multiplies_what_is_empty) {
  using T = typename TypeParam::T;
  const auto c = this->to_device(HostMatrix<T>(2, 2, T{3}));
  const Mat<T> none(nullptr, 2, 0), none_t(nullptr, 0, 2);
  this->la.multiply(Op::none, Op::none, T{1}, none, none_t, T{2}, c);
  EXPECT_EQ(difference(this->to_host(c), HostMatrix<T>(2, 2, T{6})), 0);
  this->la.multiply(Op::none, Op::none, T{1}, none, none_t, T{0}, c);
  EXPECT_EQ(difference(this->to_host(c), HostMatrix<T>(2, 2)), 0);
  this->la.multiply(Op::none, Op::none, T{1}, none_t, c, T{0}, none_t);
}

TYPED_TEST(LinAlgTest, multiplies_batches) {
  using T = typename TypeParam::T;
  for (const index_t n : {index_t{1}, index_t{2}, index_t{3}, index_t{17}}) {
    constexpr index_t batch = 3;
    const HostMatrix<T> A = HostMatrix<T>::random(n, batch * (n + 1), 14), B = HostMatrix<T>::random(n + 1, n, 15);
    for (const Op op : {Op::none, Op::transpose}) {
      // A_k: n x (n+1) side by side; B: one for all, by a stride of 0; C_k below each other in one matrix.
      const auto a = this->to_device(A, Order::column_major, 1);
      const auto b = this->to_device(op == Op::none ? B : B.transposed());
      const auto c = this->to_device(HostMatrix<T>(batch * n, n, T{1}));
      this->la.multiply_batched(Op::none, op, T{2}, a.mat().columns(0, n + 1), (n + 1) * a.mat().ld, b, 0, T{-1},
                                c.mat().block(0, 0, n, n), n, batch);
      const HostMatrix<T> C = this->to_host(c);
      for (index_t k = 0; k < batch; ++k) {
        HostMatrix<double> expected = product(A.block(0, k * (n + 1), n, n + 1), B);
        for (double& x : expected.data) x = 2 * x - 1;
        EXPECT_LE(difference(C.block(k * n, 0, n, n), expected), 100 * this->eps);
      }
    }
  }
}

// Large enough for the pieces that a few columns are multiplied in.
TYPED_TEST(LinAlgTest, multiplies_a_few_columns_there_and_back) {
  using T = typename TypeParam::T;
  for (const auto& [m, n, columns] : {std::tuple<index_t, index_t, index_t>{1100, 261, 3},
                                      {300, 1031, 16},
                                      {5, 3, 2},
                                      {700, 450, 27},
                                      {600, 600, 40}}) {
    const HostMatrix<T> A = HostMatrix<T>::random(m, n, 60);
    const auto a = this->to_device(A, Order::column_major, 3);
    for (const Op op : {Op::none, Op::transpose}) {
      SCOPED_TRACE(std::to_string(m) + " x " + std::to_string(n) + " times " + std::to_string(columns));
      const HostMatrix<T> X = HostMatrix<T>::random(op == Op::none ? n : m, columns, 61);
      const HostMatrix<double> there = product(op == Op::none ? A : A.transposed(), X);
      const HostMatrix<double> back = product(op == Op::none ? A.transposed() : A, there);
      const auto x = this->to_device(X, Order::column_major, 2);
      const auto nan = std::numeric_limits<T>::quiet_NaN();
      const auto y = this->to_device(HostMatrix<T>(there.rows, columns, nan), Order::column_major, 1);
      const auto z = this->to_device(HostMatrix<T>(back.rows, columns, nan), Order::column_major, 4);
      this->la.multiply_there_and_back(op, a, x, y, z);
      // entries of about sqrt(1031) and 1031, sums of at most 1100 terms in an order that is the BLAS library's
      EXPECT_LE(difference(this->to_host(y), there), 4000 * this->eps);
      EXPECT_LE(difference(this->to_host(z), back), 100000 * this->eps);
      EXPECT_EQ(difference(this->to_host(a), A), 0);
      this->la.multiply(op, Op::none, T{2}, a, x, T{-2}, y);  // 2 A X - 2 A X
      EXPECT_LE(largest_entry(this->to_host(y)), 8000 * this->eps);
    }
  }
}

TYPED_TEST(LinAlgTest, accumulates_outer_products_in_the_lower_triangle) {
  using T = typename TypeParam::T;
  const HostMatrix<T> A{{1, 2}, {3, 4}};
  const auto c = this->to_device(HostMatrix<T>{{1, -9}, {1, 1}});
  this->la.accumulate_outer(Op::none, T{1}, this->to_device(A), T{10}, c);  // A A^T = (5 11; 11 25)
  EXPECT_EQ(difference(this->to_host(c), HostMatrix<T>{{15, -9}, {21, 35}}), 0);
  this->la.mirror_lower(c);
  EXPECT_EQ(difference(this->to_host(c), HostMatrix<T>{{15, 21}, {21, 35}}), 0);

  const HostMatrix<T> B = this->awkward(16);
  for (const Op op : {Op::none, Op::transpose}) {
    const index_t n = op == Op::none ? kRows : kCols;
    const HostMatrix<double> expected = op == Op::none ? product(B, B.transposed()) : product(B.transposed(), B);
    const auto d = this->to_device(HostMatrix<T>(n, n, std::numeric_limits<T>::quiet_NaN()), Order::column_major, 2);
    this->la.accumulate_outer(op, T{1}, this->padded(B), T{0}, d);
    EXPECT_TRUE(std::isnan(this->to_host(d)(0, 1)));
    this->la.mirror_lower(d);
    EXPECT_LE(difference(this->to_host(d), expected), 40 * this->eps * largest_entry(expected));
  }
}

// --- reduced precisions ---------------------------------------------------------------------------------------------------

// Exact products of the rounded factors; without units for it, Unsupported.
TYPED_TEST(LinAlgTest, multiplies_in_reduced_precision_or_says_that_it_cannot) {
  using T = typename TypeParam::T;
  constexpr index_t m = 33, n = 21, k = 57;
  const HostMatrix<float> A = HostMatrix<float>::random(m, k, 41), B = HostMatrix<float>::random(k, n, 42);
  for (const Op op : {Op::none, Op::transpose}) {
    const auto a = this->to_device(A), b = this->to_device(op == Op::none ? B : B.transposed());
    const auto c = this->to_device(HostMatrix<T>(m, n), Order::column_major, 1);
    for (const DType type : {DType::float16, DType::bfloat16, DType::float32}) {
      SCOPED_TRACE(static_cast<int>(type));
      const std::shared_ptr<const void> half_a = bytes_to_device(this->backend, A.data.data(), 4 * A.data.size()),
                                        half_b = bytes_to_device(this->backend, B.data.data(), 4 * B.data.size());
      void *pa = const_cast<void*>(half_a.get()), *pb = const_cast<void*>(half_b.get());
      const index_t ldb = b.mat().rows;
      auto& narrow = this->backend->single();
      HostMatrix<float> ra = A, rb = this->to_host(b);  // what the units read
      if (type == DType::float32) {
        narrow.copy(a, {static_cast<float*>(pa), m, k});
        narrow.copy(b, {static_cast<float*>(pb), b.mat().rows, b.mat().cols});
      } else {
        narrow.convert_to(a, type, pa, m);
        narrow.convert_to(b, type, pb, ldb);
        const auto wide_a = this->to_device(A), wide_b = this->to_device(rb);
        narrow.convert_from(type, pa, m, wide_a);
        narrow.convert_from(type, pb, ldb, wide_b);
        ra = this->to_host(wide_a), rb = this->to_host(wide_b);
      }
      if constexpr (TypeParam::kind == EngineKind::cuda && std::is_same_v<T, float>) {
        this->la.multiply_reduced(op, type, pa, m, pb, ldb, k, c);
        const HostMatrix<double> want =
            product(ra.template as<double>(), (op == Op::none ? rb : rb.transposed()).template as<double>());
        // tf32 rounds both factors to 10 bits, or cuts them off there; sums of k products in float32
        const double rounding = type == DType::float32 ? 0x1p-9 : 0;
        const double tolerance = (rounding * std::sqrt(k) * 4 + 1e-6 * k) * 4;
        EXPECT_LE(difference(this->to_host(c), want), tolerance);
        if (type == DType::float32) {
          EXPECT_GT(difference(this->to_host(c), want), 1e-5);
        }
      } else {
        EXPECT_THROW(this->la.multiply_reduced(op, type, pa, m, pb, ldb, k, c), Unsupported);
      }
    }
  }
}

// --- the backend ----------------------------------------------------------------------------------------------------------

// Rows of 3 numbers, 5 apart: whatever the pieces are, together they are all rows, in their order, in backend memory.
TYPED_TEST(LinAlgTest, streams_host_memory_in_pieces) {
  using T = typename TypeParam::T;
  constexpr index_t rows = 1003;
  std::vector<T> host(5 * rows, std::numeric_limits<T>::quiet_NaN());
  for (index_t i = 0; i < rows; ++i) {
    for (index_t j = 0; j < 3; ++j) host[static_cast<std::size_t>(5 * i + j)] = static_cast<T>(10 * i + j);
  }
  for (const index_t step : {index_t{1}, index_t{64}, index_t{501}, rows, 2 * rows}) {
    index_t expected = 0;
    const auto out = this->to_device(HostMatrix<T>(3, rows));
    this->backend->stream_from_host(host.data(), 3 * sizeof(T), 5 * sizeof(T), rows, step,
                                    [&](index_t first, index_t count, const void* data, std::size_t pitch) {
                                      EXPECT_EQ(first, expected);
                                      EXPECT_TRUE(count <= step || !TypeParam::apart);
                                      expected += count;
                                      this->la.convert_from(std::is_same_v<T, float> ? DType::float32 : DType::float64,
                                                            data, static_cast<index_t>(pitch / sizeof(T)),
                                                            out.mat().columns(first, count));
                                    });
    EXPECT_EQ(expected, rows);
    const HostMatrix<T> got = this->to_host(out);
    for (index_t i = 0; i < rows; ++i) {
      for (index_t j = 0; j < 3; ++j) ASSERT_EQ(got(j, i), static_cast<T>(10 * i + j)) << i << ", step " << step;
    }
    // what `f` throws comes through, and nothing is left behind
    EXPECT_THROW(
        this->backend->stream_from_host(host.data(), 3 * sizeof(T), 5 * sizeof(T), rows, step,
                                        [](index_t, index_t, const void*, std::size_t) { throw Interrupted(); }),
        Interrupted);
  }
  this->backend->stream_from_host(nullptr, 8, 8, 0, 5, [](index_t, index_t, const void*, std::size_t) { FAIL(); });
}

}  // namespace
