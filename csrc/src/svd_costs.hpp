// What the methods of svd, and of leading eigenvectors, take, so that `automatic` can choose.
#pragma once

#include "brockett/matrix_view.hpp"

namespace brockett {

/// Seconds of one core of the machine that the constants were measured on: what counts is their ratio.
struct SvdCosts {
  double exact = 0;
  double gram = 0;        // 0: does not serve this precision
  double krylov = 0;
  long long columns = 0;  // that krylov is taken to need
};

/// Of the `rank` largest triplets of an m x n matrix of float or double.
template <class T>
SvdCosts svd_costs(index_t m, index_t n, index_t rank);

/// The `count` largest eigenvalues of a symmetric matrix of order n, in double, and their vectors, without what they are
/// multiplied with.
double eigen_seconds(index_t n, index_t count);

struct KrylovCosts {
  double seconds = 0, columns = 0;
};

/// Block Krylov for `count` vectors of n components. `product` flops for one column there and back, `finish` for one vector at
/// the end, at `rate` flops a second. `spread`: about how many directions share the sum of the eigenvalues, 0 where unknown;
/// many of them are a bulk in which the wanted ones lie close to others.
KrylovCosts krylov_costs(index_t n, index_t count, double product, double finish, double rate, double spread = 0);

}  // namespace brockett
