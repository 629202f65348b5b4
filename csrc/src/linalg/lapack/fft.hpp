// Complex Fourier transforms of any length, eight signals at a time.
#pragma once

#include <memory>
#include <vector>

#include "brockett/matrix_view.hpp"
#include "roots_of_unity.hpp"

namespace brockett::linalg::lapack {

/// Plan for X_k = sum_j x_j exp(-2 pi i j k / n), k < n, of kLanes signals at once.
///
/// A group of signals lies in memory as n elements of kLanes real parts followed by kLanes imaginary parts: every
/// butterfly is a loop over the lanes, and vectorizes whatever the radix. Lengths with factors 2, 3, 5, 7, 11, 13 are
/// done in place by decimation in frequency, all others through a circular convolution (Bluestein). 5 n log2 n flops
/// per signal upwards. L. I. Bluestein, IEEE Trans. Audio Electroacoust. 18 (1970) 451; W. M. Gentleman, G. Sande,
/// Proc. AFIPS 29 (1966) 563.
class Fft {
 public:
  static constexpr int kLanes = 8;
  static constexpr int kStride = 2 * kLanes;  ///< doubles from one element to the next

  explicit Fft(index_t n);
  index_t n() const { return n_; }
  /// Length of the memory that forward() works in, in doubles: the signals come first, the rest is its own.
  index_t work_size() const;
  /// Transform the signals in x; frequency k ends up as element slot(k).
  void forward(double* x) const;
  /// cos and sin of 2 pi k / 4 n, k <= n / 2: what joins this transform to the cosine transforms.
  const Rotation& quarter(index_t k) const { return quarters_[static_cast<std::size_t>(k)]; }
  index_t slot(index_t k) const { return slots_.empty() ? k : slots_[static_cast<std::size_t>(k)]; }

 private:
  // Butterflies of `radix` elements that are `span` apart, for blocks of radix * span elements. Twiddles: for element j of
  // the span and output p = 1 … radix - 1, cos and -sin of 2 pi j p / (radix span).
  struct Level {
    int radix;
    index_t span;
    std::vector<double> twiddles;
  };
  void plan_levels();
  void plan_convolution();
  void convolve(double* x) const;

  index_t n_;
  std::vector<Level> levels_;
  std::vector<index_t> slots_;
  std::vector<Rotation> quarters_;
  // Bluestein: the transform of the convolution; cos and -sin of pi j^2 / n; the transform of their conjugate, by slot.
  std::unique_ptr<const Fft> inner_;
  std::vector<double> chirp_;
  std::vector<double> kernel_;
};

/// The plan for length n from a small cache shared by all threads.
std::shared_ptr<const Fft> fft_plan(index_t n);

}  // namespace brockett::linalg::lapack
