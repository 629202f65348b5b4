// What every Fourier transform here is made of.
#pragma once

#include "brockett/matrix_view.hpp"

namespace brockett {

/// cos and sin of 2 pi k / n, 0 <= k < n, each correct to half an ulp or nearly so.
struct Rotation {
  double cosine;
  double sine;
};
Rotation rotation(index_t k, index_t n);

/// The least 2^a 3^b 5^c >= n: a length whose transform is a fast one.
index_t smooth_length(index_t n);

}  // namespace brockett
