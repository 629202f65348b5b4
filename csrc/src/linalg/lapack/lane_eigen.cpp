#include "linalg/lapack/lane_eigen.hpp"

#include <algorithm>

#include "linalg/lapack/memory.hpp"

namespace brockett::linalg::lapack {

extern const LaneEigen lane_eigen_baseline;
#ifdef BROCKETT_LANES_X86
extern const LaneEigen lane_eigen_avx2, lane_eigen_avx512, lane_eigen_avx512_half;
#endif

const std::vector<const LaneEigen*>& lane_eigen() {
  static const std::vector<const LaneEigen*> found = [] {
    std::vector<const LaneEigen*> list;
#ifdef BROCKETT_LANES_X86
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")) {
      list.push_back(&lane_eigen_avx512);
      list.push_back(&lane_eigen_avx512_half);
    }
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) list.push_back(&lane_eigen_avx2);
#endif
    list.push_back(&lane_eigen_baseline);
    return list;
  }();
  return found;
}

namespace {

// A group of triangles stays in the second-level cache up to here; beyond, narrower registers are quicker than wide ones.
// Order 128, real: 150 us a matrix by 8 lanes, 127 by 4; 256: 1460 and 840 (Zen 4).
constexpr index_t kGroupBytes = index_t{384} << 10;
// Microseconds a matrix, LAPACK and four lanes: real 163 and 20 at order 64, 2870 and 800 at 256, 5440 and 2730 at 384, 11200
// and 7140 at 512; Hermitian 238 and 43, 8180 and 1910, 21700 and 7190, 43500 and 23600. Two lanes win up to 256.
constexpr index_t kLargestOrder = 512;

index_t triangle_size(index_t n, bool hermitian) { return (hermitian ? 2 : 1) * n * (n + 1) / 2; }

bool serves(const LaneEigen& e, index_t n, bool hermitian) {
  if (e.group <= 2) return n <= kLargestOrder / 2;
  const auto bytes = static_cast<index_t>(sizeof(double)) * triangle_size(n, hermitian) * e.group;
  return n <= kLargestOrder && (e.group <= 4 || bytes <= kGroupBytes);
}

/// The lower triangles of `lanes` matrices A + i B, or A where b is null, to the lanes of a group.
template <class T>
void to_lanes(const LaneEigen& e, index_t n, index_t lanes, const T* a, index_t lda, const T* b, index_t ldb,
              index_t stride, double* to) {
  for (index_t j = 0; j < n; ++j) {  // all lanes of a column, which stays in the first-level cache
    for (index_t l = 0; l < lanes; ++l) {
      const T* re = a + l * stride + j * lda;
      double* at = to + l;
      if (b == nullptr) {
        for (index_t i = j; i < n; ++i) at[(i - j) * e.group] = static_cast<double>(re[i]);
        continue;
      }
      const T* im = b + l * stride + j * ldb;
      at[0] = static_cast<double>(re[j]);
      at[e.group] = 0;
      for (index_t i = j + 1; i < n; ++i) {
        at[2 * (i - j) * e.group] = static_cast<double>(re[i]);
        at[(2 * (i - j) + 1) * e.group] = static_cast<double>(im[i]);
      }
    }
    to += (b == nullptr ? 1 : 2) * (n - j) * e.group;
  }
}

}  // namespace

template <class T>
std::vector<index_t> lane_eigenvalues(const LaneEigen& e, Mat<const T> A, Mat<const T> B, index_t stride, index_t batch,
                                      T* host_values) {
  const bool hermitian = B.data != nullptr;
  const index_t n = A.cols, size = triangle_size(n, hermitian) * e.group;
  const index_t groups = (std::min(batch, e.lanes) + e.group - 1) / e.group;
  Scratch<double> matrices(size * groups), work(n * e.lanes + 8 * n * e.group), values(n * e.lanes);
  std::vector<double> sorted(static_cast<std::size_t>(n));
  std::vector<index_t> left;
  for (index_t first = 0; first < batch; first += e.lanes) {
    const index_t count = std::min(e.lanes, batch - first);
    for (index_t at = 0; at < count; at += e.group) {
      double* to = matrices.data() + at / e.group * size;
      const index_t lanes = std::min(e.group, count - at), offset = (first + at) * stride;
      if (lanes < e.group) std::fill_n(to, size, 0.0);
      to_lanes<T>(e, n, lanes, A.data + offset, A.ld, hermitian ? B.data + offset : nullptr, B.ld, stride, to);
    }
    const unsigned failed = e.solve(n, hermitian, count, matrices.data(), work.data(), values.data());
    for (index_t l = 0; l < count; ++l) {
      if (failed >> l & 1U) {
        left.push_back(first + l);
        continue;
      }
      for (index_t i = 0; i < n; ++i) sorted[static_cast<std::size_t>(i)] = values[i * e.lanes + l];
      std::sort(sorted.begin(), sorted.end());
      std::transform(sorted.begin(), sorted.end(), host_values + (first + l) * n,
                     [](double v) { return static_cast<T>(v); });
    }
  }
  return left;
}

index_t lane_eigen_batch(index_t n) {
  for (const LaneEigen* e : lane_eigen()) {
    if (serves(*e, n, false)) return e->lanes;
  }
  return 1;
}

template <class T>
std::vector<index_t> lane_eigenvalues(Mat<const T> A, Mat<const T> B, index_t stride, index_t batch, T* host_values) {
  const bool hermitian = B.data != nullptr;
  const index_t n = A.cols;
  std::vector<index_t> left;
  index_t first = 0;  // what is not decided yet
  for (const LaneEigen* e : lane_eigen()) {
    if (!serves(*e, n, hermitian)) continue;
    // whole registers, and one that is more than half full; the rest is for narrower ones, or for LAPACK
    index_t count = batch - first;
    const index_t rest = count % e->group;
    const bool half_full = 2 * rest > e->group || (2 * rest == e->group && e->group > 2 && n <= kLargestOrder / 2);
    if (!half_full) count -= rest;
    if (count == 0) continue;
    const index_t shift = first * stride;
    for (const index_t k : lane_eigenvalues<T>(*e, {A.data + shift, n, n, A.ld},
                                               hermitian ? Mat<const T>(B.data + shift, n, n, B.ld) : Mat<const T>(),
                                               stride, count, host_values + first * n)) {
      left.push_back(first + k);
    }
    first += count;
  }
  for (; first < batch; ++first) left.push_back(first);
  return left;
}

#define BROCKETT_INSTANTIATE(T)                                                                                       \
  template std::vector<index_t> lane_eigenvalues(const LaneEigen&, Mat<const T>, Mat<const T>, index_t, index_t, T*); \
  template std::vector<index_t> lane_eigenvalues(Mat<const T>, Mat<const T>, index_t, index_t, T*);
BROCKETT_INSTANTIATE(float)
BROCKETT_INSTANTIATE(double)

}  // namespace brockett::linalg::lapack
