// The largest singular triplets of a map that can only be multiplied with blocks of vectors: block Lanczos with thick
// restarts (Golub & Underwood 1977; Wu & Simon 2000; Musco & Musco 2015), and a residual measured in the end.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "brockett/context.hpp"
#include "linalg/buffer.hpp"
#include "linalg/linalg.hpp"

namespace brockett {

/// M (rows x cols), in the memory of a backend.
template <class T>
class LinearMap {
 public:
  virtual ~LinearMap() = default;
  virtual index_t rows() const = 0;
  virtual index_t cols() const = 0;
  /// Y <- op(M) X
  virtual void apply(linalg::Op op, linalg::Mat<const T> X, linalg::Mat<T> Y) const = 0;
  /// Y <- op(M) X, Z <- op(M)^T Y
  virtual void there_and_back(linalg::Op op, linalg::Mat<const T> X, linalg::Mat<T> Y, linalg::Mat<T> Z) const = 0;
  /// Y <- op(M) X, with sums in float64 as far as the map can have them.
  virtual void apply_accurately(linalg::Op op, linalg::Mat<const T> X, linalg::Mat<double> Y) const = 0;
  /// Backend::narrow_scope, where no code of the caller would run inside it.
  virtual std::shared_ptr<void> narrow_scope() const { return nullptr; }
};

struct KrylovParams {
  index_t rank = 1;  // at most min(rows, cols)
  double tol = 1e-6;
  double frobenius_tol = 0;  // > 0: the smallest rank, up to `rank`, with that tail; `squared_norm` is needed then
  double squared_norm = 0;   // ||M||_F^2
  std::uint64_t seed = 0;
  index_t widest = 0;         // > 0: no more columns than these at once
  index_t max_columns = 0;    // columns multiplied by M and M^T before it gives up
  bool stop_at_limit = false; // what there is at the limit is the answer ("quick")
  bool keep_images = false;   // of the basis, as many numbers again: for a tol above their rounding
  bool on_the_right = false;  // the basis, whatever the shape
};

/// The side of a rows x cols map that a basis for op(M)^T op(M) lies on: the smaller one, a square map's right one.
inline linalg::Op basis_side(index_t rows, index_t cols, bool on_the_right) {
  return rows >= cols || on_the_right ? linalg::Op::none : linalg::Op::transpose;
}

/// M ~ U diag(s) V^T.
template <class T>
struct KrylovTriplets {
  linalg::Buffer<T> U, V;
  std::vector<double> s;
  double residual = 0;
  bool converged = false;
  index_t columns = 0;   // multiplied by M and M^T
  index_t restarts = 0;
};

/// Columns that go through the map at once.
index_t krylov_width(bool on_device, index_t rank);

/// Basis vectors held between restarts, of n entries each.
index_t krylov_depth(index_t rank, index_t width, index_t n);

template <class T>
KrylovTriplets<T> krylov(const Context& context, const LinearMap<T>& map, const KrylovParams& params);

/// A (m x n, m >= n) <- Q of A = Q R: CholeskyQR twice, Householder reflections where A is too ill-conditioned for that.
/// Returns the smallest pivot of the first Cholesky factor of the columns scaled to unit length; 0 by Householder.
double orthonormalize_columns(linalg::LinAlg<double>& la, linalg::Mat<double> A);

}  // namespace brockett
