#include "line_modes.hpp"

#include <algorithm>

namespace brockett {

using linalg::Buffer;
using linalg::LinAlg;
using linalg::Mat;
using linalg::Modes;
using linalg::Op;

index_t LineModes::length_for(index_t pitch) { return smooth_length(pitch); }

LineModes::LineModes(LinAlg<double>& la, Mat<const double> lines, index_t pitch)
    : channels_(lines.rows), lines_(lines.cols / pitch), length_(length_for(pitch)) {
  modes_ = Buffer<double>(la, channels_ * lines_, length_);
  // one copy for each position or for each line, whichever are fewer
  const index_t line = pitch * channels_, position = lines_ * channels_;
  for (index_t w = 0; w < pitch && pitch <= lines_; ++w) {
    la.copy(Mat<const double>(lines.data + w * channels_, channels_, lines_, line),
            Mat<double>(modes_.data() + w * position, channels_, lines_));
  }
  for (index_t l = 0; l < lines_ && lines_ < pitch; ++l) {
    la.copy(Mat<const double>(lines.data + l * line, channels_, pitch),
            Mat<double>(modes_.data() + l * channels_, channels_, pitch, position));
  }
  la.fill(modes_.mat().columns(pitch, length_ - pitch), 0.0);
  la.apply_modes(Modes::fourier, Op::transpose, modes_);
  for (index_t k = 0; k < length_; ++k) waves_.push_back(rotation(k, length_));
}

// With b(w) = sum_k c_k cos + s_k sin of 2 pi k w / n, b(w + s) has the coefficients c_k cos + s_k sin and s_k cos - c_k sin
// of 2 pi k s / n, and products of the coefficients are those of the lines, as the modes are orthonormal.
Buffer<double> LineModes::products(LinAlg<double>& la, const Part& a, const Part& b, const std::vector<index_t>& shifts,
                                   index_t most) {
  const index_t n = a.of.length_, c = a.channels, size = c * c, count = static_cast<index_t>(shifts.size());
  const index_t pairs = (n - 1) / 2, step = std::clamp<index_t>(most / (2 * size), 1, std::max<index_t>(1, pairs));
  Buffer<double> out(la, size, count), even_odd(la, size, 2 * step), waves(la, 2 * step, count);
  std::vector<double> host;
  const auto add = [&](index_t columns, double beta) {
    const Mat<double> w(waves.data(), columns, count);
    la.upload(host.data(), w);
    la.multiply(Op::none, Op::none, 1.0, even_odd.mat().columns(0, columns), w, beta, out);
    host.clear();
  };
  // the constant, and (-1)^w where there is one: neither has a sine
  const index_t alone = n % 2 == 0 ? 2 : 1;
  for (index_t i = 0; i < alone; ++i) {
    const index_t m = i * (n - 1);
    la.multiply(Op::none, Op::transpose, 1.0, b.of.mode(m, b), a.of.mode(m, a), 0.0,
                Mat<double>(even_odd.data() + i * size, c, c));
  }
  for (const index_t s : shifts) {
    for (index_t i = 0; i < alone; ++i) host.push_back(a.of.wave(i * (n / 2), s).cosine);
  }
  add(alone, 0.0);
  const index_t stride_a = 2 * a.of.lines_ * a.of.channels_, stride_b = 2 * b.of.lines_ * b.of.channels_;
  for (index_t first = 0; first < pairs; first += step) {
    const index_t batch = std::min(step, pairs - first), cosine = 2 * first + 1, sine = cosine + 1;
    const Mat<double> even(even_odd.data(), c, c), odd(even_odd.data() + size, c, c);
    const auto multiply = [&](index_t mode_b, index_t mode_a, double alpha, double beta, const Mat<double>& to) {
      la.multiply_batched(Op::none, Op::transpose, alpha, b.of.mode(mode_b, b), stride_b, a.of.mode(mode_a, a),
                          stride_a, beta, to, 2 * size, batch);
    };
    multiply(cosine, cosine, 1.0, 0.0, even);
    multiply(sine, sine, 1.0, 1.0, even);
    multiply(sine, cosine, 1.0, 0.0, odd);
    multiply(cosine, sine, -1.0, 1.0, odd);
    for (const index_t s : shifts) {
      for (index_t k = first + 1; k <= first + batch; ++k) {
        const Rotation& turn = a.of.wave(k, s);
        host.insert(host.end(), {turn.cosine, turn.sine});
      }
    }
    add(2 * batch, 1.0);
  }
  return out;
}

}  // namespace brockett
