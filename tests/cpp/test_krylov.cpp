// Block Lanczos below the façade of svd: its pieces where they break down, restarts, operators, interrupts.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "brockett/svd.hpp"
#include "krylov.hpp"
#include "leading_eigen.hpp"
#include "linear_maps.hpp"
#include "reference.hpp"

namespace brockett::test {
namespace {

using Method = SvdParams::Method;

template <class E>
class KrylovTest : public EngineTest<E> {
 protected:
  using Scalar = typename E::T;
  using EngineTest<E>::eps;

  /// The values against those of `want`, orthonormality, and the residual recomputed from host copies.
  void check(const HostMatrix<Scalar>& A, const Svd<Scalar>& r, const std::vector<Real>& want, double tol) {
    const HostMatrix<Scalar> U = this->to_host(r.U), Vt = this->to_host(r.Vt);
    const auto rank = static_cast<index_t>(r.s.size());
    EXPECT_LE(orthogonality_error(U), 60 * eps);
    EXPECT_LE(orthogonality_error(Vt.transposed()), 60 * eps);
    const HostMatrix<double> AV = product(A, Vt.transposed()), AtU = product(A.transposed(), U);
    double worst = 0;
    for (index_t j = 0; j < rank; ++j) {
      const double s = r.s[static_cast<std::size_t>(j)];
      double a = 0, b = 0;
      for (index_t i = 0; i < A.rows; ++i) a += std::pow(AV(i, j) - s * static_cast<double>(U(i, j)), 2);
      for (index_t i = 0; i < A.cols; ++i) b += std::pow(AtU(i, j) - s * static_cast<double>(Vt(j, i)), 2);
      worst = std::max({worst, std::sqrt(a), std::sqrt(b)});
      EXPECT_NEAR(s, static_cast<double>(want[static_cast<std::size_t>(j)]),
                  (2 * tol + 4 * eps) * static_cast<double>(want[0]))
          << j;
    }
    if (r.s[0] > 0) worst /= r.s[0];
    EXPECT_LE(worst, 1.05 * tol + eps);
    EXPECT_NEAR(r.residual, worst, 1e-2 * worst + 2 * eps);
  }

  Svd<Scalar> run(const HostMatrix<Scalar>& A, index_t rank, double tol, Order order = Order::row_major) {
    SvdParams p;
    p.method = Method::krylov;
    p.rank = rank;
    p.tol = tol;
    const auto device = this->to_device(A, order, 1);
    Svd<Scalar> r = svd<Scalar>(this->context, device.view(), p);
    EXPECT_EQ(difference(this->to_host(device), A), 0) << "the input was changed";
    EXPECT_EQ(r.method, "krylov");
    EXPECT_GT(r.columns, 0);
    return r;
  }
};
TYPED_TEST_SUITE(KrylovTest, Engines, EngineNames);

TYPED_TEST(KrylovTest, by_hand) {
  using T = typename TypeParam::T;
  // [[3, 0], [4, 5]]: s = 3 sqrt 5, v = (1, 1) / sqrt 2, u = (1, 3) / sqrt 10
  const HostMatrix<T> A{{3, 0}, {4, 5}};
  const auto r = this->run(A, 1, 1e-6);
  EXPECT_NEAR(r.s[0], std::sqrt(45.0), 20 * this->eps);
  const HostMatrix<T> U = this->to_host(r.U), Vt = this->to_host(r.Vt);
  EXPECT_NEAR(Vt(0, 0), std::sqrt(0.5), 20 * this->eps);
  EXPECT_NEAR(U(1, 0), 3 / std::sqrt(10.0), 20 * this->eps);
}

TYPED_TEST(KrylovTest, ties_zeros_and_decay_in_every_shape) {
  using T = typename TypeParam::T;
  const double tol = std::is_same_v<T, float> ? 1e-6 : 1e-9;
  std::vector<Real> tied(30, 1), decay, deficient{5, 4, 3};
  for (int i = 0; i < 20; ++i) tied[static_cast<std::size_t>(i)] = 2;
  for (int i = 0; i < 30; ++i) decay.push_back(std::pow(Real{0.7}, i));
  for (const auto& s : {tied, decay, deficient}) {
    for (const auto& [m, n] : {std::pair<index_t, index_t>{70, 40}, {40, 70}, {40, 40}}) {
      const HostMatrix<T> A = with_singular_values(m, n, s, 3).template as<T>();
      std::vector<Real> want = jacobi_svd(real(A)).s;
      for (const index_t rank : {1, 6, 25}) {
        for (const Order order : {Order::row_major, Order::column_major}) {
          SCOPED_TRACE(std::to_string(m) + " x " + std::to_string(n) + ", rank " + std::to_string(rank));
          this->check(A, this->run(A, rank, tol, order), want, tol);
        }
      }
    }
  }
}

TYPED_TEST(KrylovTest, restarts_until_it_is_right) {
  using T = typename TypeParam::T;
  const double tol = std::is_same_v<T, float> ? 1e-6 : 1e-9;
  // no gaps, and more columns than the basis holds with blocks of any width: 1, 1 + 1/n, 1 + 2/n … on the diagonal
  constexpr index_t n = 900;
  HostMatrix<T> A(n, n);
  for (index_t i = 0; i < n; ++i) A((7 * i) % n, i) = T(1) + static_cast<T>(i) / T(n);
  const auto device = this->to_device(A);
  const DenseMap<T> map(this->context, device.mat(), linalg::Op::none);
  KrylovParams p;
  p.rank = 4;
  p.tol = tol;
  p.max_columns = 9000;
  const auto found = krylov<T>(this->context, map, p);
  EXPECT_TRUE(found.converged);
  EXPECT_GE(found.restarts, 1);
  EXPECT_LE(found.residual, tol);
  for (index_t i = 0; i < 4; ++i) {
    EXPECT_NEAR(found.s[static_cast<std::size_t>(i)], 2 - static_cast<double>(i + 1) / n, 4 * tol + this->eps);
  }
  // the same numbers again; others from another seed
  EXPECT_EQ(krylov<T>(this->context, map, p).s, found.s);
  p.seed = 1;
  EXPECT_NE(krylov<T>(this->context, map, p).s, found.s);
}

TYPED_TEST(KrylovTest, keeps_the_small_values_of_steep_spectra) {
  using T = typename TypeParam::T;
  // squares below the rounding of the first: a basis that is orthogonal but for a few digits would breed copies of it
  constexpr index_t n = 160;
  std::vector<Real> want;
  for (index_t i = 1; i <= n; ++i) want.push_back(std::pow(static_cast<Real>(i), -3));
  for (unsigned seed = 0; seed < 2; ++seed) {
    const HostMatrix<T> A = with_singular_values(210, n, want, seed).template as<T>();
    for (const double tol : {1e-4, std::is_same_v<T, float> ? 1e-6 : 1e-11}) {
      for (const index_t rank : {30, 60}) this->check(A, this->run(A, rank, tol, Order::row_major), want, tol);
    }
  }
}

TYPED_TEST(KrylovTest, loose_tolerances_are_measured_too) {
  using T = typename TypeParam::T;
  // the images of the basis stand for a product: before and after a restart, and where there is nothing but their rounding
  constexpr index_t n = 900, rank = 4;
  HostMatrix<T> A(n, n);
  std::vector<Real> want;
  for (index_t i = 0; i < n; ++i) {
    A((7 * i) % n, i) = T(1) + static_cast<T>(i) / T(n);
    want.insert(want.begin(), static_cast<Real>(A((7 * i) % n, i)));
  }
  const HostMatrix<T> low = with_singular_values(90, 60, {9, 7, 5, 3}, 4).template as<T>();
  for (const Order order : {Order::row_major, Order::column_major}) {
    SCOPED_TRACE(order == Order::row_major ? "rows" : "columns");
    const auto r = this->run(A, rank, 1e-3, order);
    EXPECT_GT(r.residual, 1e-5) << "as exact as a tight tolerance: nothing was saved";
    this->check(A, r, want, 1e-3);
    this->check(low, this->run(low, rank, 1e-3, order), {9, 7, 5, 3}, 1e-3);
    SvdParams p;
    p.method = Method::quick;
    p.rank = rank;
    const auto device = this->to_device(low, order);
    const auto quick = svd<T>(this->context, device.view(), p);
    this->check(low, quick, {9, 7, 5, 3}, 50 * this->eps);
  }
  const auto device = this->to_device(A);
  KrylovParams p;
  p.rank = rank;
  p.tol = 1e-4;
  p.max_columns = 9000;
  const auto found = krylov<T>(this->context, DenseMap<T>(this->context, device.mat(), linalg::Op::none), p);
  EXPECT_GE(found.restarts, 1);
}

TYPED_TEST(KrylovTest, quick_is_the_same_in_either_order_of_storage) {
  using T = typename TypeParam::T;
  std::vector<Real> values;
  for (int i = 1; i <= 100; ++i) values.push_back(1 / std::sqrt(Real{1} * i));
  SvdParams p;
  p.method = Method::quick;
  p.rank = 2;
  p.oversampling = 4;  // few columns: the basis is on the right of wide matrices, too
  for (const auto& [m, n] : {std::pair<index_t, index_t>{100, 160}, {160, 100}, {100, 100}}) {
    SCOPED_TRACE(std::to_string(m) + " x " + std::to_string(n));
    const HostMatrix<T> A = with_singular_values(m, n, values, 7).template as<T>();
    const auto rows = this->to_device(A), columns = this->to_device(A, Order::column_major);
    const auto a = svd<T>(this->context, rows.view(), p), b = svd<T>(this->context, columns.view(), p);
    for (const auto* r : {&a, &b}) {
      EXPECT_GT(r->residual, 1e-3);
      this->check(A, *r, values, r->residual);
    }
    EXPECT_LE(difference(this->to_host(a.U), this->to_host(b.U)), 400 * this->eps);
    EXPECT_LE(difference(this->to_host(a.Vt), this->to_host(b.Vt)), 400 * this->eps);
  }
}

/// A matrix whose transpose is multiplied by a factor too many, and how many products there were outside of the iteration.
template <class T>
class Watched final : public LinearMap<T> {
 public:
  Watched(const Context& context, linalg::Mat<const T> M, double factor)
      : la_(linalg::of<T>(context.backend())),
        ld_(context.backend().full()),
        map_(context, M, linalg::Op::none),
        factor_(factor) {}
  index_t rows() const override { return map_.rows(); }
  index_t cols() const override { return map_.cols(); }
  void apply(linalg::Op op, linalg::Mat<const T> X, linalg::Mat<T> Y) const override {
    ++products;
    map_.apply(op, X, Y);
    if (op == linalg::Op::transpose) scale(la_, Y);
  }
  void there_and_back(linalg::Op op, linalg::Mat<const T> X, linalg::Mat<T> Y, linalg::Mat<T> Z) const override {
    map_.there_and_back(op, X, Y, Z);
    scale(la_, Z);
  }
  void apply_accurately(linalg::Op op, linalg::Mat<const T> X, linalg::Mat<double> Y) const override {
    ++products;
    map_.apply_accurately(op, X, Y);
    if (op == linalg::Op::transpose) scale(ld_, Y);
  }
  mutable int products = 0;

 private:
  template <class S>
  void scale(linalg::LinAlg<S>& la, linalg::Mat<S> Y) const {
    const std::vector<S> factors(static_cast<std::size_t>(Y.cols), static_cast<S>(factor_));
    la.scale_columns(Y, factors.data());
  }
  linalg::LinAlg<T>& la_;
  linalg::LinAlg<double>& ld_;
  DenseMap<T> map_;
  double factor_;
};

TYPED_TEST(KrylovTest, quick_measures_where_the_recurrence_says_nothing) {
  using T = typename TypeParam::T;
  std::vector<Real> s;
  for (int i = 1; i <= 90; ++i) s.push_back(1 / std::sqrt(Real(i)));
  const auto A = this->to_device(with_singular_values(120, 90, s, 5).template as<T>());
  KrylovParams p;
  p.rank = 10;
  p.widest = 20;
  p.max_columns = 40;
  p.stop_at_limit = true;
  const Watched<T> right(this->context, A.mat(), 1), wrong(this->context, A.mat(), 2);
  const auto found = krylov<T>(this->context, right, p);
  EXPECT_EQ(right.products, 0);
  EXPECT_GT(found.residual, 1e-3);
  EXPECT_LT(found.residual, 0.2);
  // the same vectors: so ||2 A^T u - s v|| = s for each, which the recurrence of 2 A^T A knows nothing of
  const auto misled = krylov<T>(this->context, wrong, p);
  EXPECT_GT(wrong.products, 0);
  EXPECT_NEAR(misled.residual, 1, 0.05);
  EXPECT_NEAR(misled.s[0], found.s[0], 1e-3);
}

TYPED_TEST(KrylovTest, gives_up_at_the_limit_and_says_what_was_reached) {
  using T = typename TypeParam::T;
  const auto A = this->to_device(HostMatrix<T>::random(120, 100, 18));
  SvdParams p;
  p.method = Method::krylov;
  p.rank = 5;
  p.max_columns = 16;
  try {
    svd<T>(this->context, A.view(), p);
    FAIL() << "nothing was thrown";
  } catch (const NotConverged& e) {
    // one block was too few, whatever its width here
    const std::string first =
        "after " + std::to_string(2 * krylov_width(this->backend->batch_size(1) > 1, 5)) + " columns";
    const std::string wide = "after " + std::to_string(krylov_width(this->backend->batch_size(1) > 1, 5)) + " columns";
    const std::string text = e.what();
    EXPECT_TRUE(text.find(first) != std::string::npos || text.find(wide) != std::string::npos) << text;
    EXPECT_NE(text.find("tol is 1e-06"), std::string::npos) << text;
  }
}

TYPED_TEST(KrylovTest, rank_of_a_frobenius_tail) {
  using T = typename TypeParam::T;
  std::vector<Real> s;
  for (int i = 0; i < 50; ++i) s.push_back(std::pow(Real{0.8}, i));
  const auto A = this->to_device(with_singular_values(80, 50, s, 4).template as<T>());
  Real total = 0;
  for (const Real v : s) total += v * v;
  for (const double tail : {0.9, 0.3, 0.02, 0.005}) {
    index_t want = 0;
    for (Real left = total; left > Real{tail} * tail * total; ++want) {
      left -= s[static_cast<std::size_t>(want)] * s[static_cast<std::size_t>(want)];
    }
    SvdParams p;
    p.method = Method::krylov;
    p.frobenius_tol = tail;
    EXPECT_EQ(svd<T>(this->context, A.view(), p).s.size(), static_cast<std::size_t>(want)) << tail;
  }
}

// A basis of dependent, of vanishing and of equal columns cannot be had by Cholesky.
TYPED_TEST(KrylovTest, orthonormalizes_where_cholesky_breaks_down) {
  auto& ld = this->backend->full();
  HostMatrix<double> good = HostMatrix<double>::random(60, 5, 19), dependent = good, zero = good, steep = good;
  for (index_t i = 0; i < 60; ++i) {
    dependent(i, 4) = dependent(i, 1) + dependent(i, 2);
    zero(i, 2) = 0;
    for (index_t j = 0; j < 5; ++j) steep(i, j) = good(i, 0) * 1e3 + good(i, j) * std::pow(1e-4, j);
  }
  for (const bool broken : {false, true}) {
    for (const HostMatrix<double>& A : broken ? std::vector{dependent, zero, steep} : std::vector{good}) {
      const auto device = this->to_device(A);
      const double pivot = orthonormalize_columns(ld, device.mat());
      EXPECT_EQ(pivot == 0, broken);
      const HostMatrix<double> Q = this->to_host(device);
      EXPECT_LE(orthogonality_error(Q), 1e-14);
      // Q spans the columns of A
      const HostMatrix<double> left = product(Q, product(Q.transposed(), A));
      EXPECT_LE(difference(left, A), 1e-11 * largest_entry(A));
    }
  }
}

// --- operators --------------------------------------------------------------------------------------------------------

TYPED_TEST(KrylovTest, products_are_not_formed) {
  using T = typename TypeParam::T;
  const double tol = std::is_same_v<T, float> ? 1e-6 : 1e-10;
  const HostMatrix<T> A = HostMatrix<T>::random(30, 25, 20), B = HostMatrix<T>::random(25, 40, 21),
                      C = HostMatrix<T>::random(40, 20, 22);
  const HostMatrix<double> full = product(product(A, B), C);
  const std::vector<Real> want = jacobi_svd(real(full)).s;
  for (const Order order : {Order::row_major, Order::column_major}) {
    const auto a = this->to_device(A, order, 2), b = this->to_device(B), c = this->to_device(C, order);
    const Product<T> P({a.view(), b.view(), c.view()});
    EXPECT_EQ(P.rows(), 30);
    EXPECT_EQ(P.cols(), 20);
    SvdParams p;
    p.rank = 6;
    p.tol = tol;
    const Svd<T> r = svd<T>(this->context, P, p);
    ASSERT_EQ(r.s.size(), 6U);
    const HostMatrix<T> U = this->to_host(r.U), Vt = this->to_host(r.Vt);
    EXPECT_LE(orthogonality_error(U), 60 * this->eps);
    for (std::size_t j = 0; j < 6; ++j) EXPECT_NEAR(r.s[j] / static_cast<double>(want[j]), 1, 30 * this->eps + tol);
    HostMatrix<double> Us = U.template as<double>();
    for (index_t j = 0; j < 6; ++j) {
      for (index_t i = 0; i < 30; ++i) Us(i, j) *= r.s[static_cast<std::size_t>(j)];
    }
    EXPECT_LE(difference(product(full, Vt.transposed()), Us), 40 * (this->eps + tol) * r.s[0]);
  }
}

TYPED_TEST(KrylovTest, refuses_what_does_not_fit) {
  using T = typename TypeParam::T;
  const auto a = this->to_device(HostMatrix<T>(3, 4, T{1})), b = this->to_device(HostMatrix<T>(5, 2, T{1}));
  EXPECT_EQ(refused_argument([&] { Product<T>({}); }), "factors");
  EXPECT_EQ(refused_argument([&] { Product<T>({a.view(), b.view()}); }), "factors");
  const Product<T> P({a.view()});
  const auto with = [&](Method method, index_t rank, double tail = 0) {
    SvdParams p;
    p.method = method;
    p.rank = rank;
    p.frobenius_tol = tail;
    return refused_argument([&] { svd<T>(this->context, P, p); });
  };
  EXPECT_EQ(with(Method::exact, 1), "method");
  EXPECT_EQ(with(Method::gram, 1), "method");
  EXPECT_EQ(with(Method::automatic, 0), "rank");
  EXPECT_EQ(with(Method::automatic, 0, 1e-9), "frobenius_tol");
  EXPECT_EQ(with(Method::automatic, 1), "");
  const auto bad = this->to_device(HostMatrix<T>(3, 4, std::numeric_limits<T>::infinity()));
  const Product<T> broken({bad.view()});
  SvdParams p;
  p.rank = 1;
  EXPECT_EQ(refused_argument([&] { svd<T>(this->context, broken, p); }), "A");
}

TYPED_TEST(KrylovTest, stops_when_asked_to) {
  using T = typename TypeParam::T;
  const auto A = this->to_device(HostMatrix<T>::random(90, 80, 23));
  SvdParams p;
  p.method = Method::krylov;
  p.rank = 4;
  EXPECT_GE(sweep_interrupts(this->context, [&](const Context& asked) { svd<T>(asked, A.view(), p); }), 3);
}

// --- values of many ---------------------------------------------------------------------------------------------------

TYPED_TEST(KrylovTest, values_of_a_batch_are_those_of_its_matrices) {
  using T = typename TypeParam::T;
  std::vector<DeviceMatrix<T>> held;
  for (unsigned seed = 0; seed < 7; ++seed) held.push_back(this->to_device(HostMatrix<T>::random(23, 9, 30 + seed)));
  std::vector<MatrixView<const T>> views;
  for (const auto& one : held) views.push_back(one.view());
  for (const auto method : {SingularValuesParams::Method::automatic, SingularValuesParams::Method::exact}) {
    const auto many = singular_values_batch<T>(this->context, views, {method});
    ASSERT_EQ(many.size(), 7U);
    for (std::size_t k = 0; k < 7; ++k) {
      const auto want = jacobi_svd(real(this->to_host(held[k]))).s;
      for (std::size_t i = 0; i < 9; ++i) {
        EXPECT_NEAR(many[k].values[i], static_cast<double>(want[i]), 100 * this->eps * static_cast<double>(want[0]));
      }
    }
  }
  EXPECT_TRUE(singular_values_batch<T>(this->context, {}).empty());
  views.push_back(views[0].transposed());
  EXPECT_EQ(refused_argument([&] { singular_values_batch<T>(this->context, views); }), "A");
}

// A stack in one piece of memory is looked at and converted as one: with magnitudes that must be scaled and such that need
// not be, square matrices of both orders, and NaN in one of them, which is named.
TYPED_TEST(KrylovTest, values_of_a_stack_are_those_of_its_matrices) {
  using T = typename TypeParam::T;
  for (const auto& [rows, cols] : {std::pair<index_t, index_t>{9, 4}, {4, 9}, {6, 6}}) {
    constexpr index_t count = 7;
    HostMatrix<T> all(rows, cols * count);
    for (const bool extreme : {false, true}) {
      for (index_t i = 0; i < count; ++i) {
        const HostMatrix<T> one = HostMatrix<T>::random(rows, cols, static_cast<unsigned>(30 + i));
        const T scale = !extreme ? T(1) : i % 3 == 0 ? T(1e-30) : i % 3 == 1 ? T(1) : T(1e30);
        for (index_t j = 0; j < cols; ++j) {
          for (index_t k = 0; k < rows; ++k) all(k, i * cols + j) = scale * one(k, j);
        }
      }
      const DeviceMatrix<T> stack(*this->backend, all);
      std::vector<MatrixView<const T>> views;
      for (index_t i = 0; i < count; ++i) {
        const Order order = rows == cols && i % 2 == 1 ? Order::row_major : Order::column_major;
        views.emplace_back(stack.mat().data + i * rows * cols, rows, cols, order == Order::row_major ? cols : rows,
                           order);
      }
      for (const auto method : {SingularValuesParams::Method::automatic, SingularValuesParams::Method::gram}) {
        const auto many = singular_values_batch<T>(this->context, views, {method});
        for (std::size_t i = 0; i < views.size(); ++i) {
          const auto one = singular_values<T>(this->context, views[i], {method});
          EXPECT_EQ(many[i].method, one.method);
          ASSERT_EQ(many[i].values.size(), one.values.size());
          for (std::size_t j = 0; j < one.values.size(); ++j) {
            EXPECT_NEAR(many[i].values[j], one.values[j], 1e-12 * one.values[0]);
          }
        }
      }
      all(2, 5 * cols + 3) = std::numeric_limits<T>::quiet_NaN();
      const DeviceMatrix<T> broken(*this->backend, all);
      for (std::size_t i = 0; i < views.size(); ++i) {
        views[i].data = broken.mat().data + static_cast<index_t>(i) * rows * cols;
      }
      try {
        singular_values_batch<T>(this->context, views);
        ADD_FAILURE() << "NaN passed";
      } catch (const NonFinite& e) {
        const bool turned = rows == cols;  // matrix 5 is row-major there
        EXPECT_EQ(e.row(), turned ? 3 : 2);
        EXPECT_EQ(e.column(), turned ? 2 : 3);
      }
    }
  }
}

// --- the largest eigenvalues of second moments ------------------------------------------------------------------------------

TYPED_TEST(KrylovTest, leading_eigenvectors_by_either_method) {
  const index_t n = 90;
  const auto falling = [&](auto&& f) {
    std::vector<Real> s;
    for (index_t i = 0; i < n; ++i) s.push_back(f(static_cast<Real>(i)));
    return s;
  };
  const std::vector<std::vector<Real>> spectra{
      falling([](Real i) { return std::pow(Real{0.8L}, i); }), falling([](Real i) { return 1 / (1 + i); }),
      falling([](Real i) {
        return i < 6 ? Real{3} : i < 40 ? Real{2} : Real{1};
      }),  // more equal ones than a block is wide
      falling([](Real i) { return i < 5 ? 5 - i : Real{0}; }),  // fewer than are asked for
      falling([](Real) { return Real{0}; })};
  auto& full = this->context.backend().full();
  for (std::size_t k = 0; k < spectra.size(); ++k) {
    const HostMatrix<double> C = with_eigenvalues(spectra[k], 300 + static_cast<unsigned>(k)).template as<double>();
    const auto device = this->to_device(C);
    for (const LeadingMethod method : {LeadingMethod::krylov, LeadingMethod::direct}) {
      SCOPED_TRACE(std::to_string(k) + (method == LeadingMethod::krylov ? " krylov" : " direct"));
      const index_t count = 9;
      const LeadingEigen found = leading_eigen(this->context, columns_of(device.view()), count, 0, method);
      EXPECT_EQ(found.columns > 0, method == LeadingMethod::krylov);
      HostMatrix<double> U(n, count);
      std::vector<double> host(static_cast<std::size_t>(n * count));
      full.download(found.U, host.data());
      for (index_t j = 0; j < count; ++j) {
        for (index_t i = 0; i < n; ++i) U(i, j) = host[static_cast<std::size_t>(i + j * n)];
      }
      EXPECT_LE(orthogonality_error(U), 1e-14);
      const HostMatrix<double> CU = product(C, U);
      const double scale = static_cast<double>(spectra[k][0]);
      for (index_t j = 0; j < count; ++j) {
        const double value = found.values[static_cast<std::size_t>(j)];
        EXPECT_NEAR(value, static_cast<double>(spectra[k][static_cast<std::size_t>(j)]), 1e-13 * scale) << j;
        for (index_t i = 0; i < n; ++i) EXPECT_NEAR(CU(i, j), value * U(i, j), 2e-13 * scale);
      }
      EXPECT_GE(found.smallest, -1e-13 * scale);
    }
  }
}

// Second moments are accepted from 1e-290 on, whose residuals have no squares in float64.
TYPED_TEST(KrylovTest, leading_eigenvectors_of_extreme_moments) {
  const index_t n = 90, count = 5;
  std::vector<Real> s;
  for (index_t i = 0; i < n; ++i) s.push_back(std::pow(Real{0.9L}, i));
  s.back() = -0.1L;
  const HostMatrix<double> C = with_eigenvalues(s, 312).template as<double>();
  auto& full = this->context.backend().full();
  for (const double scale : {0x1p-960, 0x1p-700, 0x1p-510, 1.0, 0x1p510, 0x1p700, 0x1p960}) {
    SCOPED_TRACE(scale);
    HostMatrix<double> scaled = C;
    for (double& v : scaled.data) v *= scale;
    const auto device = this->to_device(scaled);
    const LeadingEigen found = leading_eigen(this->context, columns_of(device.view()), count, 0, LeadingMethod::krylov);
    EXPECT_GT(found.columns, 0);
    EXPECT_NEAR(found.smallest / scale, -0.1, 1e-3);
    HostMatrix<double> U(n, count);
    std::vector<double> host(static_cast<std::size_t>(n * count));
    full.download(found.U, host.data());
    for (index_t j = 0; j < count; ++j) {
      for (index_t i = 0; i < n; ++i) U(i, j) = host[static_cast<std::size_t>(i + j * n)];
    }
    EXPECT_LE(orthogonality_error(U), 1e-14);
    const HostMatrix<double> CU = product(C, U);
    for (index_t j = 0; j < count; ++j) {
      const double value = found.values[static_cast<std::size_t>(j)] / scale;
      EXPECT_NEAR(value, static_cast<double>(s[static_cast<std::size_t>(j)]), 1e-13) << j;
      for (index_t i = 0; i < n; ++i) EXPECT_NEAR(CU(i, j), value * U(i, j), 2e-13);
    }
  }
}

TYPED_TEST(KrylovTest, negative_eigenvalues_of_second_moments_are_met) {
  std::vector<Real> s;
  for (index_t i = 0; i < 80; ++i) s.push_back(2 - static_cast<Real>(i) / 100);
  s.back() = -0.25L;
  const auto C = this->to_device(with_eigenvalues(s, 310).template as<double>());
  for (const LeadingMethod method : {LeadingMethod::krylov, LeadingMethod::direct}) {
    EXPECT_NEAR(leading_eigen(this->context, columns_of(C.view()), 4, 0, method).smallest, -0.25, 1e-6);
  }
  // what rounding of sums of this size explains is let pass
  EXPECT_GT(leading_eigen(this->context, columns_of(C.view()), 4, 1e14, LeadingMethod::direct).smallest, 1);
}

}  // namespace
}  // namespace brockett::test
