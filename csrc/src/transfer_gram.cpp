#include "transfer_gram.hpp"

#include <cmath>
#include <numbers>

namespace brockett {

using linalg::Buffer;
using linalg::Mat;
using linalg::Op;

std::vector<Frequency> half_of_frequencies(std::array<index_t, 2> grid) {
  std::vector<Frequency> half;
  for (index_t j = 0; 2 * j <= grid[1]; ++j) {
    const bool own_column = j == 0 || 2 * j == grid[1];
    for (index_t i = 0; i < grid[0]; ++i) {
      if (own_column && 2 * i > grid[0]) break;
      half.push_back({i, j, own_column && (i == 0 || 2 * i == grid[0]) ? 1 : 2});
    }
  }
  return half;
}

TransferGram::TransferGram(linalg::LinAlg<double>& la, Mat<const double> taps, std::array<index_t, 2> extent,
                           std::array<index_t, 2> grid)
    : la_(la), r_(taps.rows), wide_(taps.cols / (extent[0] * extent[1])), grid_(grid) {
  const double count = static_cast<double>(extent[0] * extent[1]), r = static_cast<double>(r_);
  const double frequencies = static_cast<double>(grid[0] * grid[1]) / 2, wide = static_cast<double>(wide_);
  const double lag_flops = count * count * r * r * wide + frequencies * 8 * count * r * r;
  const double tap_flops = frequencies * (4 * count * r * wide + 6 * r * r * wide);
  by_lags_ = lag_flops < tap_flops;
  if (by_lags_) {
    find_lags(taps, extent);
    return;
  }
  even_ = Buffer<double>(la, r_ * wide_, extent[0] * extent[1]);
  la.copy(taps, Mat<double>(even_.data(), taps.rows, taps.cols));
  for (index_t a = 0; a < extent[0]; ++a) {
    for (index_t b = 0; b < extent[1]; ++b) steps_.push_back({a, b});
  }
}

void TransferGram::find_lags(Mat<const double> taps, std::array<index_t, 2> extent) {
  for (index_t a = 0; a < extent[0]; ++a) {
    for (index_t b = a ? 1 - extent[1] : 0; b < extent[1]; ++b) steps_.push_back({a, b});
  }
  const auto lags = static_cast<index_t>(steps_.size());
  even_ = Buffer<double>(la_, r_ * r_, lags);
  odd_ = Buffer<double>(la_, r_ * r_, lags);
  Buffer<double> gamma(la_, r_, r_), transposed(la_, r_, r_);
  const auto tap = [&](index_t a, index_t b) { return taps.columns((a * extent[1] + b) * wide_, wide_); };
  for (index_t l = 0; l < lags; ++l) {
    const auto [da, db] = steps_[static_cast<std::size_t>(l)];
    la_.fill(gamma, 0.0);
    for (index_t a = 0; a + da < extent[0]; ++a) {
      for (index_t b = std::max<index_t>(0, -db); b < extent[1] && b + db < extent[1]; ++b) {
        la_.multiply(Op::none, Op::transpose, 1.0, tap(a + da, b + db), tap(a, b), 1.0, gamma);
      }
    }
    const Mat<double> even(even_.data() + l * r_ * r_, r_, r_), odd(odd_.data() + l * r_ * r_, r_, r_);
    la_.copy(gamma, even);
    la_.fill(odd, 0.0);
    if (l == 0) continue;
    la_.transpose(gamma, transposed);
    la_.copy(gamma, odd);
    la_.add(1.0, transposed, even);
    la_.add(-1.0, transposed, odd);
  }
}

std::vector<double> TransferGram::phases(const Frequency* frequencies, index_t count, bool sine) const {
  std::vector<double> out;
  out.reserve(steps_.size() * static_cast<std::size_t>(count));
  for (index_t k = 0; k < count; ++k) {
    for (const auto& [a, b] : steps_) {
      // whole turns are taken off as integers: cosines of multiples of pi / 2 come out exact to rounding
      const auto turns = [](index_t step, index_t f, index_t n) {
        const index_t m = ((step * f) % n + n) % n;
        return static_cast<double>(m) / static_cast<double>(n);
      };
      const double angle =
          2 * std::numbers::pi * (turns(a, frequencies[k].row, grid_[0]) + turns(b, frequencies[k].column, grid_[1]));
      out.push_back(sine ? -std::sin(angle) : std::cos(angle));
    }
  }
  return out;
}

void TransferGram::form(const Frequency* frequencies, index_t count, Mat<double> re, Mat<double> im) const {
  const auto steps = static_cast<index_t>(steps_.size());
  Buffer<double> cosines(la_, steps, count), sines(la_, steps, count);
  la_.upload(phases(frequencies, count, false).data(), cosines);
  la_.upload(phases(frequencies, count, true).data(), sines);
  if (by_lags_) {
    la_.multiply(Op::none, Op::none, 1.0, even_, cosines, 0.0, Mat<double>(re.data, r_ * r_, count));
    la_.multiply(Op::none, Op::none, 1.0, odd_, sines, 0.0, Mat<double>(im.data, r_ * r_, count));
    return;
  }
  const index_t size = r_ * wide_;
  Buffer<double> h_re(la_, size, count), h_im(la_, size, count);
  la_.multiply(Op::none, Op::none, 1.0, even_, cosines, 0.0, h_re);
  la_.multiply(Op::none, Op::none, 1.0, even_, sines, 0.0, h_im);
  const auto all = [&](const Buffer<double>& a) { return Mat<const double>(a.data(), r_, wide_); };
  const auto products = [&](double alpha, const Buffer<double>& a, const Buffer<double>& b, double beta,
                            Mat<double> out) {
    la_.multiply_batched(Op::none, Op::transpose, alpha, all(a), size, all(b), size, beta, out.columns(0, r_), r_ * r_,
                         count);
  };
  products(1, h_re, h_re, 0, re);
  products(1, h_im, h_im, 1, re);
  products(1, h_im, h_re, 0, im);
  products(-1, h_re, h_im, 1, im);
}

}  // namespace brockett
