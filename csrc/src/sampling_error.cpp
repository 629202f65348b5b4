#include "sampling_error.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "check.hpp"
#include "cost.hpp"

namespace brockett {

using linalg::Buffer;
using linalg::Mat;
using linalg::Op;

std::vector<double> block_errors(const KnownSpectrum& spectrum, const std::vector<index_t>& blocks, index_t n_samples,
                                 const std::vector<double>& moments) {
  std::vector<double> s = spectrum.variances;
  double rest = spectrum.rest, next = spectrum.next;
  if (const double largest = s.empty() ? 0 : s[0]; largest > 0) {  // products of extreme variances leave float64
    for (auto& v : s) v /= largest;
    rest /= largest;
    next /= largest;
  }
  const index_t known = static_cast<index_t>(s.size()), order = spectrum.complete ? known : known + 1;
  const auto& ties = spectrum.ties;
  const auto moment = [&](index_t i, index_t j) {
    return moments[static_cast<std::size_t>(std::max(i, j) + std::min(i, j) * order)];
  };
  std::vector<double> out;
  for (std::size_t b = 0; b + 1 < blocks.size(); ++b) {
    const index_t lo = blocks[b], hi = blocks[b + 1];
    double sum = hi > known ? std::numeric_limits<double>::infinity() : 0;
    for (index_t i = lo; i < std::min(hi, known); ++i) {
      const double si = s[static_cast<std::size_t>(i)];
      for (index_t j = 0; j < known; ++j) {
        if (j >= lo && j < hi) continue;
        const double sj = s[static_cast<std::size_t>(j)];
        const double gap = si - sj;
        const bool tied =
            std::upper_bound(ties.begin(), ties.end(), i) == std::upper_bound(ties.begin(), ties.end(), j);
        if (tied || gap == 0) {
          sum = std::numeric_limits<double>::infinity();
          continue;
        }
        // ratios one by one: the square of a small gap may vanish
        sum += moments.empty() ? (si / gap) * (sj / gap) : moment(i, j) / gap / gap;
      }
      if (!spectrum.complete) {
        const double gap = si - next;
        sum += gap > 0 ? (moments.empty() ? (si / gap) * (rest / gap) : moment(i, known) / gap / gap)
                       : std::numeric_limits<double>::infinity();
      }
    }
    out.push_back(std::sqrt(std::min(static_cast<double>(hi - lo), sum / static_cast<double>(n_samples))));
  }
  return out;
}

std::vector<double> fourth_moments(const Preactivations::Impl& y, Mat<const double> U, double variance) {
  auto& la = y.context.backend().full();
  const index_t r = U.cols, order = r < y.n ? r + 1 : r;
  const double scale = variance > 0 ? 1 / std::sqrt(variance) : 1.0;
  Buffer<double> M(la, order, order);
  la.fill(M, 0.0);
  for_each_centred_block(y, [&](Mat<double> Y) {
    Buffer<double> Z(la, order, Y.cols);
    const Mat<double> lead = Z.mat().block(0, 0, r, Y.cols);
    la.multiply(Op::transpose, Op::none, scale, U, Y, 0.0, lead);
    if (order > r) {
      std::vector<double> all(static_cast<std::size_t>(Y.cols)), known(all.size());
      la.column_dots(Y, Y, all.data());
      la.column_dots(lead, lead, known.data());
      for (std::size_t j = 0; j < all.size(); ++j) all[j] = std::max(0.0, scale * (scale * all[j]) - known[j]);
      la.upload(all.data(), Z.mat().block(r, 0, 1, Y.cols));
    }
    la.square(lead);
    la.accumulate_outer(Op::none, 1.0 / static_cast<double>(y.n_samples), Z, 1.0, M);
  });
  std::vector<double> out(static_cast<std::size_t>(order * order));
  la.download(M, out.data());
  return out;
}

}  // namespace brockett
