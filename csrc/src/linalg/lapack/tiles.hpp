// Transposition in tiles that stay in the first-level cache.
#pragma once

#include <algorithm>

#include "linalg/linalg.hpp"

namespace brockett::linalg::lapack {

inline constexpr int kTile = 32;

/// B (cols x rows) <- A^T, A at most 32 x 32. Through a buffer, so that every cache line of A and B is touched in one go:
/// with a power of two as leading dimension, the 32 lines of a strided walk would push each other out of the cache.
template <class T>
inline void transpose_tile(const T* a, index_t lda, T* b, index_t ldb, int rows, int cols) {
  T buffer[kTile][kTile + 1];
  for (int j = 0; j < cols; ++j) {
    for (int i = 0; i < rows; ++i) buffer[i][j] = a[i + j * lda];
  }
  for (int i = 0; i < rows; ++i) std::copy_n(buffer[i], cols, b + i * ldb);
}

/// The size of the tile that starts at `at` of `count`.
inline int tile_size(index_t at, index_t count) { return static_cast<int>(std::min<index_t>(kTile, count - at)); }

}  // namespace brockett::linalg::lapack
