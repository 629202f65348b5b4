// Everything that brockett offers to C++.
#pragma once

#include "brockett/autocorrelation.hpp"  // IWYU pragma: export
#include "brockett/context.hpp"          // IWYU pragma: export
#include "brockett/convolution.hpp"  // IWYU pragma: export
#include "brockett/cuda.hpp"  // IWYU pragma: export
#include "brockett/descramble.hpp"  // IWYU pragma: export
#include "brockett/eigen.hpp"  // IWYU pragma: export
#include "brockett/error.hpp"  // IWYU pragma: export
#include "brockett/matrix_view.hpp"  // IWYU pragma: export
#include "brockett/operator.hpp"  // IWYU pragma: export
#include "brockett/patch_autocorrelation.hpp"  // IWYU pragma: export
#include "brockett/penalty.hpp"          // IWYU pragma: export
#include "brockett/random_matrix.hpp"    // IWYU pragma: export
#include "brockett/spectral_graph.hpp"   // IWYU pragma: export
#include "brockett/svd.hpp"              // IWYU pragma: export
