// What the topics are compared to, made without brockett: textbook loops and Jacobi rotations in long double, brute force.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <limits>
#include <numbers>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "brockett/autocorrelation.hpp"
#include "brockett/error.hpp"
#include "engines.hpp"
#include "host_matrix.hpp"

namespace brockett::test {

using Real = long double;
using RealMatrix = HostMatrix<Real>;

// --- plain algebra ----------------------------------------------------------------------------------------------------

template <class T>
RealMatrix real(const HostMatrix<T>& A) {
  return A.template as<Real>();
}

/// A B in long double.
template <class T, class U>
RealMatrix times(const HostMatrix<T>& A, const HostMatrix<U>& B) {
  RealMatrix C(A.rows, B.cols);
  for (index_t j = 0; j < B.cols; ++j) {
    for (index_t k = 0; k < A.cols; ++k) {
      const auto b = static_cast<Real>(B(k, j));
      for (index_t i = 0; i < A.rows; ++i) C(i, j) += static_cast<Real>(A(i, k)) * b;
    }
  }
  return C;
}

/// A + alpha B
inline RealMatrix plus(const RealMatrix& A, Real alpha, const RealMatrix& B) {
  RealMatrix C = A;
  for (std::size_t i = 0; i < C.data.size(); ++i) C.data[i] += alpha * B.data[i];
  return C;
}

template <class T>
Real frobenius(const HostMatrix<T>& A) {
  Real sum = 0;
  for (const T x : A.data) sum += static_cast<Real>(x) * static_cast<Real>(x);
  return std::sqrt(sum);
}

inline Real trace(const RealMatrix& A) {
  Real sum = 0;
  for (index_t i = 0; i < std::min(A.rows, A.cols); ++i) sum += A(i, i);
  return sum;
}

/// tr(A P C P^T)
template <class T>
Real brockett_trace(const RealMatrix& A, const HostMatrix<T>& P, const RealMatrix& C) {
  return trace(times(A, times(times(P, C), P.transposed())));
}

inline RealMatrix power(const RealMatrix& A, int p) {
  RealMatrix out = RealMatrix::identity(A.rows);
  for (int i = 0; i < p; ++i) out = times(out, A);
  return out;
}

/// det A by elimination with partial pivoting.
template <class T>
Real determinant(const HostMatrix<T>& matrix) {
  RealMatrix A = real(matrix);
  Real det = 1;
  for (index_t k = 0; k < A.rows; ++k) {
    index_t p = k;
    for (index_t i = k + 1; i < A.rows; ++i) p = std::abs(A(i, k)) > std::abs(A(p, k)) ? i : p;
    if (A(p, k) == 0) return 0;
    if (p != k) {
      det = -det;
      for (index_t j = 0; j < A.rows; ++j) std::swap(A(k, j), A(p, j));
    }
    det *= A(k, k);
    for (index_t i = k + 1; i < A.rows; ++i) {
      const Real f = A(i, k) / A(k, k);
      for (index_t j = k; j < A.rows; ++j) A(i, j) -= f * A(k, j);
    }
  }
  return det;
}

// --- decompositions by Jacobi rotations -----------------------------------------------------------------------------------

/// A = V diag(values) V^T, ascending.
struct Spectrum {
  std::vector<Real> values;
  RealMatrix vectors;
};

inline Spectrum jacobi_eigen(RealMatrix A) {
  const index_t n = A.rows;
  RealMatrix V = RealMatrix::identity(n);
  const Real small = std::numeric_limits<Real>::epsilon() * frobenius(A);
  for (int sweep = 0; sweep < 60; ++sweep) {
    Real off = 0;
    for (index_t p = 0; p < n; ++p) {
      for (index_t q = p + 1; q < n; ++q) {
        const Real a = A(p, q);
        off = std::max(off, std::abs(a));
        if (a == 0) continue;
        const Real theta = (A(q, q) - A(p, p)) / (2 * a);
        const Real t = (theta < 0 ? -1 : 1) / (std::abs(theta) + std::hypot(Real{1}, theta));
        const Real c = 1 / std::hypot(Real{1}, t), s = t * c;
        for (index_t k = 0; k < n; ++k) {
          const Real x = A(k, p), y = A(k, q);
          A(k, p) = c * x - s * y;
          A(k, q) = s * x + c * y;
        }
        for (index_t k = 0; k < n; ++k) {
          const Real x = A(p, k), y = A(q, k);
          A(p, k) = c * x - s * y;
          A(q, k) = s * x + c * y;
        }
        for (index_t k = 0; k < n; ++k) {
          const Real x = V(k, p), y = V(k, q);
          V(k, p) = c * x - s * y;
          V(k, q) = s * x + c * y;
        }
      }
    }
    if (off <= small) break;
  }
  std::vector<index_t> order(static_cast<std::size_t>(n));
  std::iota(order.begin(), order.end(), index_t{0});
  std::sort(order.begin(), order.end(), [&](index_t a, index_t b) { return A(a, a) < A(b, b); });
  Spectrum out{{}, RealMatrix(n, n)};
  for (index_t i = 0; i < n; ++i) {
    const index_t from = order[static_cast<std::size_t>(i)];
    out.values.push_back(A(from, from));
    for (index_t k = 0; k < n; ++k) out.vectors(k, i) = V(k, from);
  }
  return out;
}

/// Columns that are not yet of unit length <- an orthonormal completion of those that are.
inline void complete_basis(RealMatrix& U) {
  for (index_t j = 0; j < U.cols; ++j) {
    for (index_t axis = 0; frobenius(U.block(0, j, U.rows, 1)) < 0.5L; ++axis) {
      for (index_t i = 0; i < U.rows; ++i) U(i, j) = i == axis ? 1 : 0;
      for (int pass = 0; pass < 2; ++pass) {
        for (index_t k = 0; k < U.cols; ++k) {
          if (k == j) continue;
          Real d = 0;
          for (index_t i = 0; i < U.rows; ++i) d += U(i, k) * U(i, j);
          for (index_t i = 0; i < U.rows; ++i) U(i, j) -= d * U(i, k);
        }
      }
      const Real norm = frobenius(U.block(0, j, U.rows, 1));
      for (index_t i = 0; i < U.rows; ++i) U(i, j) = norm > 1e-6L ? U(i, j) / norm : 0;
    }
  }
}

/// A = U diag(s) V^T, descending, U (m x k), V (n x k), k = min(m, n). One-sided: small values keep their digits.
struct ThinSvd {
  RealMatrix U;
  std::vector<Real> s;
  RealMatrix V;
};

inline ThinSvd jacobi_svd(RealMatrix A) {
  if (A.rows < A.cols) {
    ThinSvd t = jacobi_svd(A.transposed());
    std::swap(t.U, t.V);
    return t;
  }
  const index_t m = A.rows, n = A.cols;
  RealMatrix V = RealMatrix::identity(n);
  for (int sweep = 0; sweep < 60; ++sweep) {
    bool rotated = false;
    for (index_t p = 0; p < n; ++p) {
      for (index_t q = p + 1; q < n; ++q) {
        Real a = 0, b = 0, c = 0;
        for (index_t k = 0; k < m; ++k) {
          a += A(k, p) * A(k, p);
          b += A(k, q) * A(k, q);
          c += A(k, p) * A(k, q);
        }
        if (c == 0 || std::abs(c) <= 4 * std::numeric_limits<Real>::epsilon() * std::sqrt(a) * std::sqrt(b)) continue;
        rotated = true;
        const Real theta = (b - a) / (2 * c);
        const Real t = (theta < 0 ? -1 : 1) / (std::abs(theta) + std::hypot(Real{1}, theta));
        const Real cs = 1 / std::hypot(Real{1}, t), sn = t * cs;
        for (RealMatrix* M : {&A, &V}) {
          for (index_t k = 0; k < M->rows; ++k) {
            const Real x = (*M)(k, p), y = (*M)(k, q);
            (*M)(k, p) = cs * x - sn * y;
            (*M)(k, q) = sn * x + cs * y;
          }
        }
      }
    }
    if (!rotated) break;
  }
  std::vector<Real> norms;
  for (index_t j = 0; j < n; ++j) norms.push_back(frobenius(A.block(0, j, m, 1)));
  std::vector<index_t> order(norms.size());
  std::iota(order.begin(), order.end(), index_t{0});
  std::sort(order.begin(), order.end(), [&](index_t x, index_t y) {
    return norms[static_cast<std::size_t>(x)] > norms[static_cast<std::size_t>(y)];
  });
  ThinSvd out{RealMatrix(m, n), {}, RealMatrix(n, n)};
  for (index_t j = 0; j < n; ++j) {
    const index_t from = order[static_cast<std::size_t>(j)];
    const Real s = norms[static_cast<std::size_t>(from)];
    out.s.push_back(s);
    for (index_t i = 0; i < n; ++i) out.V(i, j) = V(i, from);
    for (index_t i = 0; i < m; ++i) out.U(i, j) = s > 0 ? A(i, from) / s : 0;
  }
  complete_basis(out.U);
  return out;
}

/// The orthogonal matrix nearest to A.
inline RealMatrix polar_factor(const RealMatrix& A) {
  const ThinSvd t = jacobi_svd(A);
  return times(t.U, t.V.transposed());
}

// --- random matrices with known properties ------------------------------------------------------------------------------

inline RealMatrix random_real(index_t rows, index_t cols, unsigned seed) {
  return real(HostMatrix<double>::random(rows, cols, seed));
}

/// Q (m x n, m >= n) with orthonormal columns, Haar-distributed: Gram-Schmidt, twice.
inline RealMatrix random_orthonormal(index_t m, index_t n, unsigned seed) {
  RealMatrix Q = random_real(m, n, seed);
  for (int pass = 0; pass < 2; ++pass) {
    for (index_t j = 0; j < n; ++j) {
      for (index_t k = 0; k < j; ++k) {
        Real d = 0;
        for (index_t i = 0; i < m; ++i) d += Q(i, k) * Q(i, j);
        for (index_t i = 0; i < m; ++i) Q(i, j) -= d * Q(i, k);
      }
      const Real norm = frobenius(Q.block(0, j, m, 1));
      for (index_t i = 0; i < m; ++i) Q(i, j) /= norm;
    }
  }
  return Q;
}

/// exp-like small rotation: the orthogonal factor of I + size * (random matrix).
inline RealMatrix random_near_identity(index_t n, Real size, unsigned seed) {
  RealMatrix Q = plus(RealMatrix::identity(n), size, random_real(n, n, seed));
  for (int pass = 0; pass < 2; ++pass) {
    for (index_t j = 0; j < n; ++j) {
      for (index_t k = 0; k < j; ++k) {
        Real d = 0;
        for (index_t i = 0; i < n; ++i) d += Q(i, k) * Q(i, j);
        for (index_t i = 0; i < n; ++i) Q(i, j) -= d * Q(i, k);
      }
      const Real norm = frobenius(Q.block(0, j, n, 1));
      for (index_t i = 0; i < n; ++i) Q(i, j) /= norm;
    }
  }
  return Q;
}

/// U diag(s) V^T with random U (m x k), V (n x k).
inline RealMatrix with_singular_values(index_t m, index_t n, const std::vector<Real>& s, unsigned seed) {
  const auto k = static_cast<index_t>(s.size());
  return times(times(random_orthonormal(m, k, seed), RealMatrix::diagonal(s)),
               random_orthonormal(n, k, seed + 1000).transposed());
}

/// Symmetric positive semidefinite with these eigenvalues.
inline RealMatrix with_eigenvalues(const std::vector<Real>& values, unsigned seed) {
  const auto n = static_cast<index_t>(values.size());
  const RealMatrix Q = random_orthonormal(n, n, seed);
  RealMatrix C = times(times(Q, RealMatrix::diagonal(values)), Q.transposed());
  for (index_t i = 0; i < n; ++i) {
    for (index_t j = 0; j < i; ++j) C(j, i) = C(i, j);
  }
  return C;
}

// --- second moments ---------------------------------------------------------------------------------------------------

struct SampleMoments {
  RealMatrix R;  ///< sum w x x^T / sum w, about the mean where asked
  std::vector<Real> mean;
  Real weight = 0;
  index_t n_samples = 0;
};

/// Of the columns of X; two passes. Columns of weight 0 are not looked at.
template <class T>
SampleMoments sample_moments(const HostMatrix<T>& X, const std::vector<double>& weights = {}, bool center = false) {
  const index_t n = X.rows;
  SampleMoments out{RealMatrix(n, n), std::vector<Real>(static_cast<std::size_t>(n)), 0, 0};
  const auto w = [&](index_t j) { return weights.empty() ? Real{1} : Real{weights[static_cast<std::size_t>(j)]}; };
  for (index_t j = 0; j < X.cols; ++j) {
    if (w(j) == 0) continue;
    out.weight += w(j);
    ++out.n_samples;
    for (index_t i = 0; i < n; ++i) out.mean[static_cast<std::size_t>(i)] += w(j) * static_cast<Real>(X(i, j));
  }
  for (Real& m : out.mean) m /= out.weight;
  for (index_t j = 0; j < X.cols; ++j) {
    if (w(j) == 0) continue;
    for (index_t a = 0; a < n; ++a) {
      const Real x = static_cast<Real>(X(a, j)) - (center ? out.mean[static_cast<std::size_t>(a)] : 0);
      for (index_t b = 0; b < n; ++b) {
        const Real y = static_cast<Real>(X(b, j)) - (center ? out.mean[static_cast<std::size_t>(b)] : 0);
        out.R(a, b) += w(j) * x * y / out.weight;
      }
    }
  }
  return out;
}

// --- penalties ----------------------------------------------------------------------------------------------------------

inline Real two_pi_over(index_t numerator, index_t n) {  // 2 pi numerator / n, reduced first
  numerator %= n;
  if (numerator < 0) numerator += n;
  return 2 * std::numbers::pi_v<Real> * static_cast<Real>(numerator) / static_cast<Real>(n);
}

/// The circulant matrix (1/n) sum_k symbol(|k|) cos(2 pi k (i - j) / n) over the n frequencies.
inline RealMatrix fourier_multiplier(index_t n, const std::function<Real(index_t)>& symbol) {
  RealMatrix A(n, n);
  for (index_t i = 0; i < n; ++i) {
    for (index_t j = 0; j < n; ++j) {
      for (index_t k = 0; k < n; ++k) {
        A(i, j) += symbol(std::min(k, n - k)) * std::cos(two_pi_over(k * (i - j), n)) / static_cast<Real>(n);
      }
    }
  }
  return A;
}

/// D^T D, D the spectral derivative with multiplier |k|^order.
inline RealMatrix fourier_penalty(index_t n, Real order) {
  return fourier_multiplier(
      n, [&](index_t k) { return k == 0 && order == 0 ? Real{1} : std::pow(static_cast<Real>(k), 2 * order); });
}

/// Laplacian of the cycle or the path of n points, to the given power.
inline RealMatrix difference_penalty(index_t n, int order, bool periodic) {
  RealMatrix L(n, n);
  for (index_t i = 0; i < (periodic ? n : n - 1); ++i) {
    const index_t j = (i + 1) % n;
    L(i, i) += 1, L(j, j) += 1;
    L(i, j) -= 1, L(j, i) -= 1;
  }
  return power(L, order);
}

inline RealMatrix kronecker(const RealMatrix& A, const RealMatrix& B) {
  RealMatrix C(A.rows * B.rows, A.cols * B.cols);
  for (index_t i = 0; i < C.rows; ++i) {
    for (index_t j = 0; j < C.cols; ++j) C(i, j) = A(i / B.rows, j / B.cols) * B(i % B.rows, j % B.cols);
  }
  return C;
}

/// (sum over the axes of -d^2/dx^2)^order, row-major flattening.
inline RealMatrix grid_penalty(const std::vector<index_t>& shape, int order, bool periodic) {
  RealMatrix sum(1, 1), identity = RealMatrix::identity(1);
  for (const index_t n : shape) {
    RealMatrix axis(n, n);
    if (periodic) {
      axis = fourier_penalty(n, 1);
    } else {
      for (index_t k = 1; k < n; ++k) {  // cosines of the reflected axis; (pi k / n)^2
        const Real f = std::numbers::pi_v<Real> * static_cast<Real>(k) / static_cast<Real>(n);
        for (index_t i = 0; i < n; ++i) {
          for (index_t j = 0; j < n; ++j) {
            axis(i, j) += f * f * 2 / static_cast<Real>(n) * std::cos(f * (static_cast<Real>(i) + 0.5L)) *
                          std::cos(f * (static_cast<Real>(j) + 0.5L));
          }
        }
      }
    }
    sum = plus(kronecker(sum, RealMatrix::identity(n)), 1, kronecker(identity, axis));
    identity = RealMatrix::identity(sum.rows);
  }
  return power(sum, order);
}

/// Starts of runs of values that differ by no more than `tolerance` from their neighbour, and the length.
inline std::vector<index_t> runs(const std::vector<Real>& values, Real tolerance) {
  std::vector<index_t> starts{0};
  for (std::size_t i = 1; i < values.size(); ++i) {
    if (std::abs(values[i] - values[i - 1]) > tolerance) starts.push_back(static_cast<index_t>(i));
  }
  starts.push_back(static_cast<index_t>(values.size()));
  return starts;
}

/// sum_i ascending(A)_i descending(C)_i, the least tr(A P C P^T) over orthogonal P.
inline Real least_cost(const RealMatrix& A, const RealMatrix& C) {
  const auto a = jacobi_eigen(A).values, c = jacobi_eigen(C).values;
  Real sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * c[c.size() - 1 - i];
  return sum;
}

/// The least tr(A P C P^T) over all n! permutations.
inline Real least_permutation_cost(const RealMatrix& A, const RealMatrix& C) {
  std::vector<index_t> p(static_cast<std::size_t>(A.rows));
  std::iota(p.begin(), p.end(), index_t{0});
  Real best = std::numeric_limits<Real>::infinity();
  do {
    Real cost = 0;
    for (index_t i = 0; i < A.rows; ++i) {
      for (index_t j = 0; j < A.rows; ++j)
        cost += A(i, j) * C(p[static_cast<std::size_t>(i)], p[static_cast<std::size_t>(j)]);
    }
    best = std::min(best, cost);
  } while (std::next_permutation(p.begin(), p.end()));
  return best;
}

// --- samples ------------------------------------------------------------------------------------------------------------

template <class T>
constexpr DType dtype_tag() {
  return std::is_same_v<T, float> ? DType::float32 : DType::float64;
}

/// Samples that lie in the columns of X.
template <class T>
SampleView samples_of(const DeviceMatrix<T>& X) {
  const auto M = X.mat();
  return {dtype_tag<T>(), M.data, M.cols, M.rows, M.ld};
}

/// Bits of x in float16 or bfloat16; x must be representable.
inline std::uint16_t half_bits(DType type, double x) {
  const auto sign = static_cast<std::uint16_t>(std::signbit(x) ? 0x8000 : 0);
  if (type == DType::bfloat16) {
    const auto f = static_cast<float>(x);
    std::uint32_t bits = 0;
    std::memcpy(&bits, &f, sizeof bits);
    return static_cast<std::uint16_t>(bits >> 16);
  }
  if (std::isinf(x)) return static_cast<std::uint16_t>(sign | 0x7C00);
  if (std::isnan(x)) return 0x7E00;
  const double a = std::abs(x);
  if (a < 0x1p-14) return static_cast<std::uint16_t>(sign | static_cast<std::uint16_t>(a * 0x1p24));  // subnormal
  int e = 0;
  const double m = std::frexp(a, &e);  // a = m 2^e, m in [1/2, 1)
  return static_cast<std::uint16_t>(sign | (e + 14) << 10 | (static_cast<int>(m * 2048) - 1024));
}

// --- errors -------------------------------------------------------------------------------------------------------------

/// The argument that f's InvalidArgument names; "" where f throws nothing, what it threw else.
inline std::string refused_argument(const std::function<void()>& f) {
  try {
    f();
  } catch (const InvalidArgument& e) {
    const std::string prefix = e.argument() + ": ";
    return std::string(e.what()).rfind(prefix, 0) == 0 ? e.argument()
                                                       : std::string("message lacks the name: ") + e.what();
  } catch (const std::exception& e) {
    return std::string("another exception: ") + e.what();
  }
  return "";
}

/// "name(row, column)" of f's NonFinite.
inline std::string nonfinite_index(const std::function<void()>& f) {
  try {
    f();
  } catch (const NonFinite& e) {
    return e.argument() + "(" + std::to_string(e.row()) + ", " + std::to_string(e.column()) + ")";
  } catch (const std::exception& e) {
    return std::string("another exception: ") + e.what();
  }
  return "";
}

/// Runs f(context) with an interrupt at the first check, then at the second, … until it gets through; returns the number of
/// interrupted runs. Every one must throw Interrupted.
template <class F>
int sweep_interrupts(const Context& context, F&& f) {
  for (int k = 0;; ++k) {
    Context c = context;
    auto left = std::make_shared<int>(k);
    c.set_interrupt([left] { return (*left)-- == 0; });
    try {
      f(c);
    } catch (const Interrupted&) {
      continue;
    }
    if (*left < 0) throw std::logic_error("an interrupt was swallowed");
    return k;
  }
}

}  // namespace brockett::test
