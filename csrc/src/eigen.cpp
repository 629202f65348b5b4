#include "brockett/eigen.hpp"

#include <vector>

#include "check.hpp"
#include "linalg/buffer.hpp"
#include "linalg/linalg.hpp"

namespace brockett {

using linalg::Buffer;
using linalg::Mat;

template <class T>
SymmetricEigen<T> eigen_symmetric(const Context& context, MatrixView<const T> A, Triangle triangle, bool vectors) {
  auto& backend = context.backend();
  auto& la = linalg::of<T>(backend);
  check_view("A", A);
  if (A.rows != A.cols) throw InvalidArgument("A", "must be square, has shape " + shape_text(A.rows, A.cols));
  const index_t n = A.rows;
  const auto threads = backend.thread_scope(n);
  const bool lower = triangle == Triangle::lower;

  // The lower triangle is what the backend reads; a row-major matrix lies in memory as its transpose.
  Buffer<T> V(la, n, n);
  const Mat<const T> M = columns_of(A);
  if (lower == (A.order == Order::column_major)) {
    la.copy(M, V);
  } else {
    la.transpose(M, V);
  }
  la.mirror_lower(V);  // so that what the other triangle holds is not looked at
  const index_t at = backend.full().first_nonfinite(dtype_of<T>(), V.data(), n, n, n);
  if (at >= 0) {
    const index_t i = at % n, j = at / n;  // of the lower triangle, whose entry comes first in memory
    throw lower ? NonFinite("A", i, j) : NonFinite("A", j, i);
  }
  context.check_interrupt();

  std::vector<T> values(static_cast<std::size_t>(n));
  la.eigen_symmetric(V, values.data(), vectors);
  SymmetricEigen<T> out;
  out.values.assign(values.begin(), values.end());
  if (vectors) {
    out.vectors = make_array<T>(context, n, n);
    la.transpose(V, columns_of(out.vectors.view()));
  }
  return out;
}

#define BROCKETT_INSTANTIATE(T) \
  template SymmetricEigen<T> eigen_symmetric(const Context&, MatrixView<const T>, Triangle, bool);
BROCKETT_INSTANTIATE(float)
BROCKETT_INSTANTIATE(double)

}  // namespace brockett
