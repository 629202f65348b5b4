// Gram matrices of the transfer matrices of a convolution, frequency by frequency.
#pragma once

#include <array>
#include <vector>

#include "brockett/matrix_view.hpp"
#include "linalg/buffer.hpp"

namespace brockett {

/// f = 2 pi (row / n1, column / n2); `copies` frequencies have the values of this one: itself and its conjugate.
struct Frequency {
  index_t row = 0, column = 0;
  int copies = 1;
};

/// One of each pair f, -f of the frequencies of a grid.
std::vector<Frequency> half_of_frequencies(std::array<index_t, 2> grid);

/// G(f) = H(f) H(f)^*, H(f) = sum_q M_q exp(-i f.q) with M_q (r x R), of one kernel that is no larger than its grid.
///
/// Small kernels: sum_l Gamma_l exp(-i f.l) with Gamma_l = sum_q M_{q+l} M_q^T found once; 13 lags of a 3 x 3 kernel make
/// G(f) from 50 r^2 flops, where the product takes 6 r^2 R.
class TransferGram {
 public:
  /// `taps`: M_q side by side, r x (R count), q = (row, column) of the kernel's extent in row-major order.
  TransferGram(linalg::LinAlg<double>& la, linalg::Mat<const double> taps, std::array<index_t, 2> extent,
               std::array<index_t, 2> grid);

  index_t order() const { return r_; }
  /// Re, Im: r x (r count), the lower triangles of the matrices of these frequencies.
  void form(const Frequency* frequencies, index_t count, linalg::Mat<double> re, linalg::Mat<double> im) const;

 private:
  // e^{-i f.l} = cos - i sin of each of the lags (or taps) and frequencies, host, lags x count
  std::vector<double> phases(const Frequency* frequencies, index_t count, bool sine) const;
  void find_lags(linalg::Mat<const double> taps, std::array<index_t, 2> extent);

  linalg::LinAlg<double>& la_;
  index_t r_ = 0, wide_ = 0;
  std::array<index_t, 2> grid_;
  bool by_lags_ = true;
  std::vector<std::array<index_t, 2>> steps_;  // lags, or taps
  // by lags: Gamma_0, Gamma_l + Gamma_l^T and Gamma_l - Gamma_l^T in columns of r^2; by taps: M_q in columns of r R
  linalg::Buffer<double> even_, odd_;
};

}  // namespace brockett
