// One level of a Fourier transform by decimation in frequency.
#pragma once

#include "brockett/matrix_view.hpp"

namespace brockett::linalg::lapack {

/// The radices that fft_pass() knows, largest first.
inline constexpr int kRadices[] = {13, 11, 7, 5, 4, 3, 2};

/// For each of `blocks` blocks of radix * span elements: y_{j + p span} = w_{jp} sum_q x_{j + q span} exp(-2 pi i p q
/// / radix), in place; w_{jp}, 0 < p < radix, in `twiddles`. Elements are groups of Fft::kLanes signals.
void fft_pass(int radix, double* x, index_t blocks, index_t span, const double* twiddles);

}  // namespace brockett::linalg::lapack
