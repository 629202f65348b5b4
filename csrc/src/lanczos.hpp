// Block Lanczos: a basis of the Krylov space of op(M)^T op(M), grown block by block, looked at, and shrunk to its best part
// (Golub & Underwood 1977; Wu & Simon 2000).
#pragma once

#include <cstdint>
#include <vector>

#include "krylov.hpp"

namespace brockett {

/// V (n x d) orthonormal and H = V^T op(M)^T op(M) V, op(M) being the tall reading (m x n, m >= n) of M. All entries of H are
/// computed, not assumed from the recurrence: so V may be extended by anything orthogonal to it, the next Krylov block or a
/// random one. `map` and `params` must outlive it.
template <class T>
class Lanczos {
 public:
  Lanczos(const Context& context, const LinearMap<T>& map, linalg::Op op, const KrylovParams& params, index_t width);

  index_t size() const { return d_; }
  index_t width() const { return width_; }  // of the block to come; 0: V spans everything
  index_t columns() const { return columns_; }
  index_t capacity() const { return capacity_; }
  index_t n() const { return n_; }
  linalg::Op op() const { return op_; }

  /// Room for `depth` vectors and a block of `width` after them.
  void reserve(index_t depth, index_t width);

  /// One block through M and back: H grows by width() columns, V gets the next block.
  void expand();

  struct Ritz {
    std::vector<double> sigma;  // descending
    std::vector<double> residual;  // ||op(M)^T u - sigma v|| / sigma_1
    std::vector<double> distance;  // ||op(M)^T op(M) v - sigma^2 v||
    linalg::Buffer<double> Q;  // H Q = Q diag(sigma^2)
  };

  /// The `count` largest Ritz values, and how far they are from being singular values.
  Ritz ritz(index_t count);

  /// The rows of Q that belong to the last block: what is left of an image outside of V comes from them.
  linalg::Mat<const double> last_rows(const Ritz& ritz) const {
    return ritz.Q.mat().block(d_ - previous_, 0, previous_, ritz.Q.cols());
  }

  /// ||op(M)^T op(M) v - theta v|| of Ritz vectors v, or of combinations of some with nearly the same theta, given those rows.
  std::vector<double> distances(linalg::Mat<const double> last) const;

  /// The smallest eigenvalue of H.
  double smallest() const;

  /// V <- [V Q, the block to come]
  void restart(const Ritz& ritz, index_t keep);

  /// The block to come gets as many random columns again: a block of b finds at most b of equal singular values.
  void widen();

  /// V Q (n x r) in float64, orthonormal.
  linalg::Buffer<double> vectors(const Ritz& ritz, index_t r);

  /// op(M) V Q (m x r), from what the products left behind, each with its rounding; nothing where images are not kept.
  linalg::Buffer<T> images(const Ritz& ritz, index_t r);

 private:
  linalg::Buffer<double> packed_H() const;
  /// X (… x d or more) times the first `count` columns of Q.
  linalg::Buffer<T> combined(const linalg::Buffer<T>& X, const Ritz& ritz, index_t count);
  std::vector<double> norms(linalg::Mat<const T> W);

  /// W <- W - V V^T W over columns first … last of V; the coefficients are added to h (last x w).
  void project(index_t first, index_t last, linalg::Mat<T> W, std::vector<double>& h);

  /// W (n x w), already projected, <- an orthonormal basis of its range, orthogonal to the first `known` columns of V.
  void normalize(linalg::Mat<T> W, index_t known, bool again);

  /// V's next block from W = (I - V V^T) op(M)^T op(M) V_j, whose norms were `before` the last projection.
  void next_block(linalg::Buffer<T>& W, const std::vector<double>& before);

  const Context& context_;
  linalg::LinAlg<T>& la_;
  linalg::LinAlg<double>& ld_;
  const LinearMap<T>& map_;
  linalg::Op op_;
  const KrylovParams& params_;
  index_t m_, n_;
  index_t width_ = 0, previous_ = 0, d_ = 0, restarted_ = 0, capacity_ = 0, columns_ = 0;
  std::uint64_t refills_ = 0;
  linalg::Buffer<T> V_;
  linalg::Buffer<T> images_;  // op(M) V, m x capacity
  std::vector<double> H_;  // capacity x capacity, column-major
  std::vector<double> outside_;  // W^T W of the last block
};

/// Whether `width` neighbours among the `r` largest values (descending) lie closer together than what was asked for: a block
/// of that width cannot tell whether there are more of them.
bool crowded(const std::vector<double>& values, index_t r, index_t width, double tol);

extern template class Lanczos<float>;
extern template class Lanczos<double>;

}  // namespace brockett
