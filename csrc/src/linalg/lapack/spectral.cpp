// Symmetric eigenvalues and singular values. The fast driver of LAPACK runs first; where it does not converge the
// robust one is tried on a copy of the matrix before an error is raised.
#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "linalg/lapack/blas.hpp"
#include "linalg/lapack/lane_eigen.hpp"
#include "linalg/lapack/lapack_linalg.hpp"
#include "linalg/lapack/memory.hpp"
#include "linalg/lapack/tridiagonal_vectors.hpp"
#include "linalg/lapack/two_stage.hpp"
#include "linalg/lapack/workspace.hpp"
#include "scaled_copy.hpp"

namespace brockett::linalg::lapack {
namespace {

// Two-stage reduction pays for values alone above this order: level at 2048, 1.25x at 2304, slower below (Zen 4, OpenBLAS
// 0.3.34, one thread); 1.75x at 4096 (Zen 5), where the matrix is larger than the cache.
constexpr index_t kTwoStageFrom = 2200;

// Inverse iteration finds a part of the vectors faster than syevd all of them up to this share of the order.
constexpr double kLargestShare = 0.75;

// What inverse iteration may leave of ||T x - lambda x||, in eps times the norm of T: the error of the eigenvalue itself is
// in it. Random, graded and clustered matrices of order 8 to 2048 leave up to 30; a hundred copies of Wilkinson's, glued at
// 1e-8, leave 3000 and are for syevd.
constexpr double kResidual = 64;

[[noreturn]] void throw_not_converged(const char* first, blas_int first_info, const char* second, blas_int second_info,
                                      index_t rows, index_t cols) {
  throw NotConverged(std::string(first) + " and then " + second + " did not converge on a " + std::to_string(rows) +
                     " x " + std::to_string(cols) + " matrix: " + std::to_string(first_info) + " and " +
                     std::to_string(second_info) + " off-diagonal entries did not vanish");
}

template <class T>
struct Eigen {
  char job;
  blas_int n;
  blas_int ld;
  T* a;
  T* values;
};

// LAPACK works this length out in its own integers, and a query would answer with what is left after an overflow: so
// it is checked here, before anything is copied.
blas_int syevd_workspace(char job, index_t n) {
  return to_blas(job == 'V' ? 1 + 6 * n + 2 * n * n : 2 * n + 1,
                 ("syevd on order " + std::to_string(n) + ": workspace").c_str());
}
blas_int gesdd_workspace(char job, index_t m, index_t n) {
  const index_t small = std::min(m, n), large = std::max(m, n);
  return to_blas(job == 'S' ? 4 * small * small + 7 * small : 3 * small + std::max(large, 7 * small),
                 ("gesdd on a " + std::to_string(m) + " x " + std::to_string(n) + " matrix: workspace").c_str());
}

// Divide and conquer.
template <class T>
blas_int syevd(const Eigen<T>& e) {
  const char uplo = 'L';
  blas_int info = 0, lwork = -1, liwork = -1, isize = 0;
  T answer = 0;
  Fortran<T>::syevd(&e.job, &uplo, &e.n, e.a, &e.ld, e.values, &answer, &lwork, &isize, &liwork, &info, 1, 1);
  check_arguments(info, "syevd");
  lwork = std::max(queried_size(answer, "syevd"), syevd_workspace(e.job, e.n));
  liwork = std::max<blas_int>(isize, e.job == 'V' ? 3 + 5 * e.n : 1);
  Scratch<T> work(lwork);
  Scratch<blas_int> iwork(liwork);
  Fortran<T>::syevd(&e.job, &uplo, &e.n, e.a, &e.ld, e.values, work.data(), &lwork, iwork.data(), &liwork, &info, 1, 1);
  check_arguments(info, "syevd");
  return info;
}

// Implicit QL/QR: slow and all but sure.
template <class T>
blas_int syev(const Eigen<T>& e) {
  const char uplo = 'L';
  blas_int info = 0, lwork = -1;
  T answer = 0;
  Fortran<T>::syev(&e.job, &uplo, &e.n, e.a, &e.ld, e.values, &answer, &lwork, &info, 1, 1);
  check_arguments(info, "syev");
  lwork = queried_size(answer, "syev");
  Scratch<T> work(lwork);
  Fortran<T>::syev(&e.job, &uplo, &e.n, e.a, &e.ld, e.values, work.data(), &lwork, &info, 1, 1);
  check_arguments(info, "syev");
  return info;
}

// The eigenvalues of an interleaved Hermitian matrix, by divide and conquer's QL or by plain QL.
template <class T>
blas_int heevd(const Eigen<T>& e) {
  const char uplo = 'L';
  blas_int info = 0, lwork = -1, lrwork = -1, liwork = -1, isize = 0;
  T answer[2] = {}, rsize = 0;
  const auto call = [&](T* work, T* rwork, blas_int* iwork) {
    Fortran<T>::heevd(&e.job, &uplo, &e.n, e.a, &e.ld, e.values, work, &lwork, rwork, &lrwork, iwork, &liwork, &info, 1,
                      1);
    check_arguments(info, "heevd");
  };
  call(answer, &rsize, &isize);
  lwork = std::max(queried_size(answer[0], "heevd"), e.n + 1);
  lrwork = std::max(queried_size(rsize, "heevd"), e.n);
  liwork = std::max<blas_int>(isize, 1);
  Scratch<T> work(2 * static_cast<index_t>(lwork)), rwork(lrwork);
  Scratch<blas_int> iwork(liwork);
  call(work.data(), rwork.data(), iwork.data());
  return info;
}
template <class T>
blas_int heev(const Eigen<T>& e) {
  const char uplo = 'L';
  blas_int info = 0;
  const blas_int lwork = std::max<blas_int>(1, 2 * e.n);
  Scratch<T> work(2 * static_cast<index_t>(lwork)), rwork(3 * static_cast<index_t>(e.n));
  Fortran<T>::heev(&e.job, &uplo, &e.n, e.a, &e.ld, e.values, work.data(), &lwork, rwork.data(), &info, 1, 1);
  check_arguments(info, "heev");
  return info;
}

// A = Q tridiag(e, d, e) Q^T: the reflections of Q below A's diagonal, their scalars in tau.
template <class T>
void sytrd(Mat<T> A, T* d, T* e, T* tau) {
  const char uplo = 'L';
  const blas_int n = to_blas(A.cols, "order"), ld = to_blas(A.ld, "leading dimension");
  blas_int info = 0;
  with_workspace<T>("sytrd", [&](T* work, blas_int lwork) {
    Fortran<T>::sytrd(&uplo, &n, A.data, &ld, d, e, tau, work, &lwork, &info, 1);
    check_arguments(info, "sytrd");
  });
}

// V <- Q V, of sytrd's Q.
template <class T>
void ormtr(Mat<T> A, const T* tau, Mat<T> V) {
  const char side = 'L', uplo = 'L', op = 'N';
  const blas_int n = to_blas(V.rows, "order"), count = to_blas(V.cols, "columns");
  const blas_int lda = to_blas(A.ld, "leading dimension"), ldv = to_blas(V.ld, "leading dimension");
  blas_int info = 0;
  with_workspace<T>("ormtr", [&](T* work, blas_int lwork) {
    Fortran<T>::ormtr(&side, &uplo, &op, &n, &count, A.data, &lda, tau, V.data, &ldv, work, &lwork, &info, 1, 1, 1);
    check_arguments(info, "ormtr");
  });
}

// V <- V L^-T with V^T V = L L^T, once more where V was far from orthonormal. False where its columns depend on each other.
template <class T>
bool orthonormalize_by_cholesky(LinAlg<T>& la, Mat<T> V) {
  constexpr double eps = std::numeric_limits<T>::epsilon();
  const index_t count = V.cols;
  Scratch<T> space(count * count);
  const Mat<T> G(space.data(), count, count);
  for (int pass = 0; pass < 3; ++pass) {
    la.accumulate_outer(Op::transpose, T{1}, V, T{0}, G);
    double distance = 0;  // of G from the identity
    for (index_t j = 0; j < count; ++j) {
      for (index_t i = j; i < count; ++i) {
        const double off = std::abs(static_cast<double>(G.data[i + j * G.ld]) - (i == j ? 1 : 0));
        if (std::isnan(off)) return false;  // an iteration overflowed
        distance = std::max(distance, off);
      }
    }
    if (distance <= 4 * eps) return true;
    if (la.cholesky(G) != 0) return false;
    la.triangular_solve(Side::right, Op::transpose, G, V);
    // The condition number of G is then below 3, and one pass leaves a few eps.
    if (distance * static_cast<double>(count) <= 0.5) return true;
  }
  return false;
}

// The `count` largest eigenvalues and vectors of A, all eigenvalues ascending: one reduction to tridiagonal form, root-free
// QR for the values, inverse iteration for the vectors. False where that is not good to rounding; A's lower triangle and
// its diagonal are destroyed either way.
template <class T>
bool eigen_by_inverse_iteration(LinAlg<T>& la, Mat<T> A, T* ascending, Mat<T> V) {
  constexpr double eps = std::numeric_limits<T>::epsilon();
  const index_t n = A.cols, count = V.cols;
  Scratch<T> d(n), e(n), tau(n), work(n), largest(count);
  sytrd(A, d.data(), e.data(), tau.data());
  std::copy_n(d.data(), n, ascending);
  std::copy_n(e.data(), n - 1, work.data());
  const blas_int order = to_blas(n, "order");
  blas_int info = 0;
  Fortran<T>::sterf(&order, ascending, work.data(), &info);
  check_arguments(info, "sterf");
  if (info != 0) return false;
  std::reverse_copy(ascending + (n - count), ascending + n, largest.data());
  tridiagonal_vectors(d.data(), e.data(), largest.data(), V);
  if (!orthonormalize_by_cholesky(la, V)) return false;
  // The quotients are closer than root-free QR's values, which are off by 60 eps at order 2048.
  const double residual = rayleigh_quotients<T>(d.data(), e.data(), V, largest.data());
  if (!(residual <= kResidual * eps)) return false;
  T above = largest[0];
  for (index_t j = 0; j < count; ++j) {  // ties may have changed places by rounding
    above = std::min(above, largest[j]);
    ascending[n - 1 - j] = above;
  }
  // and one that the cut goes through, with those behind it
  for (index_t i = n - count; i-- > 0 && ascending[i] > above;) ascending[i] = above;
  ormtr(A, tau.data(), V);
  return true;
}

template <class T>
struct Svd {
  char job;
  blas_int m, n;
  T* a;
  blas_int lda;
  T* s;
  T* u;
  blas_int ldu;
  T* vt;
  blas_int ldvt;
};

// Divide and conquer.
template <class T>
blas_int gesdd(const Svd<T>& d) {
  blas_int info = 0, lwork = -1;
  T answer = 0;
  Scratch<blas_int> iwork(8 * std::min(d.m, d.n));
  const auto call = [&](T* work) {
    Fortran<T>::gesdd(&d.job, &d.m, &d.n, d.a, &d.lda, d.s, d.u, &d.ldu, d.vt, &d.ldvt, work, &lwork, iwork.data(),
                      &info, 1);
    check_arguments(info, "gesdd");
  };
  call(&answer);
  lwork = std::max(queried_size(answer, "gesdd"), gesdd_workspace(d.job, d.m, d.n));
  Scratch<T> work(lwork);
  call(work.data());
  return info;
}

// Implicit QR on the bidiagonal form.
template <class T>
blas_int gesvd(const Svd<T>& d) {
  blas_int info = 0;
  with_workspace<T>("gesvd", [&](T* work, blas_int lwork) {
    Fortran<T>::gesvd(&d.job, &d.job, &d.m, &d.n, d.a, &d.lda, d.s, d.u, &d.ldu, d.vt, &d.ldvt, work, &lwork, &info, 1,
                      1);
    check_arguments(info, "gesvd");
  });
  return info;
}

template <class T>
Eigen<T> eigen_problem(Mat<T> A, T* values, bool vectors) {
  return {vectors ? 'V' : 'N', to_blas(A.cols, "order"), to_blas(A.ld, "leading dimension"), A.data, values};
}

// LAPACK leaves the strict upper triangle alone where it reads the lower one and puts no vectors into the matrix: a
// copy of the lower triangle fits in there, and the diagonal beside it.
template <class T>
class LowerTriangle {
 public:
  LowerTriangle(Spectral<T>& la, Mat<T> A) : A_(A), diagonal_(A.cols) {
    la.mirror_lower(A);
    for (index_t i = 0; i < A.cols; ++i) diagonal_[i] = A.data[i + i * A.ld];
  }
  void restore() {
    for (index_t j = 0; j < A_.cols; ++j) {
      A_.data[j + j * A_.ld] = diagonal_[j];
      for (index_t i = j + 1; i < A_.cols; ++i) A_.data[i + j * A_.ld] = A_.data[j + i * A_.ld];
    }
  }

 private:
  Mat<T> A_;
  Scratch<T> diagonal_;
};

}  // namespace

// A = V diag(values) V^T
template <class T>
void Spectral<T>::eigen_symmetric(Mat<T> A, T* host_values, bool vectors) {
  if (A.empty()) return;
  const Eigen<T> problem = eigen_problem(A, host_values, vectors);
  const index_t n = A.cols;
  syevd_workspace(problem.job, n);
  if (vectors) {
    Scratch<T> kept(n * n);
    const Mat<T> copy(kept.data(), n, n);
    this->copy(A, copy);
    const blas_int info = syevd(problem);
    if (info == 0) return;
    this->copy(copy, A);
    if (const blas_int again = syev(problem)) throw_not_converged("syevd", info, "syev", again, n, n);
    return;
  }
  LowerTriangle<T> lower(*this, A);
  // extreme magnitudes are for syevd, which scales them
  const bool two_stage = n >= kTwoStageFrom && has_two_stages<T>() && safe_scale<T>(this->max_abs(A)) == 1;
  const char* routine = two_stage ? "sytrd_2stage" : "syevd";
  const blas_int info = two_stage ? static_cast<blas_int>(two_stage_eigenvalues<T>(A, host_values)) : syevd(problem);
  if (info == 0) return;
  lower.restore();
  if (const blas_int again = syev(problem)) throw_not_converged(routine, info, "syev", again, n, n);
}

// A V = V diag(values), the `count` largest
template <class T>
void Spectral<T>::eigen_symmetric_largest(Mat<T> A, index_t count, T* host_values, Mat<T> V) {
  if (A.empty() || count == 0) return;
  Scratch<T> values(A.cols);
  eigen_symmetric_leading(A, count, values.data(), V);
  std::copy_n(values.data(), count, host_values);
}

// The same, with the values of all
template <class T>
void Spectral<T>::eigen_symmetric_leading(Mat<T> A, index_t count, T* host_values, Mat<T> V) {
  const index_t n = A.cols;
  if (count == 0 || static_cast<double>(count) > kLargestShare * static_cast<double>(n)) {
    return LinAlg<T>::eigen_symmetric_leading(A, count, host_values, V);
  }
  LowerTriangle<T> lower(*this, A);
  if (!eigen_by_inverse_iteration<T>(*this, A, host_values, V)) {
    lower.restore();
    return LinAlg<T>::eigen_symmetric_leading(A, count, host_values, V);
  }
  std::reverse(host_values, host_values + n);
}

// A_k = V_k diag(values_k) V_k^T
template <class T>
void Spectral<T>::eigenvalues_batched(Mat<T> A, index_t stride, index_t batch, T* host_values) {
  if (A.empty()) return;
  for (const index_t k : lane_eigenvalues<T>(A, {}, stride, batch, host_values)) {
    eigen_symmetric({A.data + k * stride, A.rows, A.cols, A.ld}, host_values + k * A.cols, false);
  }
}

// A_k + i B_k = V_k diag(values_k) V_k^*
template <class T>
void Spectral<T>::eigenvalues_hermitian_batched(Mat<T> A, Mat<T> B, index_t stride, index_t batch, T* host_values) {
  if (A.empty()) return;
  const index_t n = A.cols;
  const std::vector<index_t> left = lane_eigenvalues<T>(A, B, stride, batch, host_values);
  if (left.empty()) return;
  Scratch<T> interleaved(2 * n * n);
  for (const index_t k : left) {
    const T* a = A.data + k * stride;
    const T* b = B.data + k * stride;
    const auto gather = [&] {
      for (index_t j = 0; j < n; ++j) {
        for (index_t i = j; i < n; ++i) {
          interleaved[2 * (i + j * n)] = a[i + j * A.ld];
          interleaved[2 * (i + j * n) + 1] = i == j ? T{0} : b[i + j * B.ld];
        }
      }
    };
    const Eigen<T> problem{'N', to_blas(n, "order"), to_blas(n, "leading dimension"), interleaved.data(),
                           host_values + k * n};
    gather();
    const blas_int info = heevd(problem);
    if (info == 0) continue;
    gather();
    if (const blas_int again = heev(problem)) throw_not_converged("heevd", info, "heev", again, n, n);
  }
}

// A = U diag(s) Vt
template <class T>
void Spectral<T>::svd_thin(Mat<T> A, T* host_s, Mat<T> U, Mat<T> Vt) {
  if (A.empty()) return;
  const bool vectors = !U.empty() || !Vt.empty();
  const Svd<T> problem{vectors ? 'S' : 'N',
                       to_blas(A.rows, "rows"),
                       to_blas(A.cols, "columns"),
                       A.data,
                       to_blas(A.ld, "leading dimension"),
                       host_s,
                       U.data,
                       to_blas(std::max<index_t>(1, U.ld), "leading dimension"),
                       Vt.data,
                       to_blas(std::max<index_t>(1, Vt.ld), "leading dimension")};
  gesdd_workspace(problem.job, A.rows, A.cols);
  Scratch<T> kept(A.rows * A.cols);
  const Mat<T> copy(kept.data(), A.rows, A.cols);
  this->copy(A, copy);
  const blas_int info = gesdd(problem);
  if (info == 0) return;
  this->copy(copy, A);
  if (const blas_int again = gesvd(problem)) throw_not_converged("gesdd", info, "gesvd", again, A.rows, A.cols);
}

template class Spectral<float>;
template class Spectral<double>;

}  // namespace brockett::linalg::lapack
