#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "descramble_fixture.hpp"

namespace brockett::test {
namespace {

/// For what is float64 throughout.
template <class E>
class CostTest : public DescrambleFixture<E> {};
TYPED_TEST_SUITE(CostTest, Backends, BackendNames);

TYPED_TEST(CostTest, brockett_cost_by_hand) {
  // A = [[1, -1], [-1, 1]] / 2, P = I, C = diag(1, 4): tr(A C) = 5/2, gradient 2 A C = [[1, -4], [-1, 4]]
  const auto P = this->to_device(HostMatrix<double>::identity(2)),
             C = this->to_device(HostMatrix<double>{{1, 0}, {0, 4}});
  const BrockettCost r = brockett_cost(this->context, P.view(), C.view());
  EXPECT_NEAR(r.value, 2.5, 1e-15);
  EXPECT_LE(difference(this->to_host(r.gradient), HostMatrix<double>{{1, -4}, {-1, 4}}), 1e-14);
}

TYPED_TEST(CostTest, brockett_cost_is_its_definition_and_the_gradient_its_derivative) {
  const index_t n = 5;
  const HostMatrix<double> P = HostMatrix<double>::random(n, n, 500);  // not orthogonal
  const HostMatrix<double> C = with_eigenvalues(falling(n), 501).template as<double>();
  const HostMatrix<double> S =
      plus(random_real(n, n, 502), 1, random_real(n, n, 502).transposed()).template as<double>();
  struct Case {
    Penalty penalty;
    RealMatrix A;
  };
  for (const Case& c : {Case{fourier_derivative(2), fourier_penalty(n, 2)},
                        Case{finite_difference(1, Boundary::neumann), difference_penalty(n, 1, false)},
                        Case{grid({5, 1}, 1), grid_penalty({5, 1}, 1, true)}, Case{custom(S.view()), real(S)}}) {
    for (const Order order : {Order::row_major, Order::column_major}) {
      const auto Pd = this->to_device(P, order, 2), Cd = this->to_device(C, order, 1);
      const BrockettCost r = brockett_cost(this->context, Pd.view(), Cd.view(), c.penalty);
      const Real want = brockett_trace(c.A, P, real(C));
      const double size = static_cast<double>(frobenius(c.A) * frobenius(P) * frobenius(P) * frobenius(C));
      EXPECT_NEAR(r.value, static_cast<double>(want), 1e-14 * size);
      const auto G = this->to_host(r.gradient);
      EXPECT_LE(difference(G, plus(RealMatrix(n, n), 2, times(times(c.A, P), C))), 1e-14 * size);
      for (index_t i = 0; i < n; ++i) {
        for (index_t j = 0; j < n; ++j) {  // the cost is quadratic: central differences are exact
          HostMatrix<double> up = P, down = P;
          up(i, j) += 0.5;
          down(i, j) -= 0.5;
          const auto a = this->to_device(up, order), b = this->to_device(down, order);
          const double d = brockett_cost(this->context, a.view(), Cd.view(), c.penalty).value -
                           brockett_cost(this->context, b.view(), Cd.view(), c.penalty).value;
          EXPECT_NEAR(d, G(i, j), 1e-13 * size);
        }
      }
    }
  }
}

TYPED_TEST(CostTest, brockett_cost_refuses_by_name) {
  const auto refused = [&](const HostMatrix<double>& P, const HostMatrix<double>& C, const Penalty& penalty = {}) {
    const auto Pd = this->to_device(P), Cd = this->to_device(C);
    return refused_argument([&] { brockett_cost(this->context, Pd.view(), Cd.view(), penalty); });
  };
  const auto I = HostMatrix<double>::identity(2);
  EXPECT_EQ(refused(I, I), "");
  EXPECT_EQ(refused(HostMatrix<double>(2, 3), I), "P");
  EXPECT_EQ(refused(HostMatrix<double>{{1, kNaN}, {0, 1}}, I), "P");
  EXPECT_EQ(refused(I, HostMatrix<double>::identity(3)), "C");
  EXPECT_EQ(refused(I, HostMatrix<double>{{1, 0.5}, {0, 1}}), "C");
  EXPECT_EQ(refused(I, HostMatrix<double>{{kInf, 0}, {0, 1}}), "C");
  EXPECT_EQ(refused(I, I, grid({3})), "penalty");
  EXPECT_EQ(refused_argument([&] { brockett_cost(this->context, {}, {}); }), "P");
}

}  // namespace
}  // namespace brockett::test
