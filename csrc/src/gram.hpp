// Gram matrices and second moments in float64, whatever the data came in.
#pragma once

#include <algorithm>
#include <vector>

#include "check.hpp"

namespace brockett {

enum class BlockBy { rows, columns };

/// Calls f(first, block) for consecutive blocks of rows or columns of M (p x q) in float64, of as many elements as the
/// backend likes: copies, where M is of another type.
template <class T, class F>
void for_each_double_block(const Context& context, linalg::Mat<const T> M, BlockBy by, F&& f) {
  auto& la = context.backend().full();
  const bool rows = by == BlockBy::rows;
  const index_t total = rows ? M.rows : M.cols, other = rows ? M.cols : M.rows;
  const index_t step = std::min(total, std::max<index_t>(256, context.backend().block_elements() / other));
  constexpr bool copies = !std::is_same_v<T, double>;
  const linalg::Buffer<double> buffer(la, !copies ? 0 : rows ? step : other, rows ? other : step);
  for (index_t first = 0; first < total; first += step) {
    const index_t count = std::min(step, total - first);
    const auto part = rows ? M.block(first, 0, count, other) : M.columns(first, count);
    if constexpr (copies) {
      const auto block = buffer.mat().block(0, 0, part.rows, part.cols);
      la.convert_from(dtype_of<T>(), part.data, part.ld, block);
      f(first, linalg::Mat<const double>(block));
    } else {
      f(first, part);
    }
    context.check_interrupt();
  }
}

/// Lower triangle of G <- M M^T (op none) or M^T M (op transpose) in float64; its strict upper triangle is left alone.
/// M is converted block by block: beside M and G there are 32 MB on the host, none where it is float64.
template <class T>
void gram_into(const Context& context, linalg::Mat<const T> M, linalg::Op op, linalg::Mat<double> G) {
  auto& la = context.backend().full();
  double beta = 0;
  for_each_double_block(context, M, op == linalg::Op::none ? BlockBy::columns : BlockBy::rows,
                        [&](index_t, linalg::Mat<const double> block) {
                          la.accumulate_outer(op, 1.0, block, beta, G);
                          beta = 1;
                        });
}
template <class T>
linalg::Buffer<double> gram_matrix(const Context& context, linalg::Mat<const T> M, linalg::Op op) {
  const index_t n = op == linalg::Op::none ? M.rows : M.cols;
  linalg::Buffer<double> G(context.backend().full(), n, n);
  gram_into(context, M, op, G.mat());
  return G;
}

/// W R W^T (n x n, full) of op(M) = W (n x m) and a symmetric R (m x m); InvalidArgument naming `name` where it leaves
/// float64 at either end.
linalg::Buffer<double> second_moment(const Context& context, const char* name, linalg::Mat<const double> M,
                                     linalg::Op op, linalg::Mat<const double> R);

/// InvalidArgument naming `name` when products with it left float64.
void check_product_finite(const Context& context, const char* name, linalg::Mat<const double> C);

/// How far below 0 rounding may leave an eigenvalue of a positive semidefinite matrix of order n and this magnitude.
double rounding_of_zero(index_t n, double magnitude);

/// Eigenvalues (ascending) of something positive semidefinite: refuses what rounding cannot explain. `noise` is the size
/// of what was summed up, where that is above the sum.
void check_semidefinite(const char* name, const std::vector<double>& ascending, double noise = 0);
/// The same from the two ends of the spectrum of a matrix of order n.
void check_semidefinite(const char* name, index_t n, double smallest, double largest, double noise);

}  // namespace brockett
