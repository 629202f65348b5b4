// Real Fourier modes and DCT-II by complex transforms: two rows of A make one complex signal, eight signals a group.
#include <algorithm>
#include <cmath>
#include <vector>

#include "linalg/lapack/fft.hpp"
#include "linalg/lapack/lapack_linalg.hpp"
#include "linalg/lapack/memory.hpp"

namespace brockett::linalg::lapack {
namespace {

constexpr int kLanes = Fft::kLanes;
constexpr int kStride = Fft::kStride;

// Rows first … first + count of A, at most 2 kLanes: the first kLanes are real parts, the others imaginary parts.
template <class T>
struct Rows {
  Mat<T> A;
  index_t first;
  int count;

  void read(index_t column, double* element) const {
    const T* a = A.data + first + column * A.ld;
    if (count == kStride) {
      for (int l = 0; l < kStride; ++l) element[l] = static_cast<double>(a[l]);
    } else {
      for (int l = 0; l < kStride; ++l) element[l] = l < count ? static_cast<double>(a[l]) : 0.0;
    }
  }
  void write(index_t column, const double* element) const {
    T* a = A.data + first + column * A.ld;
    if (count == kStride) {
      for (int l = 0; l < kStride; ++l) a[l] = static_cast<T>(element[l]);
    } else {
      for (int l = 0; l < count; ++l) a[l] = static_cast<T>(element[l]);
    }
  }
};

// The spectra of the two real signals x, y in z = x + i y: X_k = (Z_k + conj Z_{n-k}) / 2, Y_k = (Z_k - conj Z_{n-k})
// / 2i. `cosine` <- Re (X, Y) scale, `sine` <- -Im (X, Y) scale; real lanes hold x, imaginary lanes y.
inline void split(const double* z, const double* mirrored, double scale, double* cosine, double* sine) {
  const double h = 0.5 * scale;
  for (int l = 0; l < kLanes; ++l) {
    const double zr = z[l], zi = z[kLanes + l], mr = mirrored[l], mi = mirrored[kLanes + l];
    cosine[l] = h * (zr + mr);
    cosine[kLanes + l] = h * (zi + mi);
    sine[l] = h * (mi - zi);
    sine[kLanes + l] = h * (zr - mr);
  }
}

// The reverse: Z_k and Z_{n-k} of two real signals whose spectra are cosine - i sine. The parts are written swapped,
// since the inverse transform is the forward one between two swaps.
inline void join(const double* cosine, const double* sine, double scale, double* z, double* mirrored) {
  for (int l = 0; l < kLanes; ++l) {
    const double xc = scale * cosine[l], yc = scale * cosine[kLanes + l];
    const double xs = scale * sine[l], ys = scale * sine[kLanes + l];
    z[kLanes + l] = xc + ys;
    z[l] = yc - xs;
    mirrored[kLanes + l] = xc - ys;
    mirrored[l] = yc + xs;
  }
}

inline void scale_element(double* element, double factor) {
  for (int l = 0; l < kStride; ++l) element[l] *= factor;
}

inline void swap_parts(double* element) { std::swap_ranges(element, element + kLanes, element + kLanes); }

// Coefficients of rows in the real Fourier modes: sqrt(1/n), sqrt(2/n) cos(2 pi k j / n), sqrt(2/n) sin(2 pi k j /
// n), and (-1)^j sqrt(1/n) last where n is even.
template <class T>
void fourier_analysis(const Fft& fft, const Rows<T>& rows, double* x) {
  const index_t n = fft.n();
  const double pair = std::sqrt(2.0 / static_cast<double>(n)), single = std::sqrt(1.0 / static_cast<double>(n));
  double cosine[kStride], sine[kStride];
  for (index_t j = 0; j < n; ++j) rows.read(j, x + j * kStride);
  fft.forward(x);
  for (index_t k = 0; 2 * k <= n; ++k) {
    double* z = x + fft.slot(k) * kStride;
    if (k == 0 || 2 * k == n) {
      scale_element(z, single);
      rows.write(k == 0 ? 0 : n - 1, z);
      continue;
    }
    split(z, x + fft.slot(n - k) * kStride, pair, cosine, sine);
    rows.write(2 * k - 1, cosine);
    rows.write(2 * k, sine);
  }
}

// Rows from their coefficients.
template <class T>
void fourier_synthesis(const Fft& fft, const Rows<T>& rows, double* x) {
  const index_t n = fft.n();
  const double pair = std::sqrt(0.5 / static_cast<double>(n)), single = std::sqrt(1.0 / static_cast<double>(n));
  double cosine[kStride], sine[kStride];
  for (index_t k = 0; 2 * k <= n; ++k) {
    double* z = x + k * kStride;
    if (k == 0 || 2 * k == n) {
      rows.read(k == 0 ? 0 : n - 1, z);
      scale_element(z, single);
      swap_parts(z);
      continue;
    }
    rows.read(2 * k - 1, cosine);
    rows.read(2 * k, sine);
    join(cosine, sine, pair, z, x + (n - k) * kStride);
  }
  fft.forward(x);
  for (index_t j = 0; j < n; ++j) {
    double* element = x + fft.slot(j) * kStride;
    swap_parts(element);
    rows.write(j, element);
  }
}

// Where sample j of a row stands in Makhoul's order: even samples ascending, then odd ones descending.
// J. Makhoul, IEEE Trans. Acoust. Speech Signal Process. 28 (1980) 27.
inline index_t makhoul(index_t j, index_t n) { return j % 2 == 0 ? j / 2 : n - 1 - j / 2; }

// (a, b) <- (c a + s b, s a - c b): its own inverse
inline void reflect(double* a, double* b, Rotation r) {
  for (int l = 0; l < kStride; ++l) {
    const double t = r.cosine * a[l] + r.sine * b[l];
    b[l] = r.sine * a[l] - r.cosine * b[l];
    a[l] = t;
  }
}

// Coefficients in sqrt(1/n), sqrt(2/n) cos(pi k (j + 1/2) / n): with V the spectrum of the reordered row,
// X_k = cos(pi k / 2n) Re V_k + sin(pi k / 2n) Im V_k, X_{n-k} = sin(…) Re V_k - cos(…) Im V_k.
template <class T>
void dct_analysis(const Fft& fft, const Rows<T>& rows, double* x) {
  const index_t n = fft.n();
  const double pair = std::sqrt(2.0 / static_cast<double>(n)), single = std::sqrt(1.0 / static_cast<double>(n));
  double re[kStride], minus_im[kStride];
  for (index_t j = 0; j < n; ++j) rows.read(j, x + makhoul(j, n) * kStride);
  fft.forward(x);
  for (index_t k = 0; 2 * k <= n; ++k) {
    double* z = x + fft.slot(k) * kStride;
    if (k == 0 || 2 * k == n) {
      scale_element(z, single);
      rows.write(k, z);
      continue;
    }
    split(z, x + fft.slot(n - k) * kStride, pair, re, minus_im);
    const Rotation r = fft.quarter(k);
    reflect(re, minus_im, {r.cosine, -r.sine});
    for (double& b : minus_im) b = -b;
    rows.write(k, re);
    rows.write(n - k, minus_im);
  }
}

template <class T>
void dct_synthesis(const Fft& fft, const Rows<T>& rows, double* x) {
  const index_t n = fft.n();
  const double pair = std::sqrt(0.5 / static_cast<double>(n)), single = std::sqrt(1.0 / static_cast<double>(n));
  double re[kStride], minus_im[kStride];
  for (index_t k = 0; 2 * k <= n; ++k) {
    double* z = x + k * kStride;
    if (k == 0 || 2 * k == n) {
      rows.read(k, z);
      scale_element(z, single);
      swap_parts(z);
      continue;
    }
    rows.read(k, re);
    rows.read(n - k, minus_im);
    for (double& b : minus_im) b = -b;
    const Rotation r = fft.quarter(k);
    reflect(re, minus_im, {r.cosine, -r.sine});
    join(re, minus_im, pair, z, x + (n - k) * kStride);
  }
  fft.forward(x);
  for (index_t j = 0; j < n; ++j) {
    double* element = x + fft.slot(makhoul(j, n)) * kStride;
    swap_parts(element);
    rows.write(j, element);
  }
}

}  // namespace

// A <- A T^T (synthesis) or A T (analysis)
template <class T>
void Transforms<T>::apply_modes(Modes modes, Op op, Mat<T> A) {
  if (A.empty()) return;
  const auto fft = fft_plan(A.cols);
  Scratch<double> x(fft->work_size());
  const auto apply = modes == Modes::fourier ? (op == Op::none ? fourier_synthesis<T> : fourier_analysis<T>)
                                             : (op == Op::none ? dct_synthesis<T> : dct_analysis<T>);
  for (index_t first = 0; first < A.rows; first += kStride) {
    const int count = static_cast<int>(std::min<index_t>(kStride, A.rows - first));
    apply(*fft, Rows<T>{A, first, count}, x.data());
  }
}

template class Transforms<float>;
template class Transforms<double>;

}  // namespace brockett::linalg::lapack
