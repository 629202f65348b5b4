// What happens when LAPACK fails: the fast driver is followed by the robust one on the same matrix, then by an error
// that counts. The drivers are replaced here by ones that fail on demand, after they have ruined the matrix, as true
// ones do.
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <stdexcept>
#include <string>

#include "host_matrix.hpp"
#include "linalg/lapack/blas.hpp"
#include "linalg/linalg.hpp"

namespace {

using namespace brockett;
using namespace brockett::linalg;
using brockett::test::HostMatrix;
using lapack::blas_int;

std::map<std::string, blas_int> fails;  // routine -> info that it is to return
std::map<std::string, int> calls;  // without workspace queries

// Did the routine fail as asked? Then the n x n lower triangle, or the m x n matrix, is ruined.
bool failing(const std::string& routine, bool query, blas_int m, blas_int n, double* a, blas_int lda, bool lower,
             blas_int* info) {
  if (query) return false;
  ++calls[routine];
  const auto at = fails.find(routine);
  if (at == fails.end()) return false;
  for (blas_int j = 0; j < n; ++j) {
    for (blas_int i = lower ? j : 0; i < m; ++i) a[i + j * lda] = NAN;
  }
  *info = at->second;
  return true;
}

// The routine of that name in the BLAS library.
template <class F>
F* original(const char* symbol) {
  auto* f = reinterpret_cast<F*>(dlsym(RTLD_NEXT, symbol));
  if (f == nullptr) throw std::runtime_error(std::string("cannot find ") + symbol);
  return f;
}

#define TEXT_OF(x) #x
#define SYMBOL(name) TEXT_OF_EXPANDED(BROCKETT_FORTRAN(name))
#define TEXT_OF_EXPANDED(x) TEXT_OF(x)
#define ORIGINAL(name) original<decltype(BROCKETT_FORTRAN(name))>(SYMBOL(name))

}  // namespace

// Definitions in the program come before those of the BLAS library.
extern "C" {
void BROCKETT_FORTRAN(dsyevd)(const char* jobz, const char* uplo, const blas_int* n, double* a, const blas_int* lda,
                              double* w, double* work, const blas_int* lwork, blas_int* iwork, const blas_int* liwork,
                              blas_int* info, std::size_t l1, std::size_t l2) {
  if (failing("syevd", *lwork == -1, *n, *n, a, *lda, *jobz == 'N', info)) return;
  ORIGINAL(dsyevd)(jobz, uplo, n, a, lda, w, work, lwork, iwork, liwork, info, l1, l2);
}
void BROCKETT_FORTRAN(dsyev)(const char* jobz, const char* uplo, const blas_int* n, double* a, const blas_int* lda,
                             double* w, double* work, const blas_int* lwork, blas_int* info, std::size_t l1,
                             std::size_t l2) {
  if (failing("syev", *lwork == -1, *n, *n, a, *lda, true, info)) return;
  ORIGINAL(dsyev)(jobz, uplo, n, a, lda, w, work, lwork, info, l1, l2);
}
void BROCKETT_FORTRAN(zheevd)(const char* jobz, const char* uplo, const blas_int* n, double* a, const blas_int* lda,
                              double* w, double* work, const blas_int* lwork, double* rwork, const blas_int* lrwork,
                              blas_int* iwork, const blas_int* liwork, blas_int* info, std::size_t l1, std::size_t l2) {
  if (failing("heevd", *lwork == -1, 2 * *n, *n, a, 2 * *lda, false, info)) return;
  ORIGINAL(zheevd)(jobz, uplo, n, a, lda, w, work, lwork, rwork, lrwork, iwork, liwork, info, l1, l2);
}
void BROCKETT_FORTRAN(zheev)(const char* jobz, const char* uplo, const blas_int* n, double* a, const blas_int* lda,
                             double* w, double* work, const blas_int* lwork, double* rwork, blas_int* info,
                             std::size_t l1, std::size_t l2) {
  if (failing("heev", *lwork == -1, 2 * *n, *n, a, 2 * *lda, false, info)) return;
  ORIGINAL(zheev)(jobz, uplo, n, a, lda, w, work, lwork, rwork, info, l1, l2);
}
void BROCKETT_FORTRAN(dsterf)(const blas_int* n, double* d, double* e, blas_int* info) {
  if (failing("sterf", false, *n, 1, d, *n, false, info)) return;
  ORIGINAL(dsterf)(n, d, e, info);
}
void BROCKETT_FORTRAN(dgesdd)(const char* jobz, const blas_int* m, const blas_int* n, double* a, const blas_int* lda,
                              double* s, double* u, const blas_int* ldu, double* vt, const blas_int* ldvt, double* work,
                              const blas_int* lwork, blas_int* iwork, blas_int* info, std::size_t l1) {
  if (failing("gesdd", *lwork == -1, *m, *n, a, *lda, false, info)) return;
  ORIGINAL(dgesdd)(jobz, m, n, a, lda, s, u, ldu, vt, ldvt, work, lwork, iwork, info, l1);
}
void BROCKETT_FORTRAN(dgesvd)(const char* jobu, const char* jobvt, const blas_int* m, const blas_int* n, double* a,
                              const blas_int* lda, double* s, double* u, const blas_int* ldu, double* vt,
                              const blas_int* ldvt, double* work, const blas_int* lwork, blas_int* info, std::size_t l1,
                              std::size_t l2) {
  if (failing("gesvd", *lwork == -1, *m, *n, a, *lda, false, info)) return;
  ORIGINAL(dgesvd)(jobu, jobvt, m, n, a, lda, s, u, ldu, vt, ldvt, work, lwork, info, l1, l2);
}
}

namespace {

class Drivers : public testing::Test {
 protected:
  void SetUp() override {
    fails.clear();
    calls.clear();
  }
  static Mat<double> mat(HostMatrix<double>& A) { return {A.data.data(), A.rows, A.cols}; }
  // The message of the error that f ends with.
  template <class E, class F>
  static std::string message(F&& f) {
    try {
      f();
    } catch (const E& e) {
      return e.what();
    }
    return "no such error";
  }

  LinAlg<double>& la = lapack_backend()->full();
  const HostMatrix<double> symmetric{{2, 1, 0}, {1, 2, 0}, {0, 0, -5}};
  const HostMatrix<double> lower{{2, NAN, NAN}, {1, 2, NAN}, {0, 0, -5}};  // what eigen_symmetric may read of it
  const HostMatrix<double> wide{{0, 3, 0}, {-2, 0, 0}};
};

TEST_F(Drivers, eigenvalues_are_retried) {
  for (const bool vectors : {true, false}) {
    SetUp();
    fails["syevd"] = 2;
    HostMatrix<double> A = lower;
    std::vector<double> values(3);
    la.eigen_symmetric(mat(A), values.data(), vectors);
    EXPECT_EQ(calls["syevd"], 1);
    EXPECT_EQ(calls["syev"], 1);
    EXPECT_LE(difference(HostMatrix<double>::diagonal(values), HostMatrix<double>::diagonal({-5, 1, 3})), 1e-14);
    if (vectors) {
      EXPECT_LE(difference(product(symmetric, A), product(A, HostMatrix<double>::diagonal(values))), 1e-14);
    }

    fails["syev"] = 1;
    A = lower;
    const std::string what = message<NotConverged>([&] { la.eigen_symmetric(mat(A), values.data(), vectors); });
    EXPECT_EQ(what,
              "syevd and then syev did not converge on a 3 x 3 matrix: 2 and 1 off-diagonal entries did not vanish");
  }
}

TEST_F(Drivers, leading_eigenvalues_are_retried) {
  HostMatrix<double> A(8, 8);
  for (index_t j = 0; j < 8; ++j) {
    A(j, j) = static_cast<double>(j);
    for (index_t i = 0; i < j; ++i) A(i, j) = NAN;
  }
  const HostMatrix<double> kept = A;
  HostMatrix<double> V(8, 2);
  double values[2];
  const auto run = [&] {
    A = kept;
    la.eigen_symmetric_largest(mat(A), 2, values, mat(V));
    EXPECT_NEAR(values[0], 7, 1e-14);
    EXPECT_NEAR(values[1], 6, 1e-14);
    EXPECT_NEAR(std::abs(V(7, 0)), 1, 1e-14);
    EXPECT_NEAR(std::abs(V(6, 1)), 1, 1e-14);
  };
  run();
  EXPECT_EQ(calls["sterf"], 1);
  EXPECT_EQ(calls["syevd"], 0);
  fails["sterf"] = 1;
  run();
  EXPECT_EQ(calls["syevd"], 1);
  fails["syevd"] = 1;
  run();
  EXPECT_EQ(calls["syev"], 1);
}

TEST_F(Drivers, hermitian_eigenvalues_are_retried) {
  HostMatrix<double> A{{2, 0}, {0, 2}}, B{{0, -1}, {1, 0}};
  double values[2];
  fails["heevd"] = 1;
  la.eigenvalues_hermitian_batched(mat(A), mat(B), 4, 1, values);
  EXPECT_EQ(calls["heev"], 1);
  EXPECT_NEAR(values[0], 1, 1e-14);
  EXPECT_NEAR(values[1], 3, 1e-14);
  fails["heev"] = 2;
  EXPECT_EQ(message<NotConverged>([&] { la.eigenvalues_hermitian_batched(mat(A), mat(B), 4, 1, values); }),
            "heevd and then heev did not converge on a 2 x 2 matrix: 1 and 2 off-diagonal entries did not vanish");
}

// Of a batch only what does not converge on vector lanes (here because it is no number) reaches LAPACK.
TEST_F(Drivers, what_the_lanes_leave_is_for_lapack) {
  HostMatrix<double> A{{2, 0, NAN, 0, 5, 0}, {0, 2, 0, 2, 0, 6}}, B{{0, 0, 0, 0, 0, 0}, {1, 0, 1, 0, 0, 0}};
  fails["heevd"] = 1;
  fails["heev"] = 2;
  double values[6] = {};
  EXPECT_EQ(message<NotConverged>(
                [&] { la.eigenvalues_hermitian_batched(mat(A).columns(0, 2), mat(B).columns(0, 2), 4, 3, values); }),
            "heevd and then heev did not converge on a 2 x 2 matrix: 1 and 2 off-diagonal entries did not vanish");
  EXPECT_EQ(calls["heevd"], 1);
  EXPECT_EQ(calls["heev"], 1);
  EXPECT_NEAR(values[0], 1, 1e-14);
  EXPECT_NEAR(values[1], 3, 1e-14);
  EXPECT_EQ(values[4], 5);
  EXPECT_EQ(values[5], 6);

  fails["syevd"] = 1;
  fails["syev"] = 2;
  EXPECT_EQ(message<NotConverged>([&] { la.eigenvalues_batched(mat(A).columns(0, 2), 4, 3, values); }),
            "syevd and then syev did not converge on a 2 x 2 matrix: 1 and 2 off-diagonal entries did not vanish");
  EXPECT_EQ(calls["syevd"], 1);
  EXPECT_EQ(calls["syev"], 1);
  EXPECT_EQ(values[0], 2);
  EXPECT_EQ(values[1], 2);
}

TEST_F(Drivers, singular_values_are_retried) {
  fails["gesdd"] = 1;
  HostMatrix<double> A = wide, U(2, 2), Vt(2, 3);
  std::vector<double> s(2);
  la.svd_thin(mat(A), s.data(), mat(U), mat(Vt));
  EXPECT_EQ(calls["gesdd"], 1);
  EXPECT_EQ(calls["gesvd"], 1);
  EXPECT_LE(difference(product(product(U, HostMatrix<double>::diagonal(s)), Vt), wide), 1e-14);
  EXPECT_NEAR(s[0], 3, 1e-14);
  A = wide;
  s.assign(2, 0);
  la.svd_thin(mat(A), s.data(), Mat<double>(), Mat<double>());
  EXPECT_NEAR(s[0], 3, 1e-14);
  EXPECT_NEAR(s[1], 2, 1e-14);

  fails["gesvd"] = 5;
  A = wide;
  const std::string what = message<NotConverged>([&] { la.svd_thin(mat(A), s.data(), mat(U), mat(Vt)); });
  EXPECT_EQ(what,
            "gesdd and then gesvd did not converge on a 2 x 3 matrix: 1 and 5 off-diagonal entries did not vanish");
}

TEST_F(Drivers, a_wrong_argument_is_our_own_defect) {
  fails["gesdd"] = -4;
  HostMatrix<double> A = wide;
  double s[2];
  const std::string what = message<Error>([&] { la.svd_thin(mat(A), s, Mat<double>(), Mat<double>()); });
  EXPECT_EQ(what, "brockett defect: argument 4 of LAPACK's gesdd is wrong");
  EXPECT_EQ(calls["gesvd"], 0);
}

// With 32-bit integers the workspace of syevd overflows at n = 32767, that of gesdd at k = 23170. They are refused
// before a single entry is looked at: there are none here.
TEST(Integers, that_are_too_large_are_refused_by_name) {
  const index_t large = index_t{1} << 31;
  LinAlg<double>& la = lapack_backend()->full();
  double nothing = 0;
  const auto refused = [&](const char* words, const auto& f) {
    try {
      f();
      ADD_FAILURE() << "not refused: " << words;
    } catch (const Unsupported& e) {
      EXPECT_NE(std::string(e.what()).find(words), std::string::npos) << e.what();
      EXPECT_NE(std::string(e.what()).find("32-bit integers"), std::string::npos) << e.what();
    }
  };
  if constexpr (sizeof(blas_int) == 8) {
    EXPECT_EQ(lapack::to_blas(large, "rows"), large);
  } else {
    EXPECT_EQ(lapack::to_blas(large - 1, "rows"), large - 1);
    refused("rows = 2147483648", [&] { lapack::to_blas(large, "rows"); });
    refused("syevd on order 32767", [&] { la.eigen_symmetric({&nothing, 32767, 32767}, &nothing, true); });
    refused("gesdd on a 40000 x 30000 matrix", [&] {
      la.svd_thin({&nothing, 40000, 30000}, &nothing, {&nothing, 40000, 30000}, {&nothing, 30000, 30000});
    });
    refused("leading dimension = 3000000000", [&] {
      const Mat<double> A(&nothing, 1, 1, 3000000000);
      la.multiply(Op::none, Op::none, 1, A, A, 0, A);
    });
  }
}

}  // namespace
