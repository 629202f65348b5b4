#include "brockett/convolution.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "check.hpp"
#include "linalg/buffer.hpp"
#include "linalg/linalg.hpp"
#include "transfer_gram.hpp"

namespace brockett {

using linalg::Buffer;
using linalg::LinAlg;
using linalg::Mat;
using linalg::Op;

namespace {

// Frequencies that one task takes at a time.
constexpr index_t kBatch = 16;
// Gram matrices are squared this often for an upper bound: 12 r^3 flops of products, against 5 r^3 of an eigensolver at a tenth
// of their rate. ||G^8||_F^(1/8) is 1 % to 4 % above the largest eigenvalue of a random kernel.
constexpr int kSquarings = 3;

/// The taps of one group as M_q (r x R) side by side, r the smaller of both sides.
struct Taps {
  Buffer<double> matrices;
  std::array<index_t, 2> extent{1, 1}, grid{1, 1};
};

void check_params(const OperatorParams& p, index_t out, index_t in) {
  for (std::size_t a = 0; a < 2; ++a) {
    if (p.kernel[a] < 1) throw InvalidArgument("K", "must not be empty");
    if (p.grid[a] < 1) throw InvalidArgument("input_shape", "must be at least 1, is " + std::to_string(p.grid[a]));
    if (p.stride[a] < 1 || p.grid[a] % p.stride[a] != 0) {
      throw InvalidArgument("stride", "must divide the grid: " + std::to_string(p.stride[a]) + " does not divide " +
                                          std::to_string(p.grid[a]));
    }
  }
  if (p.groups < 1 || out % p.groups != 0) {
    throw InvalidArgument("groups",
                          std::to_string(p.groups) + " do not divide " + std::to_string(out) + " output channels");
  }
  if (in % (p.kernel[0] * p.kernel[1]) != 0) throw InvalidArgument("K", "rows do not fit the size of the kernel");
  if (p.top < 0) throw InvalidArgument("top", "must be at least 0, is " + std::to_string(p.top));
}

// W^T (in k1 k2 x out) of one group, packed
Taps taps_of(LinAlg<double>& la, Mat<const double> columns, const OperatorParams& p) {
  const index_t taps = p.kernel[0] * p.kernel[1], in = columns.rows / taps, out = columns.cols;
  // K_t as in x out, in columns of in out entries
  Buffer<double> by_tap(la, in * out, taps);
  la.transpose(Mat<const double>(columns.data, taps, in * out), by_tap);
  Taps found;
  for (std::size_t a = 0; a < 2; ++a) {
    found.grid[a] = p.grid[a] / p.stride[a];
    found.extent[a] = std::min(found.grid[a], (p.kernel[a] - 1) / p.stride[a] + 1);
  }
  const index_t phases = p.stride[0] * p.stride[1], rows = in * phases;
  const index_t count = found.extent[0] * found.extent[1];
  Buffer<double> sorted(la, rows, out * count);
  la.fill(sorted, 0.0);
  for (index_t a = 0; a < p.kernel[0]; ++a) {
    for (index_t b = 0; b < p.kernel[1]; ++b) {
      // taps that wrap around fall on one position; positions of one residue are a channel
      const index_t i = a % p.grid[0], j = b % p.grid[1];
      const index_t phase = i % p.stride[0] * p.stride[1] + j % p.stride[1];
      const index_t at = i / p.stride[0] * found.extent[1] + j / p.stride[1];
      la.add(1.0, Mat<const double>(by_tap.data() + (a * p.kernel[1] + b) * in * out, in, out),
             sorted.mat().block(phase * in, at * out, in, out));
    }
  }
  if (rows <= out) {
    found.matrices = std::move(sorted);
    return found;
  }
  found.matrices = Buffer<double>(la, out, rows * count);
  for (index_t q = 0; q < count; ++q) {
    la.transpose(sorted.mat().columns(q * out, out), found.matrices.mat().columns(q * rows, rows));
  }
  return found;
}

/// Eigenvalues of G(f), or an upper bound of them, for any list of frequencies.
class Solver {
 public:
  Solver(const Context& context, const TransferGram& gram)
      : context_(context), la_(context.backend().full()), gram_(gram), r_(gram.order()) {}

  // out: r a frequency, ascending
  void eigenvalues(const std::vector<Frequency>& f, double* out) const {
    for_batches(f, [&](index_t first, index_t count, Mat<double> re, Mat<double> im) {
      la_.eigenvalues_hermitian_batched(re.columns(0, r_), im.columns(0, r_), r_ * r_, count, out + first * r_);
    });
  }

  // out: ||G^(2^squarings)||_F^(2^-squarings) >= the largest eigenvalue, of each frequency
  void bounds(const std::vector<Frequency>& f, int squarings, double* out) const {
    for_batches(f, [&](index_t first, index_t count, Mat<double> re, Mat<double> im) {
      for (index_t k = 0; k < count; ++k) {
        out[first + k] = bound(re.columns(k * r_, r_), im.columns(k * r_, r_), squarings);
      }
    });
  }

 private:
  template <class F>
  void for_batches(const std::vector<Frequency>& f, F&& work) const {
    const auto n = static_cast<index_t>(f.size());
    const auto bytes = static_cast<std::size_t>(r_ * r_) * sizeof(double);
    // a short list is shared out, too
    const index_t batch = std::max(std::clamp<index_t>(n / 4, 1, kBatch), context_.backend().batch_size(bytes));
    context_.backend().for_each((n + batch - 1) / batch,
                                [&](index_t task) {
                                  const index_t first = task * batch, count = std::min(batch, n - first);
                                  Buffer<double> re(la_, r_, r_ * count), im(la_, r_, r_ * count);
                                  gram_.form(f.data() + first, count, re, im);
                                  work(first, count, re.mat(), im.mat());
                                },
                                [&] { context_.check_interrupt(); });
  }

  // A + i B with A symmetric and B antisymmetric, both overwritten
  double bound(Mat<double> A, Mat<double> B, int squarings) const {
    la_.mirror_lower(A);
    Buffer<double> re(la_, r_, r_), im(la_, r_, r_), back(la_, r_, r_);
    double log_bound = 0, share = 1;
    for (int k = 0;; ++k) {
      const double norm = std::hypot(la_.norm(A), la_.norm(B));
      if (norm == 0) return 0;
      log_bound += share * std::log(norm);
      if (k == squarings) return std::exp(log_bound) * (1 + 1e-12);
      la_.scale(1 / norm, A);
      la_.scale(1 / norm, B);
      share /= 2;
      // (A + i B)^2 = A A^T + B B^T + i (A B - (A B)^T)
      la_.accumulate_outer(Op::none, 1.0, A, 0.0, re);
      la_.accumulate_outer(Op::none, 1.0, B, 1.0, re);
      la_.mirror_lower(re);
      la_.multiply(Op::none, Op::none, 1.0, A, B, 0.0, im);
      la_.transpose(im, back);
      la_.add(-1.0, back, im);
      la_.copy(re, A);
      la_.copy(im, B);
    }
  }

  const Context& context_;
  LinAlg<double>& la_;
  const TransferGram& gram_;
  index_t r_;
};

/// The largest `most` of what was put in.
class Largest {
 public:
  explicit Largest(std::size_t most) : most_(most) {}
  void put(double value, int copies) {
    for (int k = 0; k < copies; ++k) {
      if (values_.size() == most_) {
        if (value <= values_.front()) return;
        std::pop_heap(values_.begin(), values_.end(), std::greater<>());
        values_.back() = value;
      } else {
        values_.push_back(value);
      }
      std::push_heap(values_.begin(), values_.end(), std::greater<>());
    }
  }
  /// What a value must be above to change anything.
  double least() const { return values_.size() < most_ ? -std::numeric_limits<double>::infinity() : values_.front(); }
  const std::vector<double>& values() const { return values_; }

 private:
  std::size_t most_;
  std::vector<double> values_;  // heap, the least in front
};

// The eigenvalues that are among the largest: best first, the frequency of the largest upper bound is refined or solved.
// Where refining does not rule out half of what it is tried on (the frequencies of a random kernel are much alike), it is
// given up.
index_t solve_largest(const Solver& solver, index_t r, const std::vector<Frequency>& all, Largest& best) {
  struct Candidate {
    double bound;
    bool refined;
    Frequency f;
    bool operator<(const Candidate& o) const { return bound < o.bound; }
  };
  std::vector<double> rough(all.size());
  solver.bounds(all, 0, rough.data());
  std::vector<Candidate> heap;
  for (std::size_t i = 0; i < all.size(); ++i) heap.push_back({rough[i], false, all[i]});
  std::make_heap(heap.begin(), heap.end());
  const auto is_open = [&] { return !heap.empty() && heap.front().bound > best.least(); };
  index_t solved = 0;
  std::size_t most = 4;  // few at first: each may rule out many
  bool refining = true;
  while (is_open()) {
    std::vector<Frequency> refine, solve;
    while (is_open() && refine.size() < kBatch && solve.size() < most) {
      std::pop_heap(heap.begin(), heap.end());
      // before anything is solved nothing can be ruled out
      const bool worth_it = refining && !heap.back().refined && best.least() > 0;
      (worth_it ? refine : solve).push_back(heap.back().f);
      heap.pop_back();
    }
    std::vector<double> bounds(refine.size()), values(solve.size() * static_cast<std::size_t>(r));
    solver.bounds(refine, kSquarings, bounds.data());
    std::size_t left = 0;
    for (std::size_t i = 0; i < refine.size(); ++i) {
      heap.push_back({bounds[i], true, refine[i]});
      std::push_heap(heap.begin(), heap.end());
      left += bounds[i] > best.least();
    }
    refining = refining && 2 * left <= refine.size();
    solver.eigenvalues(solve, values.data());
    for (std::size_t i = 0; i < values.size(); ++i) {
      best.put(values[i], solve[i / static_cast<std::size_t>(r)].copies);
    }
    solved += static_cast<index_t>(solve.size());
    if (!solve.empty()) most = std::min<std::size_t>(2 * most, 2 * kBatch);
  }
  return solved;
}

}  // namespace

template <class T>
OperatorSpectrum operator_singular_values(const Context& context, MatrixView<const T> K, const OperatorParams& params) {
  auto& backend = context.backend();
  auto& la = backend.full();
  check_matrix(backend, "K", K);
  check_params(params, K.rows, K.cols);
  const auto M = columns_of(K);
  Buffer<double> wide = to_double<T>(backend, M), columns;
  if (K.order == Order::row_major) {
    columns = std::move(wide);
  } else {
    columns = Buffer<double>(la, K.cols, K.rows);
    la.transpose(wide, columns);
  }
  // a power of two, so that squares stay in range and nothing is rounded
  const double size = la.max_abs(columns);
  const int exponent = size > 0 ? std::ilogb(size) : 0;
  la.scale(std::ldexp(1.0, -(exponent / 2)), columns);
  la.scale(std::ldexp(1.0, -(exponent - exponent / 2)), columns);

  OperatorSpectrum out;
  const index_t of_group = K.rows / params.groups;
  std::vector<double> squares;
  Largest best(static_cast<std::size_t>(params.top));
  for (index_t g = 0; g < params.groups; ++g) {
    const Taps taps = taps_of(la, columns.mat().columns(g * of_group, of_group), params);
    const TransferGram gram(la, taps.matrices, taps.extent, taps.grid);
    const index_t r = gram.order();
    const auto thread_scope = backend.thread_scope(r);
    const Solver solver(context, gram);
    const std::vector<Frequency> frequencies = half_of_frequencies(taps.grid);
    out.n_transfer += static_cast<index_t>(frequencies.size());
    if (params.top > 0 && r > 8) {
      out.n_solved += solve_largest(solver, r, frequencies, best);
      continue;
    }
    std::vector<double> values(frequencies.size() * static_cast<std::size_t>(r));
    solver.eigenvalues(frequencies, values.data());
    out.n_solved += static_cast<index_t>(frequencies.size());
    for (std::size_t i = 0; i < values.size(); ++i) {
      const int copies = frequencies[i / static_cast<std::size_t>(r)].copies;
      if (params.top > 0) {
        best.put(values[i], copies);
      } else {
        squares.insert(squares.end(), static_cast<std::size_t>(copies), values[i]);
      }
    }
  }
  out.values = params.top > 0 ? best.values() : std::move(squares);
  for (double& v : out.values) v = std::ldexp(std::sqrt(std::max(v, 0.0)), exponent);
  std::sort(out.values.begin(), out.values.end(), std::greater<>());
  return out;
}

template <class T>
Array<double> channel_gram(const Context& context, MatrixView<const T> W) {
  auto& backend = context.backend();
  auto& la = backend.full();
  check_magnitude("K", check_matrix(backend, "K", W));
  const auto M = columns_of(W);
  const auto threads = backend.thread_scope(W.rows);
  const Buffer<double> wide = to_double<T>(backend, M);
  auto out = make_array<double>(context, W.rows, W.rows);
  const Mat<double> G(out.data(), W.rows, W.rows);
  la.fill(G, 0.0);
  la.accumulate_outer(op_of(W), 1.0, wide, 0.0, G);
  la.mirror_lower(G);
  return out;
}

#define BROCKETT_INSTANTIATE(T)                                                                                   \
  template OperatorSpectrum operator_singular_values(const Context&, MatrixView<const T>, const OperatorParams&); \
  template Array<double> channel_gram(const Context&, MatrixView<const T>);
BROCKETT_INSTANTIATE(float)
BROCKETT_INSTANTIATE(double)

}  // namespace brockett
