#include "linalg/cuda/kernels.hpp"

#include <bit>
#include <cmath>
#include <type_traits>

#include "linalg/half.hpp"
#include "philox.hpp"

// Four patterns (over entries, over a matrix to one value, over columns to one value each, over a range) take functors;
// under nvcc they are kernels, else loops that the stand-in for CUDA queues on its stream.
#if defined(__CUDACC__)
#define BROCKETT_HD __host__ __device__
#else
#define BROCKETT_HD
#include "shim_launch.hpp"  // shim::submit(stream, std::function<void()>)
#endif

namespace brockett::linalg::cuda::kernels {
namespace {

constexpr int kThreads = 256;
constexpr index_t kMaxBlocks = 65535;  // of the second dimension of a grid, too
constexpr index_t kMaxPartials = 1024;  // what one download and a loop on the host take without being noticed
constexpr index_t kPerThread = 16;  // entries that make a partial result worth its own block

constexpr index_t at_most(index_t a, index_t b) { return a < b ? a : b; }
constexpr index_t at_least(index_t a, index_t b) { return a > b ? a : b; }
constexpr index_t pieces(index_t n, index_t size) { return (n + size - 1) / size; }

#if defined(__CUDACC__)

// The threads of a block along a column: a power of two that covers short columns.
int threads_along(index_t rows) {
  int x = 32;
  while (x < kThreads && x < rows) x *= 2;
  return x;
}

// f(k), k < n
template <class F>
__global__ void range_kernel(index_t n, F f) {
  const index_t step = static_cast<index_t>(gridDim.x) * blockDim.x;
  for (index_t k = static_cast<index_t>(blockIdx.x) * blockDim.x + threadIdx.x; k < n; k += step) f(k);
}
template <class F>
cudaError_t over_range(cudaStream_t s, index_t n, F f) {
  if (n <= 0) return cudaSuccess;
  range_kernel<<<static_cast<unsigned>(at_most(pieces(n, kThreads), kMaxBlocks)), kThreads, 0, s>>>(n, f);
  return cudaGetLastError();
}

// f(i, j), i < rows, j < cols
template <class F>
__global__ void entries_kernel(index_t rows, index_t cols, F f) {
  const index_t row_step = static_cast<index_t>(gridDim.x) * blockDim.x;
  const index_t col_step = static_cast<index_t>(gridDim.y) * blockDim.y;
  for (index_t j = static_cast<index_t>(blockIdx.y) * blockDim.y + threadIdx.y; j < cols; j += col_step) {
    for (index_t i = static_cast<index_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < rows; i += row_step) f(i, j);
  }
}
template <class F>
cudaError_t over_entries(cudaStream_t s, index_t rows, index_t cols, F f) {
  if (rows <= 0 || cols <= 0) return cudaSuccess;
  const int x = threads_along(rows), y = kThreads / x;
  const dim3 block(static_cast<unsigned>(x), static_cast<unsigned>(y));
  const dim3 grid(static_cast<unsigned>(at_most(pieces(rows, x), kMaxBlocks)),
                  static_cast<unsigned>(at_most(pieces(cols, y), kMaxBlocks)));
  entries_kernel<<<grid, block, 0, s>>>(rows, cols, f);
  return cudaGetLastError();
}

// The values of the threads of a block joined in a tree, always the same one; thread 0 has the result.
template <class F, class V>
__device__ V join_block(const F& f, V value) {
  __shared__ V held[kThreads];
  const int t = static_cast<int>(threadIdx.y * blockDim.x + threadIdx.x);
  held[t] = value;
  __syncthreads();
  for (int half = kThreads / 2; half > 0; half /= 2) {
    if (t < half) held[t] = f.join(held[t], held[t + half]);
    __syncthreads();
  }
  return held[0];
}

// out[b] <- join of f(i, j) over the columns of block b
template <class F, class V>
__global__ void matrix_kernel(index_t rows, index_t cols, F f, V* out) {
  V value = f.nothing();
  const index_t col_step = static_cast<index_t>(gridDim.x) * blockDim.y;
  for (index_t j = static_cast<index_t>(blockIdx.x) * blockDim.y + threadIdx.y; j < cols; j += col_step) {
    for (index_t i = threadIdx.x; i < rows; i += blockDim.x) value = f.join(value, f(i, j));
  }
  value = join_block(f, value);
  if (threadIdx.x == 0 && threadIdx.y == 0) out[blockIdx.x] = value;
}
template <class F, class V>
cudaError_t join_matrix(cudaStream_t s, index_t parts, index_t rows, index_t cols, F f, V* out) {
  const int x = threads_along(rows), y = kThreads / x;
  const dim3 block(static_cast<unsigned>(x), static_cast<unsigned>(y));
  matrix_kernel<<<static_cast<unsigned>(parts), block, 0, s>>>(rows, cols, f, out);
  return cudaGetLastError();
}

// out[p + j parts] <- join of f(i, j) over part p of the rows
template <class F, class V>
__global__ void columns_kernel(index_t rows, index_t cols, F f, V* out) {
  for (index_t j = blockIdx.y; j < cols; j += gridDim.y) {
    V value = f.nothing();
    const index_t step = static_cast<index_t>(gridDim.x) * blockDim.x;
    for (index_t i = static_cast<index_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < rows; i += step) {
      value = f.join(value, f(i, j));
    }
    value = join_block(f, value);
    if (threadIdx.x == 0) out[blockIdx.x + j * gridDim.x] = value;
    __syncthreads();  // the next column uses the same shared memory
  }
}
template <class F, class V>
cudaError_t join_columns(cudaStream_t s, index_t rows, index_t cols, F f, V* out) {
  const dim3 grid(static_cast<unsigned>(partials_of_column(rows, cols)),
                  static_cast<unsigned>(at_most(cols, kMaxBlocks)));
  columns_kernel<<<grid, kThreads, 0, s>>>(rows, cols, f, out);
  return cudaGetLastError();
}

#else

// Threads promise no order, and how a reduction is shared out is nobody's business: the stand-in varies both.
template <class F>
cudaError_t over_range(cudaStream_t s, index_t n, F f) {
  shim::submit(s, [=] { shim::in_some_order(n, f); });
  return cudaGetLastError();
}
template <class F>
cudaError_t over_entries(cudaStream_t s, index_t rows, index_t cols, F f) {
  shim::submit(s, [=] {
    shim::in_some_order(cols, [&](index_t j) { shim::in_some_order(rows, [&](index_t i) { f(i, j); }); });
  });
  return cudaGetLastError();
}

// Of n things the ones that fall to part p: every parts-th, or a run of neighbours; a thread may as well get none.
template <class F, class V, class G>
V join_part(const F& f, V value, index_t n, index_t parts, index_t p, G&& of) {
  const index_t length = pieces(n, parts);
  const bool neighbours = shim::order() == shim::Order::backwards;
  shim::in_some_order(length, [&](index_t k) {
    const index_t at = neighbours ? p * length + k : p + k * parts;
    if (at < n) value = f.join(value, of(at));
  });
  return f.join(f.nothing(), f.join(value, f.nothing()));
}
template <class F, class V>
cudaError_t join_matrix(cudaStream_t s, index_t parts, index_t rows, index_t cols, F f, V* out) {
  shim::submit(s, [=] {
    shim::in_some_order(parts, [&](index_t p) {
      out[p] = join_part(f, V(f.nothing()), cols, parts, p, [&](index_t j) {
        return join_part(f, V(f.nothing()), rows, 1, 0, [&](index_t i) { return V(f(i, j)); });
      });
    });
  });
  return cudaGetLastError();
}
template <class F, class V>
cudaError_t join_columns(cudaStream_t s, index_t rows, index_t cols, F f, V* out) {
  shim::submit(s, [=] {
    const index_t parts = partials_of_column(rows, cols);
    shim::in_some_order(cols, [&](index_t j) {
      shim::in_some_order(parts, [&](index_t p) {
        out[p + j * parts] = join_part(f, V(f.nothing()), rows, parts, p, [&](index_t i) { return V(f(i, j)); });
      });
    });
  });
  return cudaGetLastError();
}

#endif

// A packed matrix is as well one of any other number of rows: columns of a few thousand entries keep blocks busy, and
// the rest makes a last column that f must cut off.
constexpr index_t kFoldedRows = 4096;

// --- functors -----------------------------------------------------------------------------------------------------------

template <DType type>
struct Element;  // how an element of `type` lies in memory, and what it is worth
template <>
struct Element<DType::float32> {
  using Stored = float;
  using Bits = std::uint32_t;
  static constexpr Bits magnitude = 0x7FFFFFFF, infinity = 0x7F800000;
  BROCKETT_HD static float load(float x) { return x; }
  BROCKETT_HD static float store(float x) { return x; }
  BROCKETT_HD static float store(double x) { return static_cast<float>(x); }
};
template <>
struct Element<DType::float64> {
  using Stored = double;
  using Bits = std::uint64_t;
  static constexpr Bits magnitude = 0x7FFFFFFFFFFFFFFF, infinity = 0x7FF0000000000000;
  BROCKETT_HD static double load(double x) { return x; }
  BROCKETT_HD static double store(double x) { return x; }
};
template <>
struct Element<DType::float16> {
  using Stored = std::uint16_t;
  using Bits = std::uint16_t;
  static constexpr Bits magnitude = 0x7FFF, infinity = 0x7C00;
  BROCKETT_HD static float load(std::uint16_t x) { return half_to_float(x); }
  BROCKETT_HD static std::uint16_t store(float x) { return float_to_half(x); }
  BROCKETT_HD static std::uint16_t store(double x) { return float_to_half(static_cast<float>(x)); }
};
template <>
struct Element<DType::bfloat16> {
  using Stored = std::uint16_t;
  using Bits = std::uint16_t;
  static constexpr Bits magnitude = 0x7FFF, infinity = 0x7F80;
  BROCKETT_HD static float load(std::uint16_t x) { return bfloat16_to_float(x); }
  BROCKETT_HD static std::uint16_t store(float x) { return float_to_bfloat16(x); }
  BROCKETT_HD static std::uint16_t store(double x) { return float_to_bfloat16(static_cast<float>(x)); }
};

// g(Element<type>) for the type of a run-time tag
template <class G>
cudaError_t with_element(DType type, G&& g) {
  switch (type) {
    case DType::float16:
      return g(Element<DType::float16>{});
    case DType::bfloat16:
      return g(Element<DType::bfloat16>{});
    case DType::float32:
      return g(Element<DType::float32>{});
    case DType::float64:
      return g(Element<DType::float64>{});
  }
  return cudaErrorInvalidValue;
}

template <class V>
struct Copy {
  const V* a;
  index_t lda;
  V* b;
  index_t ldb;
  BROCKETT_HD void operator()(index_t i, index_t j) const { b[i + j * ldb] = a[i + j * lda]; }
};

template <class From, class To>
struct Convert {
  const typename From::Stored* x;
  index_t ldx;
  typename To::Stored* y;
  index_t ldy;
  BROCKETT_HD void operator()(index_t i, index_t j) const { y[i + j * ldy] = To::store(From::load(x[i + j * ldx])); }
};
template <class From, class To>
struct ConvertAdd {
  const typename From::Stored* x;
  index_t ldx;
  typename To::Stored* y;
  index_t ldy;
  BROCKETT_HD void operator()(index_t i, index_t j) const {
    auto& to = y[i + j * ldy];
    to = To::store(To::load(to) + To::load(To::store(From::load(x[i + j * ldx]))));
  }
};

template <class T>
struct ReverseColumns {
  Mat<const T> a;
  Mat<T> b;
  BROCKETT_HD void operator()(index_t i, index_t j) const {
    b.data[i + j * b.ld] = a.data[i + (a.cols - 1 - j) * a.ld];
  }
};

template <class T>
struct Interleave {
  const T* a;
  index_t lda;
  const T* b;
  index_t ldb, stride, n;
  T* z;
  BROCKETT_HD void operator()(index_t i, index_t column) const {  // column j of matrix k
    const index_t k = column / n, j = column - k * n;
    T* out = z + 2 * (i + column * n);
    // both triangles, so that it does not matter which a solver reads: CUDA.jl (pull request 2577) met random failures of
    // XsyevBatched with the lower one
    const index_t row = i < j ? j : i, from = i < j ? i : j;
    const T imaginary = i == j ? T(0) : b[row + from * ldb + k * stride];
    out[0] = a[row + from * lda + k * stride];
    out[1] = i < j ? -imaginary : imaginary;
  }
};

template <class T>
struct Fill {
  T* a;
  index_t ld;
  T value;
  BROCKETT_HD void operator()(index_t i, index_t j) const { a[i + j * ld] = value; }
};
template <class T>
struct Identity {
  T* a;
  index_t ld;
  BROCKETT_HD void operator()(index_t i, index_t j) const { a[i + j * ld] = i == j ? T(1) : T(0); }
};
template <class T>
struct Scale {
  T alpha;
  T* a;
  index_t ld;
  BROCKETT_HD void operator()(index_t i, index_t j) const { a[i + j * ld] *= alpha; }
};
template <class T>
struct Add {
  T alpha;
  const T* x;
  index_t ldx;
  T* y;
  index_t ldy;
  BROCKETT_HD void operator()(index_t i, index_t j) const { y[i + j * ldy] += alpha * x[i + j * ldx]; }
};
template <class T>
struct ScaleColumns {
  T* a;
  index_t ld;
  const T* d;
  BROCKETT_HD void operator()(index_t i, index_t j) const { a[i + j * ld] *= d[j]; }
};
template <class T>
struct ScaleRows {
  T* a;
  index_t ld;
  const T* d;
  BROCKETT_HD void operator()(index_t i, index_t j) const { a[i + j * ld] *= d[i]; }
};
template <class T>
struct Square {
  T* a;
  index_t ld;
  BROCKETT_HD void operator()(index_t i, index_t j) const { a[i + j * ld] *= a[i + j * ld]; }
};
template <class T>
struct MirrorLower {
  T* c;
  index_t ld;
  BROCKETT_HD void operator()(index_t i, index_t j) const {
    if (i > j) c[j + i * ld] = c[i + j * ld];
  }
};
template <class T>
struct ZeroAbove {
  T* a;
  index_t ld;
  BROCKETT_HD void operator()(index_t i, index_t j) const {
    if (i < j) a[i + j * ld] = T(0);
  }
};
template <class T>
struct ZeroBelow {
  T* a;
  index_t ld;
  BROCKETT_HD void operator()(index_t i, index_t j) const {
    if (i > j) a[i + j * ld] = T(0);
  }
};

// Numbers 2 p and 2 p + 1 share a counter, a logarithm and an angle.
template <class T>
struct Normals {
  T* a;
  index_t rows, ld, count;
  std::uint64_t seed;
  BROCKETT_HD void operator()(index_t p) const {
    const auto w = philox::block(seed, static_cast<std::uint64_t>(p));
    const double radius = std::sqrt(-2.0 * std::log(philox::to_uniform(w[0], w[1])));
    const double angle = 2.0 * 3.14159265358979323846 * philox::to_uniform(w[2], w[3]);
    put(2 * p, radius * std::cos(angle));
    if (2 * p + 1 < count) put(2 * p + 1, radius * std::sin(angle));
  }
  BROCKETT_HD void put(index_t k, double value) const {
    const index_t j = k / rows, i = k - j * rows;
    a[i + j * ld] = static_cast<T>(value);
  }
};

// cos(2 pi r / turn), 0 <= r < turn: reduced to the first octant in integers, so that the library functions see an angle
// of at most pi / 4 and the symmetries of the circle hold exactly.
BROCKETT_HD double cosine_of_turn(index_t r, index_t turn) {
  const index_t folded = 2 * r > turn ? turn - r : r;  // cos is even
  const bool negative = 4 * folded > turn;
  const index_t quarter = negative ? 2 * turn - 4 * folded : 4 * folded;  // angle = quarter / turn pi / 2
  const double half_pi = 1.57079632679489661923, size = static_cast<double>(turn);
  const double value = 2 * quarter > turn ? std::sin(half_pi * (static_cast<double>(turn - quarter) / size))
                                          : std::cos(half_pi * (static_cast<double>(quarter) / size));
  return negative ? -value : value;
}

// T_jc of linalg.hpp, on a circle of 4 n points
struct FillModes {
  Modes kind;
  bool transposed;
  index_t n, first;
  double* m;
  index_t ld;
  BROCKETT_HD void operator()(index_t i, index_t o) const {
    const index_t j = transposed ? first + o : i, c = transposed ? i : first + o;
    m[i + o * ld] = mode(j, c);
  }
  BROCKETT_HD double mode(index_t j, index_t c) const {
    const double single = std::sqrt(1.0 / static_cast<double>(n)), pair = std::sqrt(2.0 / static_cast<double>(n));
    if (c == 0) return single;
    if (kind == Modes::dct) return pair * cosine_of_turn(c * (2 * j + 1) % (4 * n), 4 * n);
    const index_t k = (c + 1) / 2;
    if (2 * k == n) return j % 2 == 0 ? single : -single;
    const index_t at = 4 * (k * j % n);
    return pair * cosine_of_turn(c % 2 == 1 ? at : (at + 3 * n) % (4 * n), 4 * n);
  }
};

// A matrix, or a packed one folded into columns of kFoldedRows entries; `size` entries in all.
template <class V>
struct Folded {
  const V* a;
  index_t rows, cols, ld, size;
  bool folded;

  Folded(const V* a_, index_t rows_, index_t cols_, index_t ld_)
      : a(a_), rows(rows_), cols(cols_), ld(ld_), size(rows_ * cols_), folded(ld_ == rows_ || cols_ == 1) {
    if (!folded) return;
    rows = ld = at_most(size, kFoldedRows);
    cols = pieces(size, rows);
  }
  BROCKETT_HD bool has(index_t i, index_t j) const { return !folded || i + j * ld < size; }
  BROCKETT_HD const V& operator()(index_t i, index_t j) const { return a[i + j * ld]; }
};

// What one load of a thread can bring: 16 bytes, of a type however narrow.
template <class Bits, int count>
struct alignas(count * sizeof(Bits)) Chunk {
  Bits at[count];
};
// Magnitudes are ordered as their bits are, infinity and what lies above it at the end.
template <class E, int count>
struct LargestMagnitude {
  using Bits = typename E::Bits;
  Folded<Chunk<Bits, count>> a;
  BROCKETT_HD static double nothing() { return 0; }
  BROCKETT_HD static double join(double x, double y) { return y > x ? y : x; }
  BROCKETT_HD double operator()(index_t i, index_t j) const {
    if (!a.has(i, j)) return 0;
    const Chunk<Bits, count> chunk = a(i, j);
    Bits largest = 0;
    for (int k = 0; k < count; ++k) {
      const Bits bits = static_cast<Bits>(chunk.at[k] & E::magnitude);
      largest = bits > largest ? bits : largest;
    }
    return static_cast<double>(E::load(std::bit_cast<typename E::Stored>(at_most_infinity(largest))));
  }
  BROCKETT_HD static Bits at_most_infinity(Bits bits) { return bits > E::infinity ? E::infinity : bits; }
};

struct Sum {
  BROCKETT_HD static double nothing() { return 0; }
  BROCKETT_HD static double join(double x, double y) { return x + y; }
};
template <class T>
struct SquareSum : Sum {
  Folded<T> a;
  double first, second;
  SquareSum(Folded<T> a_, double first_, double second_) : a(a_), first(first_), second(second_) {}
  BROCKETT_HD double operator()(index_t i, index_t j) const {
    if (!a.has(i, j)) return 0;
    const double x = static_cast<double>(a(i, j)) * first * second;
    return x * x;
  }
};
template <class T>
struct Products : Sum {
  Mat<const T> a, b;
  Products(Mat<const T> a_, Mat<const T> b_) : a(a_), b(b_) {}
  BROCKETT_HD double operator()(index_t i, index_t j) const {
    return static_cast<double>(a.data[i + j * a.ld]) * static_cast<double>(b.data[i + j * b.ld]);
  }
};

template <class E>
struct FirstNonfinite {
  const typename E::Bits* a;
  index_t rows, ld, none;
  BROCKETT_HD index_t nothing() const { return none; }
  BROCKETT_HD index_t join(index_t x, index_t y) const { return x < y ? x : y; }
  BROCKETT_HD index_t operator()(index_t i, index_t j) const {
    const index_t at = i + j * rows;
    if (at >= none) return none;  // behind the end of a folded matrix
    return (a[i + j * ld] & E::magnitude) >= E::infinity ? at : none;
  }
};

template <class T>
struct ColumnExtreme {
  const T* a;
  index_t ld;
  BROCKETT_HD static Extreme<T> nothing() { return {T(-1), T(0), 0}; }
  BROCKETT_HD static Extreme<T> join(const Extreme<T>& x, const Extreme<T>& y) {
    return y.magnitude > x.magnitude || (y.magnitude == x.magnitude && y.row < x.row) ? y : x;
  }
  BROCKETT_HD Extreme<T> operator()(index_t i, index_t j) const {
    const T value = a[i + j * ld];
    return {value < T(0) ? -value : value, value, i};
  }
};

// Packed matrices as one long column: no thread idles at the end of a short one.
template <class T>
void lengthen(Mat<T>& A) {
  if (A.ld == A.rows) A = Mat<T>(A.data, A.rows * A.cols, 1);
}

}  // namespace

index_t partials(index_t size) { return at_most(kMaxPartials, at_least(1, pieces(size, kThreads * kPerThread))); }
index_t partials_of_column(index_t rows, index_t cols) {
  const index_t wanted = at_least(1, pieces(rows, kThreads * kPerThread));
  return at_most(wanted, at_least(1, kMaxPartials / at_least(1, cols)));
}

// --- copies and conversions ---------------------------------------------------------------------------------------------

template <class T>
cudaError_t copy(cudaStream_t s, Mat<const T> A, Mat<T> B) {
  return over_entries(s, A.rows, A.cols, Copy<T>{A.data, A.ld, B.data, B.ld});
}

cudaError_t copy_bytes(cudaStream_t s, const void* from, index_t pitch_from, void* to, index_t pitch_to, index_t width,
                       index_t count) {
  const auto as = [&]<class V>(V) {
    const auto size = static_cast<index_t>(sizeof(V));
    return over_entries(s, width / size, count,
                        Copy<V>{static_cast<const V*>(from), pitch_from / size, static_cast<V*>(to), pitch_to / size});
  };
  const auto bits =
      static_cast<index_t>(reinterpret_cast<std::uintptr_t>(from) | reinterpret_cast<std::uintptr_t>(to)) | pitch_from |
      pitch_to | width;
  if (bits % 8 == 0) return as(std::uint64_t{});
  if (bits % 4 == 0) return as(std::uint32_t{});
  if (bits % 2 == 0) return as(std::uint16_t{});
  return as(std::uint8_t{});
}

cudaError_t convert(cudaStream_t s, DType from, const void* X, index_t ldx, DType to, void* Y, index_t ldy,
                    index_t rows, index_t cols, bool add) {
  if (ldx == rows && ldy == rows) {
    rows *= cols;
    ldx = ldy = rows;
    cols = 1;
  }
  return with_element(from, [&]<class From>(From) {
    return with_element(to, [&]<class To>(To) {
      const auto* x = static_cast<const typename From::Stored*>(X);
      auto* y = static_cast<typename To::Stored*>(Y);
      return add ? over_entries(s, rows, cols, ConvertAdd<From, To>{x, ldx, y, ldy})
                 : over_entries(s, rows, cols, Convert<From, To>{x, ldx, y, ldy});
    });
  });
}

template <class T>
cudaError_t reverse_columns(cudaStream_t s, Mat<const T> A, Mat<T> B) {
  return over_entries(s, B.rows, B.cols, ReverseColumns<T>{A, B});
}

template <class T>
cudaError_t interleave(cudaStream_t s, Mat<const T> A, Mat<const T> B, index_t stride, index_t batch, T* Z) {
  return over_entries(s, A.cols, A.cols * batch, Interleave<T>{A.data, A.ld, B.data, B.ld, stride, A.cols, Z});
}

// --- elementwise --------------------------------------------------------------------------------------------------------

template <class T>
cudaError_t fill(cudaStream_t s, Mat<T> A, T value) {
  lengthen(A);
  return over_entries(s, A.rows, A.cols, Fill<T>{A.data, A.ld, value});
}
template <class T>
cudaError_t set_identity(cudaStream_t s, Mat<T> A) {
  return over_entries(s, A.rows, A.cols, Identity<T>{A.data, A.ld});
}
template <class T>
cudaError_t normals(cudaStream_t s, Mat<T> A, std::uint64_t seed) {
  const index_t count = A.rows * A.cols;
  return over_range(s, pieces(count, 2), Normals<T>{A.data, A.rows, A.ld, count, seed});
}
template <class T>
cudaError_t scale(cudaStream_t s, T alpha, Mat<T> A) {
  lengthen(A);
  return over_entries(s, A.rows, A.cols, Scale<T>{alpha, A.data, A.ld});
}
template <class T>
cudaError_t add(cudaStream_t s, T alpha, Mat<const T> X, Mat<T> Y) {
  if (X.ld == X.rows && Y.ld == Y.rows) lengthen(X), lengthen(Y);
  return over_entries(s, Y.rows, Y.cols, Add<T>{alpha, X.data, X.ld, Y.data, Y.ld});
}
template <class T>
cudaError_t scale_columns(cudaStream_t s, Mat<T> A, const T* d) {
  return over_entries(s, A.rows, A.cols, ScaleColumns<T>{A.data, A.ld, d});
}
template <class T>
cudaError_t scale_rows(cudaStream_t s, Mat<T> A, const T* d) {
  return over_entries(s, A.rows, A.cols, ScaleRows<T>{A.data, A.ld, d});
}
template <class T>
cudaError_t square(cudaStream_t s, Mat<T> A) {
  lengthen(A);
  return over_entries(s, A.rows, A.cols, Square<T>{A.data, A.ld});
}
template <class T>
cudaError_t mirror_lower(cudaStream_t s, Mat<T> C) {
  return over_entries(s, C.rows, C.cols, MirrorLower<T>{C.data, C.ld});
}
template <class T>
cudaError_t zero_above_diagonal(cudaStream_t s, Mat<T> A) {
  return over_entries(s, A.rows, A.cols, ZeroAbove<T>{A.data, A.ld});
}
template <class T>
cudaError_t zero_below_diagonal(cudaStream_t s, Mat<T> A) {
  return over_entries(s, A.rows, A.cols, ZeroBelow<T>{A.data, A.ld});
}

cudaError_t modes(cudaStream_t s, Modes modes, bool transposed, index_t first, Mat<double> M) {
  return over_entries(s, M.rows, M.cols, FillModes{modes, transposed, M.rows, first, M.data, M.ld});
}

// --- reductions ---------------------------------------------------------------------------------------------------------

cudaError_t max_abs(cudaStream_t s, DType type, const void* A, index_t rows, index_t cols, index_t ld, double* out) {
  const index_t parts = partials(rows * cols);
  if (ld == rows || cols == 1) {
    ld = rows = rows * cols;
    cols = 1;
  }
  return with_element(type, [&]<class E>(E) {
    using Bits = typename E::Bits;
    const auto by = [&]<int count>(std::integral_constant<int, count>) {
      const Folded<Chunk<Bits, count>> a(static_cast<const Chunk<Bits, count>*>(A), rows / count, cols, ld / count);
      return join_matrix(s, parts, a.rows, a.cols, LargestMagnitude<E, count>{a}, out);
    };
    constexpr int most = 16 / sizeof(Bits);
    const bool whole = reinterpret_cast<std::uintptr_t>(A) % 16 == 0 && rows % most == 0 && ld % most == 0;
    return whole ? by(std::integral_constant<int, most>{}) : by(std::integral_constant<int, 1>{});
  });
}

template <class T>
cudaError_t sum_of_squares(cudaStream_t s, Mat<const T> A, double first, double second, double* out) {
  const Folded<T> a(A.data, A.rows, A.cols, A.ld);
  return join_matrix(s, partials(A.rows * A.cols), a.rows, a.cols, SquareSum<T>(a, first, second), out);
}

template <class T>
cudaError_t dot(cudaStream_t s, Mat<const T> A, Mat<const T> B, double* out) {
  return join_matrix(s, partials(A.rows * A.cols), A.rows, A.cols, Products<T>(A, B), out);
}

cudaError_t first_nonfinite(cudaStream_t s, DType type, const void* A, index_t rows, index_t cols, index_t ld,
                            index_t* out) {
  return with_element(type, [&]<class E>(E) {
    const Folded<typename E::Bits> a(static_cast<const typename E::Bits*>(A), rows, cols, ld);
    return join_matrix(s, partials(rows * cols), a.rows, a.cols, FirstNonfinite<E>{a.a, a.rows, a.ld, a.size}, out);
  });
}

template <class T>
cudaError_t column_dots(cudaStream_t s, Mat<const T> A, Mat<const T> B, double* out) {
  return join_columns(s, A.rows, A.cols, Products<T>(A, B), out);
}

template <class T>
cudaError_t column_extremes(cudaStream_t s, Mat<const T> A, Extreme<T>* out) {
  return join_columns(s, A.rows, A.cols, ColumnExtreme<T>{A.data, A.ld}, out);
}

#define BROCKETT_INSTANTIATE(T)                                                                    \
  template cudaError_t copy(cudaStream_t, Mat<const T>, Mat<T>);                                   \
  template cudaError_t reverse_columns(cudaStream_t, Mat<const T>, Mat<T>);                        \
  template cudaError_t interleave(cudaStream_t, Mat<const T>, Mat<const T>, index_t, index_t, T*); \
  template cudaError_t fill(cudaStream_t, Mat<T>, T);                                              \
  template cudaError_t set_identity(cudaStream_t, Mat<T>);                                         \
  template cudaError_t normals(cudaStream_t, Mat<T>, std::uint64_t);                               \
  template cudaError_t scale(cudaStream_t, T, Mat<T>);                                             \
  template cudaError_t add(cudaStream_t, T, Mat<const T>, Mat<T>);                                 \
  template cudaError_t scale_columns(cudaStream_t, Mat<T>, const T*);                              \
  template cudaError_t scale_rows(cudaStream_t, Mat<T>, const T*);                                 \
  template cudaError_t square(cudaStream_t, Mat<T>);                                               \
  template cudaError_t mirror_lower(cudaStream_t, Mat<T>);                                         \
  template cudaError_t zero_above_diagonal(cudaStream_t, Mat<T>);                                  \
  template cudaError_t zero_below_diagonal(cudaStream_t, Mat<T>);                                  \
  template cudaError_t sum_of_squares(cudaStream_t, Mat<const T>, double, double, double*);        \
  template cudaError_t dot(cudaStream_t, Mat<const T>, Mat<const T>, double*);                     \
  template cudaError_t column_dots(cudaStream_t, Mat<const T>, Mat<const T>, double*);             \
  template cudaError_t column_extremes(cudaStream_t, Mat<const T>, Extreme<T>*);
BROCKETT_INSTANTIATE(float)
BROCKETT_INSTANTIATE(double)

}  // namespace brockett::linalg::cuda::kernels
