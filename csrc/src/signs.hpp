// The sign convention of vectors: the entry of largest magnitude, the first of equals, is positive.
#pragma once

#include <vector>

#include "linalg/linalg.hpp"

namespace brockett {

/// +1 or -1 for each column of A: the factor that makes its largest entry positive.
template <class T>
std::vector<T> column_signs(linalg::LinAlg<T>& la, linalg::Mat<const T> A) {
  std::vector<index_t> row(static_cast<std::size_t>(A.cols));
  std::vector<T> sign(row.size());
  la.column_argmax(A, row.data(), sign.data());
  for (auto& v : sign) v = v < 0 ? T(-1) : T(1);
  return sign;
}

}  // namespace brockett
