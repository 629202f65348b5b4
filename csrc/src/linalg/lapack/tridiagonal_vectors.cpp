// Inverse iteration (Wilkinson 1958; Ipsen, SIAM Review 39 (1997) 254): x <- (T - lambda)^-1 x by LU with partial pivoting.
// One factorization is a chain of divisions, each waiting for the one before; kLanes eigenvalues side by side hide that.
#include "linalg/lapack/tridiagonal_vectors.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "linalg/lapack/memory.hpp"

namespace brockett::linalg::lapack {
namespace {

constexpr int kLanes = 8;
// The first solve needs the upper factor alone (its start is as random before the lower one as behind it). Two whole ones
// after it: one is enough unless the start happens to be all but orthogonal to the vector.
constexpr int kWholeSolves = 2;

template <class T>
struct alignas(64) Lanes {
  T at[kLanes];
  T& operator[](int l) { return at[l]; }
  const T& operator[](int l) const { return at[l]; }
};

// Row i of P (T - lambda) = L U for each lane: U has three diagonals, L one multiplier.
template <class T>
struct Row {
  Lanes<T> pivot, first, second, multiplier, swapped;
};

// Bits of a 64-bit counter, well mixed (Steele, Lea, Flood, OOPSLA 2014), as a number in [-1, 1).
template <class T>
T scrambled(std::uint64_t counter) {
  std::uint64_t z = (counter + 1) * 0x9E3779B97F4A7C15ULL;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
  return static_cast<T>(static_cast<double>(static_cast<std::int64_t>(z ^ (z >> 31))) * 0x1p-63);
}

template <class T>
void factor(index_t n, const T* d, const T* e, const Lanes<T>& lambda, Row<T>* rows) {
  constexpr T eps = std::numeric_limits<T>::epsilon();
  Lanes<T> a, b;  // the row that is being eliminated: diagonal and what is right of it
  for (int l = 0; l < kLanes; ++l) {
    a[l] = d[0] - lambda[l];
    b[l] = n > 1 ? e[0] : T{0};
  }
  for (index_t i = 0; i + 1 < n; ++i) {
    const T below = e[i], diagonal = d[i + 1], right = i + 2 < n ? e[i + 1] : T{0};
    Row<T>& row = rows[i];
    for (int l = 0; l < kLanes; ++l) {
      const T shifted = diagonal - lambda[l];
      const bool swap = std::abs(below) > std::abs(a[l]);
      T pivot = swap ? below : a[l];
      const T other = swap ? a[l] : below;
      pivot = std::abs(pivot) < eps ? (pivot < T{0} ? -eps : eps) : pivot;
      const T m = other / pivot;
      const T first = swap ? shifted : b[l], second = swap ? right : T{0};
      row.pivot[l] = pivot;
      row.first[l] = first;
      row.second[l] = second;
      row.multiplier[l] = m;
      row.swapped[l] = swap ? T{1} : T{0};
      a[l] = (swap ? b[l] : shifted) - m * first;
      b[l] = (swap ? T{0} : right) - m * second;
    }
  }
  Row<T>& last = rows[n - 1];
  for (int l = 0; l < kLanes; ++l) {
    last.pivot[l] = std::abs(a[l]) < eps ? (a[l] < T{0} ? -eps : eps) : a[l];
    last.first[l] = last.second[l] = T{0};
  }
}

template <class T>
void forward(index_t n, const Row<T>* rows, Lanes<T>* x) {
  for (index_t i = 0; i + 1 < n; ++i) {
    const Row<T>& row = rows[i];
    for (int l = 0; l < kLanes; ++l) {
      const bool swap = row.swapped[l] != T{0};
      const T here = swap ? x[i + 1][l] : x[i][l], next = swap ? x[i][l] : x[i + 1][l];
      x[i][l] = here;
      x[i + 1][l] = next - row.multiplier[l] * here;
    }
  }
}

// U x = x, and the squares of the norms of what comes out.
template <class T>
Lanes<T> backward(index_t n, const Row<T>* rows, Lanes<T>* x) {
  Lanes<T> one{}, two{}, squares{};  // x_{i+1}, x_{i+2}
  for (index_t i = n - 1; i >= 0; --i) {
    const Row<T>& row = rows[i];
    for (int l = 0; l < kLanes; ++l) {
      const T v = (x[i][l] - row.first[l] * one[l] - row.second[l] * two[l]) / row.pivot[l];
      two[l] = one[l];
      one[l] = v;
      x[i][l] = v;
      squares[l] += v * v;
    }
  }
  return squares;
}

// T and the eigenvalues are used divided by a power of two, so that no entry is above 1 and no square leaves the range.
template <class T>
T scale_of(index_t n, const T* d, const T* e) {
  T largest = 0;
  for (index_t i = 0; i < n; ++i) largest = std::max(largest, std::abs(d[i]));
  for (index_t i = 0; i + 1 < n; ++i) largest = std::max(largest, std::abs(e[i]));
  return largest > T{0} ? std::ldexp(T{1}, -std::ilogb(largest) - 1) : T{1};
}

}  // namespace

template <class T>
void tridiagonal_vectors(const T* d, const T* e, const T* values, Mat<T> V) {
  const index_t n = V.rows, count = V.cols;
  if (n == 0 || count == 0) return;
  const T scale = scale_of(n, d, e);
  Scratch<T> diagonal(n), beside(std::max<index_t>(1, n - 1));
  for (index_t i = 0; i < n; ++i) diagonal[i] = d[i] * scale;
  for (index_t i = 0; i + 1 < n; ++i) beside[i] = e[i] * scale;
  Scratch<Row<T>> rows(n);
  Scratch<Lanes<T>> x(n);
  for (index_t first = 0; first < count; first += kLanes) {
    const int live = static_cast<int>(std::min<index_t>(kLanes, count - first));
    Lanes<T> lambda;
    for (int l = 0; l < kLanes; ++l) lambda[l] = values[first + std::min(l, live - 1)] * scale;
    factor(n, diagonal.data(), beside.data(), lambda, rows.data());
    for (index_t i = 0; i < n; ++i) {
      for (int l = 0; l < kLanes; ++l) x[i][l] = scrambled<T>(static_cast<std::uint64_t>((first + l) * n + i));
    }
    Lanes<T> squares = backward(n, rows.data(), x.data());
    const auto normalize = [&] {
      Lanes<T> inverse;
      for (int l = 0; l < kLanes; ++l) inverse[l] = T{1} / std::sqrt(squares[l]);
      for (index_t i = 0; i < n; ++i) {
        for (int l = 0; l < kLanes; ++l) x[i][l] *= inverse[l];
      }
    };
    for (int solve = 0; solve < kWholeSolves; ++solve) {
      normalize();
      forward(n, rows.data(), x.data());
      squares = backward(n, rows.data(), x.data());
    }
    normalize();
    for (int l = 0; l < live; ++l) {
      T* column = V.data + (first + l) * V.ld;
      for (index_t i = 0; i < n; ++i) column[i] = x[i][l];
    }
  }
}

template <class T>
double rayleigh_quotients(const T* d, const T* e, Mat<const T> V, T* values) {
  const index_t n = V.rows;
  if (n == 0 || V.cols == 0) return 0;
  const T scale = scale_of(n, d, e);
  Scratch<T> Tx(n);
  double worst = 0;
  for (index_t j = 0; j < V.cols; ++j) {
    const T* x = V.data + j * V.ld;
    double quotient = 0, squares = 0;
    for (index_t i = 0; i < n; ++i) {
      T y = d[i] * scale * x[i];
      if (i > 0) y += e[i - 1] * scale * x[i - 1];
      if (i + 1 < n) y += e[i] * scale * x[i + 1];
      Tx[i] = y;
      quotient += static_cast<double>(x[i]) * static_cast<double>(y);
    }
    for (index_t i = 0; i < n; ++i) {
      const double r = static_cast<double>(Tx[i]) - quotient * static_cast<double>(x[i]);
      squares += r * r;
    }
    values[j] = static_cast<T>(quotient / static_cast<double>(scale));
    if (!(squares <= worst)) worst = std::isnan(worst) ? worst : squares;  // a NaN comes in, and stays
  }
  return std::sqrt(worst);
}

template void tridiagonal_vectors<float>(const float*, const float*, const float*, Mat<float>);
template void tridiagonal_vectors<double>(const double*, const double*, const double*, Mat<double>);
template double rayleigh_quotients<float>(const float*, const float*, Mat<const float>, float*);
template double rayleigh_quotients<double>(const double*, const double*, Mat<const double>, double*);

}  // namespace brockett::linalg::lapack
