// Fortran BLAS and LAPACK by their ABI: spelling of the symbols, width of the integers, prototypes for both precisions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>

#include "brockett/error.hpp"
#include "brockett/matrix_view.hpp"

// dgemm is BROCKETT_BLAS_PREFIX ## dgemm ## BROCKETT_BLAS_SUFFIX; the build says which.
#define BROCKETT_PASTE_(a, b, c) a##b##c
#define BROCKETT_PASTE(a, b, c) BROCKETT_PASTE_(a, b, c)
#define BROCKETT_FORTRAN(name) BROCKETT_PASTE(BROCKETT_BLAS_PREFIX, name, BROCKETT_BLAS_SUFFIX)

namespace brockett::linalg::lapack {

#ifdef BROCKETT_BLAS_ILP64
using blas_int = std::int64_t;
#else
using blas_int = std::int32_t;
#endif

/// `value` as an integer of this BLAS; `what` names it where a 32-bit one is too narrow.
inline blas_int to_blas(index_t value, const char* what) {
  if (value > std::numeric_limits<blas_int>::max()) {
    throw Unsupported(std::string(what) + " = " + std::to_string(value) +
                      " does not fit the 32-bit integers of this BLAS; build brockett with a 64-bit one (ILP64)");
  }
  return static_cast<blas_int>(value);
}

/// The routines of one precision: Fortran<double>::gemm is dgemm.
template <class T>
struct Fortran;

}  // namespace brockett::linalg::lapack

// Null where LAPACK is older than 3.7.
#ifdef BROCKETT_HAVE_TWO_STAGE
#define BROCKETT_TWO_STAGE(routine) &BROCKETT_FORTRAN(routine)
#else
#define BROCKETT_TWO_STAGE(routine) nullptr
#endif

// gfortran passes the length of every character argument behind the last one; other compilers ignore the surplus.
#define BROCKETT_DECLARE(T, x, c, Int)                                                                                 \
  extern "C" {                                                                                                         \
  void BROCKETT_FORTRAN(x##gemm)(const char* op_a, const char* op_b, const Int* m, const Int* n, const Int* k,         \
                                 const T* alpha, const T* a, const Int* lda, const T* b, const Int* ldb,               \
                                 const T* beta, T* c, const Int* ldc, std::size_t, std::size_t);                       \
  void BROCKETT_FORTRAN(x##syrk)(const char* uplo, const char* op, const Int* n, const Int* k, const T* alpha,         \
                                 const T* a, const Int* lda, const T* beta, T* c, const Int* ldc, std::size_t,         \
                                 std::size_t);                                                                         \
  void BROCKETT_FORTRAN(x##trsm)(const char* side, const char* uplo, const char* op, const char* diag, const Int* m,   \
                                 const Int* n, const T* alpha, const T* a, const Int* lda, T* b, const Int* ldb,       \
                                 std::size_t, std::size_t, std::size_t, std::size_t);                                  \
  void BROCKETT_FORTRAN(x##geqrf)(const Int* m, const Int* n, T* a, const Int* lda, T* tau, T* work, const Int* lwork, \
                                  Int* info);                                                                          \
  void BROCKETT_FORTRAN(x##orgqr)(const Int* m, const Int* n, const Int* k, T* a, const Int* lda, const T* tau,        \
                                  T* work, const Int* lwork, Int* info);                                               \
  void BROCKETT_FORTRAN(x##potrf)(const char* uplo, const Int* n, T* a, const Int* lda, Int* info, std::size_t);       \
  void BROCKETT_FORTRAN(x##getrf)(const Int* m, const Int* n, T* a, const Int* lda, Int* pivots, Int* info);           \
  void BROCKETT_FORTRAN(x##syev)(const char* jobz, const char* uplo, const Int* n, T* a, const Int* lda, T* w,         \
                                 T* work, const Int* lwork, Int* info, std::size_t, std::size_t);                      \
  void BROCKETT_FORTRAN(x##syevd)(const char* jobz, const char* uplo, const Int* n, T* a, const Int* lda, T* w,        \
                                  T* work, const Int* lwork, Int* iwork, const Int* liwork, Int* info, std::size_t,    \
                                  std::size_t);                                                                        \
  void BROCKETT_FORTRAN(x##sytrd_sy2sb)(const char* uplo, const Int* n, const Int* kd, T* a, const Int* lda, T* ab,    \
                                        const Int* ldab, T* tau, T* work, const Int* lwork, Int* info, std::size_t);   \
  void BROCKETT_FORTRAN(x##sytrd_sb2st)(const char* stage1, const char* vect, const char* uplo, const Int* n,          \
                                        const Int* kd, T* ab, const Int* ldab, T* d, T* e, T* hous, const Int* lhous,  \
                                        T* work, const Int* lwork, Int* info, std::size_t, std::size_t, std::size_t);  \
  void BROCKETT_FORTRAN(x##sytrd)(const char* uplo, const Int* n, T* a, const Int* lda, T* d, T* e, T* tau, T* work,   \
                                  const Int* lwork, Int* info, std::size_t);                                           \
  void BROCKETT_FORTRAN(x##sterf)(const Int* n, T* d, T* e, Int* info);                                                \
  void BROCKETT_FORTRAN(x##ormtr)(const char* side, const char* uplo, const char* op, const Int* m, const Int* n,      \
                                  const T* a, const Int* lda, const T* tau, T* c, const Int* ldc, T* work,             \
                                  const Int* lwork, Int* info, std::size_t, std::size_t, std::size_t);                 \
  /* complex numbers are pairs of T: c is the letter of the complex type of this precision */                          \
  void BROCKETT_FORTRAN(c##heev)(const char* jobz, const char* uplo, const Int* n, T* a, const Int* lda, T* w,         \
                                 T* work, const Int* lwork, T* rwork, Int* info, std::size_t, std::size_t);            \
  void BROCKETT_FORTRAN(c##heevd)(const char* jobz, const char* uplo, const Int* n, T* a, const Int* lda, T* w,        \
                                  T* work, const Int* lwork, T* rwork, const Int* lrwork, Int* iwork,                  \
                                  const Int* liwork, Int* info, std::size_t, std::size_t);                             \
  void BROCKETT_FORTRAN(x##gesdd)(const char* jobz, const Int* m, const Int* n, T* a, const Int* lda, T* s, T* u,      \
                                  const Int* ldu, T* vt, const Int* ldvt, T* work, const Int* lwork, Int* iwork,       \
                                  Int* info, std::size_t);                                                             \
  void BROCKETT_FORTRAN(x##gesvd)(const char* jobu, const char* jobvt, const Int* m, const Int* n, T* a,               \
                                  const Int* lda, T* s, T* u, const Int* ldu, T* vt, const Int* ldvt, T* work,         \
                                  const Int* lwork, Int* info, std::size_t, std::size_t);                              \
  }                                                                                                                    \
  namespace brockett::linalg::lapack {                                                                                 \
  template <>                                                                                                          \
  struct Fortran<T> {                                                                                                  \
    static constexpr auto gemm = &BROCKETT_FORTRAN(x##gemm);                                                           \
    static constexpr auto syrk = &BROCKETT_FORTRAN(x##syrk);                                                           \
    static constexpr auto trsm = &BROCKETT_FORTRAN(x##trsm);                                                           \
    static constexpr auto geqrf = &BROCKETT_FORTRAN(x##geqrf);                                                         \
    static constexpr auto orgqr = &BROCKETT_FORTRAN(x##orgqr);                                                         \
    static constexpr auto potrf = &BROCKETT_FORTRAN(x##potrf);                                                         \
    static constexpr auto getrf = &BROCKETT_FORTRAN(x##getrf);                                                         \
    static constexpr auto syev = &BROCKETT_FORTRAN(x##syev);                                                           \
    static constexpr auto syevd = &BROCKETT_FORTRAN(x##syevd);                                                         \
    static constexpr auto sytrd = &BROCKETT_FORTRAN(x##sytrd);                                                         \
    static constexpr auto sterf = &BROCKETT_FORTRAN(x##sterf);                                                         \
    static constexpr auto ormtr = &BROCKETT_FORTRAN(x##ormtr);                                                         \
    static constexpr auto heev = &BROCKETT_FORTRAN(c##heev);                                                           \
    static constexpr auto heevd = &BROCKETT_FORTRAN(c##heevd);                                                         \
    static constexpr auto gesdd = &BROCKETT_FORTRAN(x##gesdd);                                                         \
    static constexpr auto gesvd = &BROCKETT_FORTRAN(x##gesvd);                                                         \
    static constexpr decltype(&BROCKETT_FORTRAN(x##sytrd_sy2sb)) sytrd_sy2sb = BROCKETT_TWO_STAGE(x##sytrd_sy2sb);     \
    static constexpr decltype(&BROCKETT_FORTRAN(x##sytrd_sb2st)) sytrd_sb2st = BROCKETT_TWO_STAGE(x##sytrd_sb2st);     \
  };                                                                                                                   \
  }
BROCKETT_DECLARE(float, s, c, brockett::linalg::lapack::blas_int)
BROCKETT_DECLARE(double, d, z, brockett::linalg::lapack::blas_int)
#undef BROCKETT_DECLARE
#undef BROCKETT_TWO_STAGE
