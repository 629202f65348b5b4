#include "linalg/lapack/two_stage.hpp"

#include <algorithm>

#include "linalg/lapack/blas.hpp"
#include "linalg/lapack/memory.hpp"
#include "linalg/lapack/workspace.hpp"

namespace brockett::linalg::lapack {
namespace {

// Diagonals of the band. A wider one has wider products in the first stage and more to chase in the second: order 4096 takes
// 4.9, 3.8, 3.3, 3.3 and 3.3 s with 16, 32 (what syevd_2stage takes at one thread), 48, 64 and 96 of them (Zen 4, OpenBLAS
// 0.3.34, one thread, float64).
constexpr blas_int kBand = 64;

}  // namespace

template <class T>
bool has_two_stages() {
  return Fortran<T>::sytrd_sy2sb != nullptr && Fortran<T>::sytrd_sb2st != nullptr;
}

template <class T>
index_t two_stage_eigenvalues(Mat<T> A, T* values) {
  const char uplo = 'L';
  const blas_int n = to_blas(A.cols, "order"), ld = to_blas(A.ld, "leading dimension");
  const blas_int band = std::min<blas_int>(kBand, std::max<blas_int>(n - 1, 1)), ld_band = band + 1;
  blas_int info = 0;
  Scratch<T> B(A.cols * static_cast<index_t>(ld_band)), tau(A.cols), off_diagonal(A.cols);
  with_workspace<T>("sytrd_sy2sb", [&](T* work, blas_int lwork) {
    Fortran<T>::sytrd_sy2sb(&uplo, &n, &band, A.data, &ld, B.data(), &ld_band, tau.data(), work, &lwork, &info, 1);
    check_arguments(info, "sytrd_sy2sb");
  });
  const char stage = 'Y', vectors = 'N';
  const auto chase = [&](T* reflectors, blas_int count, T* work, blas_int lwork) {
    Fortran<T>::sytrd_sb2st(&stage, &vectors, &uplo, &n, &band, B.data(), &ld_band, values, off_diagonal.data(),
                            reflectors, &count, work, &lwork, &info, 1, 1, 1);
    check_arguments(info, "sytrd_sb2st");
  };
  T reflectors_asked = 0, work_asked = 0;
  chase(&reflectors_asked, -1, &work_asked, -1);
  const blas_int count = queried_size(reflectors_asked, "sytrd_sb2st"), lwork = queried_size(work_asked, "sytrd_sb2st");
  chase(Scratch<T>(count).data(), count, Scratch<T>(lwork).data(), lwork);
  Fortran<T>::sterf(&n, values, off_diagonal.data(), &info);
  return info;
}

template bool has_two_stages<float>();
template bool has_two_stages<double>();
template index_t two_stage_eigenvalues(Mat<float>, float*);
template index_t two_stage_eigenvalues(Mat<double>, double*);

}  // namespace brockett::linalg::lapack
