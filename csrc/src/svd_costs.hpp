// What the methods of svd take, so that `automatic` can choose.
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

}  // namespace brockett
