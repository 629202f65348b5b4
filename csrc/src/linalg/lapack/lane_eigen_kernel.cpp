// Householder reduction and QL iteration on the lanes of vector registers (lane_eigen.hpp). Compiled once for each
// instruction set, with BROCKETT_LANES doubles to a register and BROCKETT_LANE_EIGEN as the name of the result. Products
// are fused with sums here, and nothing of the standard library is used: an inline function of it, compiled for this
// instruction set, could be the copy that the linker keeps for all others.
#include "linalg/lapack/lane_eigen.hpp"

namespace brockett::linalg::lapack {
namespace {

constexpr index_t kLanes = BROCKETT_LANES;
// Chains of QL run side by side: each step waits for a division, and two of them can wait together.
constexpr int kGroups = 2;
constexpr index_t kAll = kGroups * kLanes;

typedef double Lanes __attribute__((vector_size(kLanes * sizeof(double)), may_alias));
typedef decltype(Lanes{} > Lanes{}) Mask;  // 0 or -1, of 64 bits

constexpr double kEps = 0x1p-52;
// Squared norms below this are zero: columns of 1e-140 beside entries of 1.
constexpr double kNegligible = 1e-280;

inline Lanes root(Lanes x) {
  Lanes r;
  for (index_t l = 0; l < kLanes; ++l) r[l] = __builtin_sqrt(x[l]);
  return r;
}
inline Lanes larger(Lanes a, Lanes b) { return a > b ? a : b; }
inline Lanes zero() { return Lanes{}; }

// A power of two for each lane that brings the largest magnitude of its `count` numbers to 1, or to 2^-52 where all are
// subnormal; 1 for zeros, and where nothing can be squared out of range anyway.
Lanes in_range(index_t count, Lanes* A) {
  Lanes most = zero();
  for (index_t i = 0; i < count; ++i) most = larger(most, A[i] < 0 ? -A[i] : A[i]);
  Lanes scale = zero() + 1;
  bool any = false;
  for (index_t l = 0; l < kLanes; ++l) {
    if (most[l] == 0 || (most[l] >= 0x1p-30 && most[l] <= 0x1p30) || !(most[l] <= 0x1.fffffffffffffp1023)) continue;
    int exponent = 0;
    __builtin_frexp(most[l], &exponent);
    scale[l] = __builtin_ldexp(1.0, exponent < -1022 ? 1022 : -exponent);
    any = true;
  }
  if (any) {
    for (index_t i = 0; i < count; ++i) A[i] *= scale;
  }
  return scale;
}

/// Packed lower triangle: columns of n, n - 1, … entries, each of the real and, if Hermitian, the imaginary part.
template <int kParts>
inline Lanes* column(Lanes* A, index_t n, index_t j) {
  return A + kParts * (j * (2 * n - j + 1) / 2);
}

// A <- A - v w^* - w v^*, y <- A u on rows and columns first … n - 1: one pass over A. Two columns at a time, so that
// the vectors are read half as often.
template <int kParts, bool pending>
void update_and_multiply(index_t n, index_t first, Lanes* __restrict A, const Lanes* __restrict v,
                         const Lanes* __restrict w, const Lanes* __restrict u, Lanes* __restrict y) {
  for (index_t i = kParts * first; i < kParts * n; ++i) y[i] = zero();
  index_t j = first;
  if constexpr (kParts == 1) {
    for (; j + 1 < n; j += 2) {
      Lanes* __restrict p = column<1>(A, n, j);
      Lanes* __restrict q = column<1>(A, n, j + 1);
      const Lanes vj = v[j], wj = w[j], uj = u[j], vk = v[j + 1], wk = w[j + 1], uk = u[j + 1];
      if (pending) {
        p[0] -= 2 * vj * wj;
        p[1] = p[1] - vk * wj - wk * vj;
        q[0] -= 2 * vk * wk;
      }
      Lanes sj = p[0] * uj + p[1] * uk, sk = p[1] * uj + q[0] * uk;
      for (index_t i = j + 2; i < n; ++i) {
        const Lanes ui = u[i];
        Lanes a = p[i - j], b = q[i - j - 1];
        if (pending) {
          const Lanes vi = v[i], wi = w[i];
          a = a - vi * wj - wi * vj;
          b = b - vi * wk - wi * vk;
          p[i - j] = a;
          q[i - j - 1] = b;
        }
        y[i] = y[i] + a * uj + b * uk;
        sj += a * ui;
        sk += b * ui;
      }
      y[j] += sj;
      y[j + 1] += sk;
    }
    if (j < n) {
      Lanes* p = column<1>(A, n, j);
      if (pending) p[0] -= 2 * v[j] * w[j];
      y[j] += p[0] * u[j];
    }
    return;
  } else {
    for (; j + 1 < n; j += 2) {
      Lanes* __restrict p = column<2>(A, n, j);
      Lanes* __restrict q = column<2>(A, n, j + 1);
      const Lanes vjr = v[2 * j], vji = v[2 * j + 1], vkr = v[2 * j + 2], vki = v[2 * j + 3];
      const Lanes wjr = w[2 * j], wji = w[2 * j + 1], wkr = w[2 * j + 2], wki = w[2 * j + 3];
      const Lanes ujr = u[2 * j], uji = u[2 * j + 1], ukr = u[2 * j + 2], uki = u[2 * j + 3];
      if (pending) {
        p[0] -= 2 * (vjr * wjr + vji * wji);
        p[2] -= vkr * wjr + vki * wji + wkr * vjr + wki * vji;
        p[3] -= vki * wjr - vkr * wji + wki * vjr - wkr * vji;
        q[0] -= 2 * (vkr * wkr + vki * wki);
      }
      Lanes sjr = p[0] * ujr + p[2] * ukr + p[3] * uki, sji = p[0] * uji + p[2] * uki - p[3] * ukr;
      Lanes skr = p[2] * ujr - p[3] * uji + q[0] * ukr, ski = p[2] * uji + p[3] * ujr + q[0] * uki;
      for (index_t i = j + 2; i < n; ++i) {
        const Lanes ur = u[2 * i], ui = u[2 * i + 1];
        Lanes ar = p[2 * (i - j)], ai = p[2 * (i - j) + 1], br = q[2 * (i - j - 1)], bi = q[2 * (i - j - 1) + 1];
        if (pending) {
          const Lanes vr = v[2 * i], vi = v[2 * i + 1], wr = w[2 * i], wi = w[2 * i + 1];
          ar = ar - vr * wjr - vi * wji - wr * vjr - wi * vji;
          ai = ai - vi * wjr + vr * wji - wi * vjr + wr * vji;
          br = br - vr * wkr - vi * wki - wr * vkr - wi * vki;
          bi = bi - vi * wkr + vr * wki - wi * vkr + wr * vki;
          p[2 * (i - j)] = ar;
          p[2 * (i - j) + 1] = ai;
          q[2 * (i - j - 1)] = br;
          q[2 * (i - j - 1) + 1] = bi;
        }
        y[2 * i] = y[2 * i] + ar * ujr - ai * uji + br * ukr - bi * uki;
        y[2 * i + 1] = y[2 * i + 1] + ar * uji + ai * ujr + br * uki + bi * ukr;
        sjr = sjr + ar * ur + ai * ui;
        sji = sji + ar * ui - ai * ur;
        skr = skr + br * ur + bi * ui;
        ski = ski + br * ui - bi * ur;
      }
      y[2 * j] += sjr;
      y[2 * j + 1] += sji;
      y[2 * j + 2] += skr;
      y[2 * j + 3] += ski;
    }
    if (j < n) {
      Lanes* p = column<2>(A, n, j);
      if (pending) p[0] -= 2 * (v[2 * j] * w[2 * j] + v[2 * j + 1] * w[2 * j + 1]);
      y[2 * j] += p[0] * u[2 * j];
      y[2 * j + 1] += p[0] * u[2 * j + 1];
    }
  }
}

// d: diagonal, e: squared magnitudes below it, of the tridiagonal matrix; both `kGroups` apart. vectors: 4 kParts n.
//
// H_k = I - tau u u^*, u = a / ||a|| + phase(a_1) e_1, tau = 1 / (1 + |a_1| / ||a||), sends the part a of column k below
// the diagonal to a multiple of e_1, of magnitude ||a||; the phases of these do not matter to the eigenvalues.
// H A H = A - u w^* - w u^*, p = tau A u, w = p - (tau / 2)(u^* p) u (Golub and Van Loan, 8.3.1): done in the pass of the
// next column.
template <int kParts>
void tridiagonalize(index_t n, Lanes* A, Lanes* vectors, Lanes* d, Lanes* e) {
  Lanes *v = vectors, *w = v + kParts * n, *u = w + kParts * n, *y = u + kParts * n;
  for (index_t k = 0; k + 1 < n; ++k) {
    Lanes* a = column<kParts>(A, n, k);
    Lanes total = zero();
    if constexpr (kParts == 1) {
      if (k > 0) {
        const Lanes vk = v[k], wk = w[k];
        a[0] -= 2 * vk * wk;
        for (index_t i = k + 1; i < n; ++i) a[i - k] = a[i - k] - v[i] * wk - w[i] * vk;
      }
      for (index_t i = k + 1; i < n; ++i) total += a[i - k] * a[i - k];
    } else {
      if (k > 0) {
        const Lanes vkr = v[2 * k], vki = v[2 * k + 1], wkr = w[2 * k], wki = w[2 * k + 1];
        a[0] -= 2 * (vkr * wkr + vki * wki);
        for (index_t i = k + 1; i < n; ++i) {
          const Lanes vr = v[2 * i], vi = v[2 * i + 1], wr = w[2 * i], wi = w[2 * i + 1];
          a[2 * (i - k)] = a[2 * (i - k)] - vr * wkr - vi * wki - wr * vkr - wi * vki;
          a[2 * (i - k) + 1] = a[2 * (i - k) + 1] - vi * wkr + vr * wki - wi * vkr + wr * vki;
        }
      }
      for (index_t i = 2; i < 2 * (n - k); ++i) total += a[i] * a[i];
    }
    const Mask kept = total > kNegligible;
    total = kept ? total : zero();
    d[kGroups * k] = a[0];
    e[kGroups * k] = total;
    if (k + 2 == n) break;

    const Lanes one = zero() + 1;
    const Lanes inverse = kept ? 1 / root(kept ? total : one) : zero();
    Lanes magnitude = zero();
    for (index_t i = kParts; i < kParts * (n - k); ++i) u[i + kParts * k] = a[i] * inverse;
    Lanes* top = u + kParts * (k + 1);
    for (int part = 0; part < kParts; ++part) magnitude += top[part] * top[part];
    const Mask has_phase = magnitude > kNegligible;
    magnitude = has_phase ? root(magnitude) : zero();
    const Lanes over = has_phase ? 1 / (has_phase ? magnitude : one) : zero();
    for (int part = 0; part < kParts; ++part) {
      const Lanes phase = has_phase ? top[part] * over : (part == 0 ? one : zero());
      top[part] += kept ? phase : zero();
    }
    const Lanes tau = kept ? 1 / (1 + magnitude) : zero();

    if (k == 0) {
      update_and_multiply<kParts, false>(n, 1, A, v, w, u, y);
    } else {
      update_and_multiply<kParts, true>(n, k + 1, A, v, w, u, y);
    }
    Lanes inner = zero();  // u^* A u is real
    for (index_t i = kParts * (k + 1); i < kParts * n; ++i) inner += u[i] * y[i];
    const Lanes shift = tau * tau * inner / 2;
    for (index_t i = kParts * (k + 1); i < kParts * n; ++i) w[i] = tau * y[i] - shift * u[i];
    Lanes* free = v;
    v = u;
    u = free;
  }
  // n = 1 has nothing pending, n = 2 no reflector
  Lanes* last = column<kParts>(A, n, n - 1);
  if (n > 2) {
    for (int part = 0; part < kParts; ++part) last[0] -= 2 * v[kParts * (n - 1) + part] * w[kParts * (n - 1) + part];
  }
  d[kGroups * (n - 1)] = last[0];
  e[kGroups * (n - 1)] = zero();
}

/// The block lo … hi of the tridiagonal matrix that a lane works on; lo = n where it is done.
struct Block {
  std::int64_t lo[kAll], hi[kAll];
};

// Past what has converged, to the next block that has not.
inline void next_block(index_t n, index_t lane, const double* e, double negligible, Block& b) {
  std::int64_t lo = b.lo[lane];
  while (lo < n - 1 && e[lo * kAll + lane] <= negligible) ++lo;
  if (lo >= n - 1) {
    b.lo[lane] = n;
    b.hi[lane] = -1;
    return;
  }
  std::int64_t hi = lo + 1;
  while (hi < n - 1 && e[hi * kAll + lane] > negligible) ++hi;
  b.lo[lane] = lo;
  b.hi[lane] = hi;
}

// Root-free QL with Wilkinson's shift on every lane by itself, in step: all lanes walk up their blocks at once and only
// those within theirs change anything. Of step i, with c = p / r, s = bb / r (squares of cosine and sine):
//   r = p + e_i, e_{i+1} = s_old r, gamma = c (d_i - sigma) - s gamma_old, d_{i+1} = gamma_old + (d_i - gamma),
//   p = gamma^2 / c,
// written with 1 / r and r / p, which need not wait for each other.
unsigned ql(index_t n, index_t count, double* d, double* e) {
  Lanes* const D = reinterpret_cast<Lanes*>(d);
  Lanes* const E = reinterpret_cast<Lanes*>(e);
  Lanes threshold[kGroups];
  for (int g = 0; g < kGroups; ++g) {
    Lanes most = zero();
    for (index_t i = 0; i < n; ++i)
      most = larger(most, larger(D[i * kGroups + g] * D[i * kGroups + g], E[i * kGroups + g]));
    // entries of eps times the norm: all that are dropped move the eigenvalues by twice that. An eighth of it is below
    // the rounding of the diagonal, and in clusters never reached.
    threshold[g] = most * (kEps * kEps);
  }
  const double* negligible = reinterpret_cast<const double*>(threshold);
  Block b;
  for (index_t l = 0; l < kAll; ++l) {
    b.lo[l] = 0;
    if (l < count) {
      next_block(n, l, e, negligible[l], b);
    } else {
      b.lo[l] = n, b.hi[l] = -1;
    }
  }
  // 30 sweeps a value as in LAPACK; random matrices take 1.7
  for (index_t sweep = 0; sweep < 30 * n; ++sweep) {
    std::int64_t from = n, to = -1;
    alignas(Lanes) double shifts[kAll], starts[kAll];
    alignas(Lanes) std::int64_t los[kAll], his[kAll], splits[kAll];
    for (index_t l = 0; l < kAll; ++l) {
      const std::int64_t lo = b.lo[l], hi = b.hi[l];
      los[l] = lo;
      his[l] = splits[l] = hi;
      shifts[l] = starts[l] = 0;
      if (lo >= n) continue;
      from = lo < from ? lo : from;
      to = hi > to ? hi : to;
      const double first = d[lo * kAll + l], square = e[lo * kAll + l];
      const double half = (d[(lo + 1) * kAll + l] - first) / 2, far = __builtin_sqrt(half * half + square);
      shifts[l] = first - square / (half < 0 ? half - far : half + far);
      starts[l] = d[hi * kAll + l] - shifts[l];
    }
    if (to < 0) break;
    Lanes sigma[kGroups], gamma[kGroups], p[kGroups], c[kGroups], s[kGroups];
    Mask lo[kGroups], hi[kGroups], split[kGroups];
    for (int g = 0; g < kGroups; ++g) {
      sigma[g] = reinterpret_cast<const Lanes*>(shifts)[g];
      gamma[g] = reinterpret_cast<const Lanes*>(starts)[g];
      lo[g] = reinterpret_cast<const Mask*>(los)[g];
      hi[g] = reinterpret_cast<const Mask*>(his)[g];
      split[g] = hi[g];
      p[g] = gamma[g] * gamma[g];
      c[g] = zero() + 1;
      s[g] = zero();
    }
    for (std::int64_t i = to - 1; i >= from; --i) {
#pragma GCC unroll 2
      for (int g = 0; g < kGroups; ++g) {
        const Lanes bb = E[i * kGroups + g], alpha = D[i * kGroups + g];
        const Mask active = (lo[g] <= i) & (hi[g] > i);
        const Lanes r = p[g] + bb, inverse = 1 / r, ratio = r / p[g];
        const Lanes below = s[g] * r, cosine = p[g] * inverse;
        const Lanes next = (p[g] * (alpha - sigma[g]) - bb * gamma[g]) * inverse;
        // cosine 0: its limit; 1e-200 leaves what is beside it its digits
        const Lanes square = cosine > 1e-200 ? next * next * ratio : c[g] * bb;
        E[(i + 1) * kGroups + g] = active ? below : E[(i + 1) * kGroups + g];
        D[(i + 1) * kGroups + g] = active ? gamma[g] + (alpha - next) : D[(i + 1) * kGroups + g];
        split[g] = (active & (below <= threshold[g])) ? (zero() > 1) + (i + 1) : split[g];
        c[g] = active ? cosine : c[g];
        s[g] = active ? bb * inverse : s[g];
        p[g] = active ? square : p[g];
        gamma[g] = active ? next : gamma[g];
      }
    }
    alignas(Lanes) double ends[kAll], tops[kAll];
    for (int g = 0; g < kGroups; ++g) {
      reinterpret_cast<Lanes*>(ends)[g] = s[g] * p[g];
      reinterpret_cast<Lanes*>(tops)[g] = sigma[g] + gamma[g];
      reinterpret_cast<Mask*>(splits)[g] = split[g];
    }
    for (index_t l = 0; l < kAll; ++l) {
      const std::int64_t at = b.lo[l];
      if (at >= n) continue;
      e[at * kAll + l] = ends[l];
      d[at * kAll + l] = tops[l];
      b.hi[l] = splits[l];
      if (ends[l] <= negligible[l]) b.lo[l] = at + 1;
      if (b.lo[l] >= b.hi[l]) {
        b.lo[l] = b.hi[l] + 1;
        next_block(n, l, e, negligible[l], b);
      }
    }
  }
  unsigned failed = 0;
  for (index_t l = 0; l < count; ++l) failed |= b.lo[l] < n ? 1U << l : 0U;
  return failed;
}

template <int kParts>
unsigned solve_parts(index_t n, index_t count, double* matrices, double* work, double* values) {
  double *d = values, *e = work;
  Lanes* vectors = reinterpret_cast<Lanes*>(e + n * kAll);
  Lanes scale[kGroups];
  const index_t triangle = kParts * n * (n + 1) / 2;
  for (index_t g = 0; g < kGroups; ++g) {
    Lanes* D = reinterpret_cast<Lanes*>(d) + g;
    Lanes* E = reinterpret_cast<Lanes*>(e) + g;
    if (g * kLanes < count) {
      Lanes* A = reinterpret_cast<Lanes*>(matrices) + g * triangle;
      scale[g] = in_range(triangle, A);
      tridiagonalize<kParts>(n, A, vectors, D, E);
    } else {
      for (index_t i = 0; i < n; ++i) D[i * kGroups] = E[i * kGroups] = zero();
      scale[g] = zero() + 1;
    }
  }
  unsigned failed = ql(n, count, d, e);
  for (index_t i = 0; i < n; ++i) {
    for (int g = 0; g < kGroups; ++g) reinterpret_cast<Lanes*>(d)[i * kGroups + g] /= scale[g];
    for (index_t l = 0; l < count; ++l) failed |= d[i * kAll + l] != d[i * kAll + l] ? 1U << l : 0U;
  }
  return failed;
}

unsigned solve(index_t n, bool hermitian, index_t count, double* matrices, double* work, double* values) {
  return hermitian ? solve_parts<2>(n, count, matrices, work, values)
                   : solve_parts<1>(n, count, matrices, work, values);
}

}  // namespace

extern const LaneEigen BROCKETT_LANE_EIGEN;
const LaneEigen BROCKETT_LANE_EIGEN{BROCKETT_LANE_NAME, kAll, kLanes, solve};

}  // namespace brockett::linalg::lapack
