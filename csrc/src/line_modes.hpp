// Sums of products of lines at many shifts, by way of the real Fourier modes along the lines.
#pragma once

#include <vector>

#include "linalg/buffer.hpp"
#include "linalg/linalg.hpp"
#include "roots_of_unity.hpp"

namespace brockett {

/// Lines of `pitch` positions in their Fourier modes. The correlation theorem turns the products of two sets of lines at any
/// number of shifts into four products for each pair of a cosine and a sine: as many multiplications as two shifts cost.
class LineModes {
 public:
  LineModes() = default;
  /// Position w of line l is column l pitch + w of `lines`, channels x (n_lines pitch).
  LineModes(linalg::LinAlg<double>& la, linalg::Mat<const double> lines, index_t pitch);
  bool empty() const { return length_ == 0; }

  /// How many modes lines of `pitch` positions have: with zeros appended, so that the transform is a fast one.
  static index_t length_for(index_t pitch);

  /// Lines first … first + count, of channels first_channel … + channels.
  struct Part {
    const LineModes& of;
    index_t first = 0, count = 0, first_channel = 0, channels = 0;
  };
  /// Columns vec sum_{l, w} b_l(w + s) a_l(w)^T, channels x channels, one for each shift s, where no a(w) other than zero
  /// meets a w + s outside of the line. At most about `most` numbers, besides the result, are held at once.
  static linalg::Buffer<double> products(linalg::LinAlg<double>& la, const Part& a, const Part& b,
                                         const std::vector<index_t>& shifts, index_t most);

 private:
  // mode m of all lines: a matrix of channels x lines
  linalg::Mat<const double> mode(index_t m, const Part& part) const {
    return {modes_.data() + (m * lines_ + part.first) * channels_ + part.first_channel, part.channels, part.count,
            channels_};
  }

  // of mode k, shifted by s
  const Rotation& wave(index_t k, index_t s) const {
    return waves_[static_cast<std::size_t>(((k * s) % length_ + length_) % length_)];
  }

  index_t channels_ = 0, lines_ = 0, length_ = 0;
  linalg::Buffer<double> modes_;  // (channels lines) x length: 1, cos 1, sin 1, cos 2, …
  std::vector<Rotation> waves_;
};

}  // namespace brockett
