// Descent over the orders of n neurons by single moves: exchanges, insertions and segment reversals.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <limits>
#include <utility>
#include <vector>

#include "permutation.hpp"

namespace brockett {

// Calls poll once per a few million operations.
class Ticker {
 public:
  explicit Ticker(const std::function<void()>& poll) : poll_(poll) {}
  void work(index_t operations) {
    done_ += operations;
    if (done_ < (index_t{1} << 23)) return;
    done_ = 0;
    if (poll_) poll_();
  }

 private:
  const std::function<void()>& poll_;
  index_t done_ = 0;
};

inline double largest_row_norm(const double* A, index_t n) {
  double largest = 0;
  for (index_t i = 0; i < n; ++i) {
    double sum = 0;
    for (index_t j = 0; j < n; ++j) sum += A[i * n + j] * A[i * n + j];
    largest = std::max(largest, sum);
  }
  return std::sqrt(largest);
}

// Changes of the cost below this are rounding: n products of two rows, to a few units in the last place each.
inline double rounding_of(const double* A, const double* C, index_t n) {
  return 16.0 * static_cast<double>(n) * std::numeric_limits<double>::epsilon() * largest_row_norm(A, n) *
         largest_row_norm(C, n);
}

// The move to make: the first whose change is the lowest to rounding, or -1 when none is lower than by rounding.
inline index_t best_move(const double* change, index_t count, double rounding) {
  double lowest = 0;
  for (index_t j = 0; j < count; ++j) lowest = std::min(lowest, change[j]);
  if (lowest >= -4 * rounding) return -1;
  index_t j = 0;
  while (change[j] > lowest + rounding) ++j;
  return j;
}

// Descends from an order by exchanges, insertions and segment reversals. B is C in the present order, G = A B.
//
// A pass lists the best move of each neuron (or centre of reversal) for the order it begins with, all n^2 changes at
// once out of matrix products, and makes those that still help when their turn comes. Neurons, not positions, are
// remembered.
class LocalSearch {
 public:
  LocalSearch(const double* A, const double* C, index_t n, bool circulant, const HostAlgebra& algebra, Ticker& ticker)
      : A_(A),
        C_(C),
        n_(n),
        circulant_(circulant),
        rounding_(rounding_of(A, C, n)),
        algebra_(algebra),
        ticker_(ticker) {}

  double rounding() const { return rounding_; }

  void polish(std::vector<index_t>& order, int max_sweeps) {
    if (n_ < 2) return;
    for (auto* buffer : {&B_, &G_, &left_, &right_, &product_, &change_}) buffer->resize(n_ * n_);
    order_ = &order;
    place_.resize(n_);
    for (index_t i = 0; i < n_; ++i) place_[order[i]] = i;
    for (index_t i = 0; i < n_; ++i) gather_row(i);
    fresh_ = false;
    products_ = 0;
    const index_t most = std::max(kFewestProducts, kProductWork / (n_ * n_ * n_));
    for (int sweep = 0; sweep < max_sweeps && products_ < most; ++sweep) {
      // An exchange pass costs a fraction of the others: they wait until it has little left to do. Reversals are what
      // is left in the end, so they go on until there are none: 15-30 % less time than in turns, at the same quality.
      const index_t exchanged = exchange_pass();
      if (16 * exchanged > n_) continue;
      const index_t inserted = insertion_pass();
      index_t reversed = 0;
      for (index_t made = -1; made != 0 && products_ < most; reversed += made) made = reversal_pass();
      if (exchanged + inserted + reversed == 0) break;
    }
  }

 private:
  // A start is polished with at most this many multiplications in its matrix products, 10 s of them at one thread of 28
  // GFlop/s, and no fewer than these products (two rounds of passes). Binding from n = 1024; there the last 3 % are
  // left.
  static constexpr index_t kProductWork = index_t{1} << 37;
  static constexpr index_t kFewestProducts = 14;

  enum class Kind { exchange, insertion, reversal };
  struct Move {
    index_t first, second;  // neurons; an insertion puts the first where the second is
  };

  void multiply(const double* X, const double* Y, double* Z) {
    algebra_.multiply(X, Y, Z, n_);
    ++products_;
    ticker_.work(n_ * n_ * n_ / 4);
  }

  void refresh() {
    if (!fresh_) multiply(A_, B_.data(), G_.data());
    fresh_ = true;
  }

  // sum over all k of (A_rk - A_sk)(B_sk - B_rk), and its terms k = r and k = s.
  double all_of(index_t r, index_t s) const {
    return G_[r * n_ + s] + G_[s * n_ + r] - G_[r * n_ + r] - G_[s * n_ + s];
  }
  double ends_of(index_t r, index_t s) const {
    return (a(r, r) - a(s, r)) * (b(s, r) - b(r, r)) + (a(r, s) - a(s, s)) * (b(s, s) - b(r, s));
  }

  // Exchanging positions r and s: 2 sum_{k != r, s} (A_rk - A_sk)(B_sk - B_rk) + (A_rr - A_ss)(B_ss - B_rr).
  index_t exchange_pass() {
    refresh();
    std::vector<Move> moves;
    std::vector<double> change(n_);
    for (index_t r = 0; r + 1 < n_; ++r) {
      for (index_t s = r + 1; s < n_; ++s) {
        change[s - r - 1] = 2 * (all_of(r, s) - ends_of(r, s)) + (a(r, r) - a(s, s)) * (b(s, s) - b(r, r));
      }
      const index_t best = best_move(change.data(), n_ - 1 - r, rounding_);
      if (best >= 0) moves.push_back({(*order_)[r], (*order_)[r + 1 + best]});
    }
    return make(Kind::exchange, moves);
  }

  // Position i goes to j and those between close up: change_[j n + i].
  index_t insertion_pass() {
    refresh();
    for (index_t i = 0; i < n_; ++i) change_[i * n_ + i] = 0;
    insertions(1);
    insertions(-1);
    std::vector<double> lowest(n_, 0.0);
    for (index_t j = 0; j < n_; ++j) {
      for (index_t i = 0; i < n_; ++i) lowest[i] = std::min(lowest[i], change_[j * n_ + i]);
    }
    std::vector<index_t> target(n_, -1);
    for (index_t j = 0; j < n_; ++j) {
      for (index_t i = 0; i < n_; ++i) {
        if (target[i] < 0 && change_[j * n_ + i] <= lowest[i] + rounding_) target[i] = j;
      }
    }
    std::vector<Move> moves;
    for (index_t i = 0; i < n_; ++i) {
      if (lowest[i] < -4 * rounding_) moves.push_back({(*order_)[i], (*order_)[target[i]]});
    }
    return make(Kind::insertion, moves);
  }

  // All insertions to the right (towards = 1) or to the left (-1), as exchanges of neighbours one after the other. When
  // i stands at m, those it passed are one place back (for right: k holds what B has at k + 1, i <= k < m), and
  // exchanging m with m+1 changes the cost by 2 sum_{k != m, m+1} (A_mk - A_{m+1,k})(B'_{m+1,k} - B'_ik) + (A_mm -
  // A_{m+1,m+1}) (B_{m+1,m+1} - B_ii). Over all k, unshifted, that sum is G_{m,m+1} - G_{m+1,m+1} - G_mi + G_{m+1,i}.
  // The shift adds sum_{i <= k < m} (A_mk - A_{m+1,k})(B_{m+1,k+1} - B_{m+1,k}), a running sum as i goes down, less the
  // product of triangles sum_k [k < m](A_mk - A_{m+1,k}) [k >= i](B_{k+1,i} - B_ki).
  void insertions(index_t towards) {
    const index_t start = towards > 0 ? 0 : n_ - 1, end = n_ - 1 - start;
    std::fill(left_.begin(), left_.end(), 0.0);
    std::fill(right_.begin(), right_.end(), 0.0);
    for (index_t m = start; m != end; m += towards) {
      for (index_t k = start; k != m; k += towards) left_[m * n_ + k] = a(m, k) - a(m + towards, k);
      for (index_t i = start; i != m + towards; i += towards) right_[m * n_ + i] = b(m + towards, i) - b(m, i);
    }
    multiply(left_.data(), right_.data(), product_.data());
    for (index_t m = start; m != end; m += towards) {
      const index_t next = m + towards;
      double shifted = 0;
      for (index_t i = m; i != start - towards; i -= towards) {
        if (i != m) shifted += (a(m, i) - a(next, i)) * (b(next, i + towards) - b(next, i));
        const double all = G_[m * n_ + next] - G_[next * n_ + next] - G_[m * n_ + i] + G_[next * n_ + i];
        const double ends = (a(m, m) - a(next, m)) * (b(next, m) - b(m, i)) +
                            (a(m, next) - a(next, next)) * (b(next, next) - b(next, i));
        change_[next * n_ + i] = change_[m * n_ + i] + 2 * (all - ends + shifted - product_[m * n_ + i]) +
                                 (a(m, m) - a(next, next)) * (b(next, next) - b(i, i));
      }
    }
    ticker_.work(2 * n_ * n_);
  }

  // Positions r … s are read backwards: exchanges of (r, s), (r+1, s-1), … from within: change_[r n + s]. With D_k =
  // (A_rk - A_sk) and E_k = (B_sk - B_rk), what lies between enters as sum D_k E_{r+s-k} in place of sum D_k E_k.
  // For circulant A, D_{r+s-k} = -D_k.
  index_t reversal_pass() {
    refresh();
    // sum_{r < k < s} A_rk B_ks + B_rk A_ks
    for (index_t i = 0; i < n_; ++i) {
      for (index_t j = 0; j < n_; ++j) {
        left_[i * n_ + j] = i < j ? a(i, j) : 0;
        right_[i * n_ + j] = i < j ? b(i, j) : 0;
      }
    }
    multiply(left_.data(), right_.data(), product_.data());
    multiply(right_.data(), left_.data(), change_.data());
    std::vector<double> lowest(2 * n_, 0.0), beyond(n_, 0.0);  // beyond_s = sum_{r < k < s} A_sk B_sk
    for (index_t r = n_ - 1; r >= 0; --r) {
      double* change = change_.data() + r * n_;
      double within = 0;  // sum_{r < k < s} A_rk B_rk
      for (index_t s = r + 1; s < n_; ++s) {
        if (s > r + 1) {
          within += a(r, s - 1) * b(r, s - 1);
          beyond[s] += a(r + 1, s) * b(r + 1, s);
        }
        const double between = product_[r * n_ + s] + change[s] - within - beyond[s];
        const double mirrored = circulant_ ? -between : mirrored_dot(r, s);
        change[s] = 2 * (all_of(r, s) - ends_of(r, s) - between + mirrored) + (a(r, r) - a(s, s)) * (b(s, s) - b(r, r));
        if (s > r + 2) change[s] += change_[(r + 1) * n_ + s - 1];
        lowest[r + s] = std::min(lowest[r + s], change[s]);
      }
      ticker_.work(circulant_ ? 4 * n_ : n_ * n_);
    }
    std::vector<Move> moves;
    for (index_t sum = 1; sum < 2 * n_ - 2; ++sum) {
      if (lowest[sum] >= -4 * rounding_) continue;
      index_t r = (sum - 1) / 2;
      while (change_[r * n_ + sum - r] > lowest[sum] + rounding_) --r;
      moves.push_back({(*order_)[r], (*order_)[sum - r]});
    }
    return make(Kind::reversal, moves);
  }

  // sum_{r < k < s} (A_rk - A_sk)(B_{s,r+s-k} - B_{r,r+s-k}). Four sums in flight: the compiler may not reorder one.
  double mirrored_dot(index_t r, index_t s) const {
    const double *p = A_ + r * n_, *q = A_ + s * n_, *x = B_.data() + s * n_ + r + s, *y = B_.data() + r * n_ + r + s;
    std::array<double, 4> sum{};
    index_t k = r + 1;
    for (; k + 4 <= s; k += 4) {
      for (index_t l = 0; l < 4; ++l) sum[l] += (p[k + l] - q[k + l]) * (x[-k - l] - y[-k - l]);
    }
    for (; k < s; ++k) sum[0] += (p[k] - q[k]) * (x[-k] - y[-k]);
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
  }

  // Make the moves that help, one after the other; how many did.
  index_t make(Kind kind, const std::vector<Move>& moves) {
    index_t made = 0;
    for (const Move& move : moves) {
      const index_t i = place_[move.first], j = place_[move.second];
      if (i == j) continue;
      const index_t low = std::min(i, j), high = std::max(i, j);
      positions_.clear();
      sources_.clear();
      for (index_t k = low; k <= high; ++k) {
        if (kind == Kind::exchange && k != low && k != high) continue;
        positions_.push_back(k);
        if (kind == Kind::insertion) {
          sources_.push_back(i < j ? (k < j ? k + 1 : i) : (k > j ? k - 1 : i));
        } else {
          sources_.push_back(low + high - k);
        }
      }
      if (change_of_move() >= -4 * rounding_) continue;
      apply_move();
      ++made;
    }
    return made;
  }

  // Position positions_[k] gets what sources_[k] holds, S the positions. With B' what B becomes:
  // sum_{r in S} (2 sum_{k not in S} A_rk (B'_rk - B_rk) + sum_{k in S} A_rk (B'_rk - B_rk)).
  double change_of_move() {
    const std::size_t length = positions_.size();
    double change = 0;
    for (std::size_t t = 0; t < length; ++t) {
      const index_t r = positions_[t];
      const double *p = A_ + r * n_, *x = B_.data() + sources_[t] * n_, *y = B_.data() + r * n_;
      std::array<double, 4> sum{};
      index_t k = 0;
      for (; k + 4 <= n_; k += 4) {
        for (index_t l = 0; l < 4; ++l) sum[l] += p[k + l] * (x[k + l] - y[k + l]);
      }
      for (; k < n_; ++k) sum[0] += p[k] * (x[k] - y[k]);
      double inside = 0;
      for (std::size_t u = 0; u < length; ++u) {
        const index_t c = positions_[u];
        inside += p[c] * (x[sources_[u]] - y[c] - 2 * (x[c] - y[c]));
      }
      change += 2 * ((sum[0] + sum[1]) + (sum[2] + sum[3])) + inside;
    }
    ticker_.work(2 * n_ * static_cast<index_t>(length));
    return change;
  }

  void apply_move() {
    std::vector<index_t> moved(sources_.size());
    for (std::size_t t = 0; t < moved.size(); ++t) moved[t] = (*order_)[sources_[t]];
    for (std::size_t t = 0; t < moved.size(); ++t) {
      (*order_)[positions_[t]] = moved[t];
      place_[moved[t]] = positions_[t];
    }
    for (const index_t r : positions_) {
      gather_row(r);
      for (index_t k = 0; k < n_; ++k) B_[k * n_ + r] = B_[r * n_ + k];
    }
    fresh_ = false;
  }

  void gather_row(index_t r) {
    const double* source = C_ + (*order_)[r] * n_;
    for (index_t k = 0; k < n_; ++k) B_[r * n_ + k] = source[(*order_)[k]];
  }

  double a(index_t i, index_t j) const { return A_[i * n_ + j]; }
  double b(index_t i, index_t j) const { return B_[i * n_ + j]; }

  const double* A_;
  const double* C_;
  index_t n_;
  bool circulant_;
  double rounding_;
  const HostAlgebra& algebra_;
  Ticker& ticker_;
  std::vector<double> B_, G_, left_, right_, product_, change_;
  std::vector<index_t>* order_ = nullptr;
  std::vector<index_t> place_;  // of each neuron
  std::vector<index_t> positions_, sources_;
  bool fresh_ = false;  // G = A B
  index_t products_ = 0;
};

}  // namespace brockett
