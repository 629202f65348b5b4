// Memory, copies, conversions and the finite check.
#include "linalg/lapack/memory.hpp"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>

#include "linalg/half.hpp"
#include "linalg/lapack/lapack_linalg.hpp"
#include "linalg/lapack/tiles.hpp"

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace brockett::linalg::lapack {
namespace {

constexpr std::size_t kCacheLine = 64;

// Matrices from 4 MiB on ask Linux for pages of 2 MiB: a new one of 180 MB then costs 90 page faults instead of 45,000, and
// reading it misses fewer address translations. The system is free to refuse.
#ifdef __linux__
void* allocate_large(std::size_t bytes) {
  constexpr std::size_t huge_page = std::size_t{2} << 20;
  void* p = nullptr;
  if (bytes < 2 * huge_page || posix_memalign(&p, huge_page, bytes) != 0) return nullptr;
  madvise(p, bytes, MADV_HUGEPAGE);
  return p;
}
#else
void* allocate_large(std::size_t) { return nullptr; }
#endif

}  // namespace

void* allocate_aligned(std::size_t bytes) {
  if (bytes == 0) return nullptr;
  const std::size_t rounded = (bytes + kCacheLine - 1) / kCacheLine * kCacheLine;
  void* p = allocate_large(bytes);
  if (p == nullptr && rounded >= bytes) p = std::aligned_alloc(kCacheLine, rounded);
  if (p == nullptr) throw OutOfMemory("cannot allocate " + std::to_string(bytes) + " bytes");
  return p;
}

void free_aligned(void* p) noexcept { std::free(p); }

void throw_out_of_memory(index_t count, std::size_t size_of_element) {
  throw OutOfMemory("cannot allocate " + std::to_string(count) + " elements of " + std::to_string(size_of_element) +
                    " bytes");
}

namespace {

// Target of one column: out_i <- in_i, widened or rounded to nearest.
template <class T, class S>
void convert_column(const S* __restrict in, T* __restrict out, index_t n) {
  for (index_t i = 0; i < n; ++i) out[i] = static_cast<T>(in[i]);
}
template <class T>
void convert_half_column(const std::uint16_t* __restrict in, T* __restrict out, index_t n) {
  for (index_t i = 0; i < n; ++i) out[i] = static_cast<T>(half_to_float(in[i]));
}
template <class T>
void convert_bfloat16_column(const std::uint16_t* __restrict in, T* __restrict out, index_t n) {
  for (index_t i = 0; i < n; ++i) out[i] = static_cast<T>(bfloat16_to_float(in[i]));
}
// Halves from T: float64 goes by way of float32, which may round twice (by 2^-24 of half a unit, when it does).
template <class T>
void half_from_column(const T* __restrict in, std::uint16_t* __restrict out, index_t n) {
  for (index_t i = 0; i < n; ++i) out[i] = float_to_half(static_cast<float>(in[i]));
}
template <class T>
void bfloat16_from_column(const T* __restrict in, std::uint16_t* __restrict out, index_t n) {
  for (index_t i = 0; i < n; ++i) out[i] = float_to_bfloat16(static_cast<float>(in[i]));
}

// out_i <- out_i + in_i
template <class T, class S>
void add_column(const S* __restrict in, T* __restrict out, index_t n) {
  for (index_t i = 0; i < n; ++i) out[i] += static_cast<T>(in[i]);
}
template <class T>
void add_half_column(const std::uint16_t* __restrict in, T* __restrict out, index_t n) {
  for (index_t i = 0; i < n; ++i) out[i] += static_cast<T>(half_to_float(in[i]));
}
template <class T>
void add_bfloat16_column(const std::uint16_t* __restrict in, T* __restrict out, index_t n) {
  for (index_t i = 0; i < n; ++i) out[i] += static_cast<T>(bfloat16_to_float(in[i]));
}

// max |a_i|; the magnitudes of all these types are ordered as their bits are
template <class Bits, Bits magnitude>
Bits largest_bits(const void* data, index_t rows, index_t cols, index_t ld) {
  const auto* a = static_cast<const Bits*>(data);
  Bits largest = 0;
  for (index_t j = 0; j < cols; ++j) {
    const Bits* column = a + j * ld;
    for (index_t i = 0; i < rows; ++i) largest = std::max(largest, static_cast<Bits>(column[i] & magnitude));
  }
  return largest;
}

// Is there a NaN or an Inf, an exponent of all ones? Adding one to the exponent field then carries into the sign bit,
// so one `or` over all elements answers: integer arithmetic that any vector unit has, at the speed of memory.
template <class Bits, Bits magnitude, Bits exponent_one>
index_t first_nonfinite_in_column(const Bits* a, index_t n) {
  constexpr index_t block = 4096;
  constexpr Bits sign = static_cast<Bits>(~magnitude);
  for (index_t start = 0; start < n; start += block) {
    const index_t stop = std::min(n, start + block);
    Bits seen = 0;
    for (index_t i = start; i < stop; ++i) seen |= static_cast<Bits>((a[i] & magnitude) + exponent_one);
    if ((seen & sign) == 0) continue;
    for (index_t i = start; i < stop; ++i) {
      if (static_cast<Bits>((a[i] & magnitude) + exponent_one) & sign) return i;
    }
  }
  return -1;
}

template <class Bits, Bits magnitude, Bits exponent_one>
index_t first_nonfinite_in(const void* data, index_t rows, index_t cols, index_t ld) {
  const auto* a = static_cast<const Bits*>(data);
  if (ld == rows) return first_nonfinite_in_column<Bits, magnitude, exponent_one>(a, rows * cols);
  for (index_t j = 0; j < cols; ++j) {
    const index_t i = first_nonfinite_in_column<Bits, magnitude, exponent_one>(a + j * ld, rows);
    if (i >= 0) return i + j * rows;
  }
  return -1;
}

template <class T, class S>
void copy_columns(const S* in, index_t ld_in, T* out, index_t ld_out, index_t rows, index_t cols,
                  void (*column)(const S* __restrict, T* __restrict, index_t)) {
  if (ld_in == rows && ld_out == rows) return column(in, out, rows * cols);
  for (index_t j = 0; j < cols; ++j) column(in + j * ld_in, out + j * ld_out, rows);
}

template <class T>
void copy_matrix(const T* in, index_t ld_in, T* out, index_t ld_out, index_t rows, index_t cols) {
  if (rows == 0 || cols == 0) return;
  if (ld_in == rows && ld_out == rows) {
    std::memcpy(out, in, sizeof(T) * static_cast<std::size_t>(rows * cols));
    return;
  }
  for (index_t j = 0; j < cols; ++j) {
    std::memcpy(out + j * ld_out, in + j * ld_in, sizeof(T) * static_cast<std::size_t>(rows));
  }
}

}  // namespace

template <class T>
void* Memory<T>::allocate(std::size_t bytes) {
  return allocate_aligned(bytes);
}

template <class T>
void Memory<T>::deallocate(void* p) noexcept {
  free_aligned(p);
}

template <class T>
void Memory<T>::upload(const T* host, Mat<T> A) {
  copy_matrix(host, A.rows, A.data, A.ld, A.rows, A.cols);
}

template <class T>
void Memory<T>::download(Mat<const T> A, T* host) {
  copy_matrix(A.data, A.ld, host, A.rows, A.rows, A.cols);
}

template <class T>
void Memory<T>::copy(Mat<const T> A, Mat<T> B) {
  copy_matrix(A.data, A.ld, B.data, B.ld, A.rows, A.cols);
}

template <class T>
void Memory<T>::transpose(Mat<const T> A, Mat<T> B) {
  for (index_t j = 0; j < A.cols; j += kTile) {
    for (index_t i = 0; i < A.rows; i += kTile) {
      transpose_tile(A.data + i + j * A.ld, A.ld, B.data + j + i * B.ld, B.ld, tile_size(i, A.rows),
                     tile_size(j, A.cols));
    }
  }
}

template <class T>
void Memory<T>::convert_from(DType type, const void* source, index_t source_ld, Mat<T> A) {
  if (A.empty()) return;
  const auto from = [&]<class S>(const S* in, void (*column)(const S* __restrict, T* __restrict, index_t)) {
    copy_columns(in, source_ld, A.data, A.ld, A.rows, A.cols, column);
  };
  switch (type) {
    case DType::float16:
      return from(static_cast<const std::uint16_t*>(source), convert_half_column<T>);
    case DType::bfloat16:
      return from(static_cast<const std::uint16_t*>(source), convert_bfloat16_column<T>);
    case DType::float32:
      return from(static_cast<const float*>(source), convert_column<T, float>);
    case DType::float64:
      return from(static_cast<const double*>(source), convert_column<T, double>);
  }
}

template <class T>
void Memory<T>::convert_to(Mat<const T> A, DType type, void* target, index_t target_ld) {
  if (A.empty()) return;
  const auto to = [&]<class S>(S* out) {
    copy_columns(A.data, A.ld, out, target_ld, A.rows, A.cols, convert_column<S, T>);
  };
  switch (type) {
    case DType::float32:
      return to(static_cast<float*>(target));
    case DType::float64:
      return to(static_cast<double*>(target));
    case DType::float16:
      return copy_columns(A.data, A.ld, static_cast<std::uint16_t*>(target), target_ld, A.rows, A.cols,
                          half_from_column<T>);
    case DType::bfloat16:
      return copy_columns(A.data, A.ld, static_cast<std::uint16_t*>(target), target_ld, A.rows, A.cols,
                          bfloat16_from_column<T>);
  }
}

template <class T>
void Memory<T>::add_from(DType type, const void* source, index_t source_ld, Mat<T> Y) {
  if (Y.empty()) return;
  const auto from = [&]<class S>(const S* in, void (*column)(const S* __restrict, T* __restrict, index_t)) {
    copy_columns(in, source_ld, Y.data, Y.ld, Y.rows, Y.cols, column);
  };
  switch (type) {
    case DType::float16:
      return from(static_cast<const std::uint16_t*>(source), add_half_column<T>);
    case DType::bfloat16:
      return from(static_cast<const std::uint16_t*>(source), add_bfloat16_column<T>);
    case DType::float32:
      return from(static_cast<const float*>(source), add_column<T, float>);
    case DType::float64:
      return from(static_cast<const double*>(source), add_column<T, double>);
  }
}

template <class T>
double Memory<T>::max_abs_of(DType type, const void* A, index_t rows, index_t cols, index_t ld) {
  switch (type) {
    case DType::float16:
      return static_cast<double>(half_to_float(largest_bits<std::uint16_t, 0x7FFF>(A, rows, cols, ld)));
    case DType::bfloat16:
      return static_cast<double>(bfloat16_to_float(largest_bits<std::uint16_t, 0x7FFF>(A, rows, cols, ld)));
    case DType::float32:
      return static_cast<double>(std::bit_cast<float>(largest_bits<std::uint32_t, 0x7FFFFFFF>(A, rows, cols, ld)));
    case DType::float64:
      return std::bit_cast<double>(largest_bits<std::uint64_t, 0x7FFFFFFFFFFFFFFF>(A, rows, cols, ld));
  }
  return 0;
}

template <class T>
index_t Memory<T>::first_nonfinite(DType type, const void* A, index_t rows, index_t cols, index_t ld) {
  switch (type) {
    case DType::float16:
      return first_nonfinite_in<std::uint16_t, 0x7FFF, 0x0400>(A, rows, cols, ld);
    case DType::bfloat16:
      return first_nonfinite_in<std::uint16_t, 0x7FFF, 0x0080>(A, rows, cols, ld);
    case DType::float32:
      return first_nonfinite_in<std::uint32_t, 0x7FFFFFFF, 0x00800000>(A, rows, cols, ld);
    case DType::float64:
      return first_nonfinite_in<std::uint64_t, 0x7FFFFFFFFFFFFFFF, 0x0010000000000000>(A, rows, cols, ld);
  }
  return -1;
}

template class Memory<float>;
template class Memory<double>;

}  // namespace brockett::linalg::lapack
