#include "assignment.hpp"

#include <algorithm>
#include <limits>
#include <numeric>
#include <string>

#include "brockett/error.hpp"

namespace brockett {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Dual feasibility cost_ij >= u_i + v_j, with u_i = min_j (cost_ij - v_j) implied; a pair (i, column_of[i]) is tight.
class Assignment {
 public:
  Assignment(const double* cost, index_t n)
      : cost_(cost), n_(n), v_(n), column_of_(n, -1), row_of_(n, -1), distance_(n), previous_(n), done_(n) {}

  std::vector<index_t> solve(std::vector<double>* duals) {
    std::vector<index_t> free_rows;
    if (duals != nullptr && !duals->empty()) {
      v_ = *duals;
      free_rows.resize(n_);
      std::iota(free_rows.begin(), free_rows.end(), index_t{0});
    } else {
      free_rows = reduce_columns();
    }
    for (int pass = 0; pass < 2; ++pass) free_rows = reduce_rows(std::move(free_rows));
    for (const index_t row : free_rows) augment(row);
    if (duals != nullptr) *duals = std::move(v_);
    return std::move(column_of_);
  }

 private:
  // v_j = min_i cost_ij; each column goes to the row of its minimum, last columns first. Then a row with one column
  // gives as much of its dual to the column as stays feasible. Returns the rows left without a column.
  std::vector<index_t> reduce_columns() {
    std::vector<index_t> row_of_min(n_, 0), matches(n_, 0), free_rows;
    std::copy_n(cost_, n_, v_.begin());
    for (index_t i = 1; i < n_; ++i) {
      const double* row = cost_ + i * n_;
      for (index_t j = 0; j < n_; ++j) {
        if (row[j] < v_[j]) {
          v_[j] = row[j];
          row_of_min[j] = i;
        }
      }
    }
    for (index_t j = n_ - 1; j >= 0; --j) {
      const index_t i = row_of_min[j];
      if (matches[i]++ == 0) {
        column_of_[i] = j;
        row_of_[j] = i;
      }
    }
    for (index_t i = 0; i < n_; ++i) {
      if (matches[i] == 0) {
        free_rows.push_back(i);
      } else if (matches[i] == 1) {
        const index_t taken = column_of_[i];
        const double* row = cost_ + i * n_;
        double slack = kInfinity;
        for (index_t j = 0; j < n_; ++j) {
          if (j != taken) slack = std::min(slack, row[j] - v_[j]);
        }
        if (slack < kInfinity) v_[taken] -= slack;
      }
    }
    return free_rows;
  }

  // Each free row takes its cheapest column and lowers that column's dual until the second cheapest ties; whoever had
  // the column is free again. Returns the rows still free.
  std::vector<index_t> reduce_rows(std::vector<index_t> free_rows) {
    std::vector<index_t> still_free;
    std::reverse(free_rows.begin(), free_rows.end());
    // Rounding can make the chain of evictions as long as the costs have bits; the augmentation below needs no such
    // luck.
    index_t budget = 4 * n_ + 4 * static_cast<index_t>(free_rows.size());
    while (!free_rows.empty()) {
      const index_t i = free_rows.back();
      free_rows.pop_back();
      if (n_ == 1 || budget-- <= 0) {
        still_free.push_back(i);
        continue;
      }
      const double* row = cost_ + i * n_;
      index_t first = -1, second = -1;
      double lowest = kInfinity, next = kInfinity;
      for (index_t j = 0; j < n_; ++j) {
        const double h = row[j] - v_[j];
        if (h < lowest) {
          next = lowest;
          second = first;
          lowest = h;
          first = j;
        } else if (h < next) {
          next = h;
          second = j;
        }
      }
      const double lowered = v_[first] - (next - lowest);
      const bool lowers = lowered < v_[first];
      if (lowers) {
        v_[first] = lowered;
      } else if (row_of_[first] >= 0) {
        first = second;
      }
      const index_t evicted = row_of_[first];
      column_of_[i] = first;
      row_of_[first] = i;
      if (evicted >= 0) {
        column_of_[evicted] = -1;
        (lowers ? free_rows : still_free).push_back(evicted);
      }
    }
    return still_free;
  }

  // Dijkstra over the columns from one free row to the nearest free column, then the duals of the columns passed.
  void augment(index_t start) {
    std::fill(distance_.begin(), distance_.end(), kInfinity);
    std::fill(done_.begin(), done_.end(), char{0});
    std::vector<index_t> passed;
    index_t i = start, sink = -1;
    double shortest = 0;
    double offset = 0;  // reduced cost of the tight pair the path came through
    while (sink < 0) {
      const double* row = cost_ + i * n_;
      double nearest = kInfinity;
      index_t next = -1;
      for (index_t j = 0; j < n_; ++j) {
        if (done_[j]) continue;
        const double d = row[j] - v_[j] - offset + shortest;
        if (d < distance_[j]) {
          distance_[j] = d;
          previous_[j] = i;
        }
        // Among equals a free column ends the search at once.
        if (distance_[j] < nearest || (distance_[j] == nearest && row_of_[j] < 0 && row_of_[next] >= 0)) {
          nearest = distance_[j];
          next = j;
        }
      }
      shortest = nearest;
      if (row_of_[next] < 0) {
        sink = next;
      } else {
        done_[next] = 1;
        passed.push_back(next);
        i = row_of_[next];
        offset = cost_[i * n_ + next] - v_[next];
      }
    }
    for (const index_t j : passed) v_[j] += distance_[j] - shortest;
    index_t j = sink;
    while (true) {
      const index_t row = previous_[j];
      row_of_[j] = row;
      std::swap(column_of_[row], j);
      if (row == start) break;
    }
  }

  const double* cost_;
  index_t n_;
  std::vector<double> v_;
  std::vector<index_t> column_of_, row_of_;
  std::vector<double> distance_;
  std::vector<index_t> previous_;
  std::vector<char> done_;
};

void require_square(std::span<const double> cost, index_t n) {
  if (n < 0 || cost.size() != static_cast<std::size_t>(n) * static_cast<std::size_t>(n)) {
    throw InvalidArgument("cost",
                          "expected n^2 entries for n = " + std::to_string(n) + ", got " + std::to_string(cost.size()));
  }
}

}  // namespace

std::vector<index_t> solve_assignment(std::span<const double> cost, index_t n) {
  require_square(cost, n);
  return Assignment(cost.data(), n).solve(nullptr);
}

std::vector<index_t> solve_assignment(std::span<const double> cost, index_t n, std::vector<double>& duals) {
  require_square(cost, n);
  if (!duals.empty() && duals.size() != static_cast<std::size_t>(n)) {
    throw InvalidArgument("duals",
                          "expected none or n = " + std::to_string(n) + ", got " + std::to_string(duals.size()));
  }
  return Assignment(cost.data(), n).solve(&duals);
}

}  // namespace brockett
