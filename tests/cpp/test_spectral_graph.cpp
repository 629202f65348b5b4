#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "brockett/spectral_graph.hpp"
#include "reference.hpp"

namespace brockett::test {
namespace {

using Method = GraphParams::Method;

GraphParams with(Method method, index_t rank = 0) {
  GraphParams p;
  p.method = method;
  p.rank = rank;
  return p;
}

/// The vectors of a layer on the host, V(c, p modes + i).
template <class T>
struct HostModes {
  HostMatrix<T> out, in;
  std::vector<double> s;
  std::vector<index_t> group;
  index_t P = 1, Q = 1, n_resolved = 0;
  index_t modes() const { return static_cast<index_t>(s.size()); }
};

template <class E>
class SpectralGraphTest : public EngineTest<E> {
 protected:
  using Scalar = typename E::T;
  using EngineTest<E>::eps;

  HostModes<Scalar> on_host(const LayerModes<Scalar>& m) {
    return {this->to_host(m.out), this->to_host(m.in), m.s, m.group, m.out_positions, m.in_positions, m.n_resolved};
  }

  /// Modes of one layer, which must give its weights back, be orthonormal, descend, and leave the input alone.
  HostModes<Scalar> modes(const HostMatrix<Scalar>& W, index_t positions, index_t groups, Method method,
                          Order order = Order::row_major) {
    const auto device = this->to_device(W, order, order == Order::row_major ? 0 : 3);
    GraphLayer<Scalar> layer;
    layer.weights = device.view();
    layer.positions = positions;
    layer.groups = groups;
    const auto found = layer_modes<Scalar>(this->context, {layer}, with(method));
    EXPECT_EQ(difference(this->to_host(device), W), 0) << "the input was changed";
    const HostModes<Scalar> m = on_host(found[0]);
    const index_t o = W.rows / groups, i = W.cols / positions, r = m.modes();
    EXPECT_EQ(m.P, method == Method::svr ? 1 : positions);
    EXPECT_EQ(m.Q, method == Method::svr ? positions : 1);
    EXPECT_EQ(m.out.cols, m.P * r);
    EXPECT_EQ(m.in.rows, i * groups);
    for (index_t k = 1; k < r; ++k) EXPECT_GE(m.s[static_cast<std::size_t>(k - 1)], m.s[static_cast<std::size_t>(k)]);
    // W(o, (c, q)) = sum_k s_k out_k(o, p) in_k(c, q), the position on whichever side has it
    Real worst = 0, scale = 0;
    for (index_t a = 0; a < W.rows; ++a) {
      for (index_t c = 0; c < i * groups; ++c) {
        for (index_t z = 0; z < positions; ++z) {
          Real sum = 0;
          for (index_t k = 0; k < r; ++k) {
            const index_t p = m.P > 1 ? z : 0, q = m.Q > 1 ? z : 0;
            sum += static_cast<Real>(m.s[static_cast<std::size_t>(k)]) * static_cast<Real>(m.out(a, p * r + k)) *
                   static_cast<Real>(m.in(c, q * r + k));
          }
          const bool inside = a / o == c / i;
          const Real expected = inside ? static_cast<Real>(W(a, (c % i) * positions + z)) : Real{0};
          worst = std::max(worst, std::abs(sum - expected));
          scale = std::max(scale, std::abs(expected));
        }
      }
    }
    EXPECT_LE(worst, 50 * eps * std::max<Real>(scale, std::numeric_limits<Real>::min()) * std::sqrt(Real(r)));
    EXPECT_LE(gram_error(m.out, m.P, r), 50 * eps);
    EXPECT_LE(gram_error(m.in, m.Q, r), 50 * eps);
    for (index_t k = 0; k < r; ++k) {  // zeros outside of the group
      for (index_t a = 0; a < W.rows; ++a) {
        if (a / o == m.group[static_cast<std::size_t>(k)]) continue;
        for (index_t p = 0; p < m.P; ++p) EXPECT_EQ(m.out(a, p * r + k), Scalar(0));
      }
    }
    return m;
  }

  static double gram_error(const HostMatrix<Scalar>& V, index_t positions, index_t r) {
    HostMatrix<Real> G(r, r);
    for (index_t j = 0; j < r; ++j) {
      for (index_t k = 0; k < r; ++k) {
        for (index_t p = 0; p < positions; ++p) {
          for (index_t c = 0; c < V.rows; ++c) {
            G(j, k) += static_cast<Real>(V(c, p * r + j)) * static_cast<Real>(V(c, p * r + k));
          }
        }
      }
    }
    return difference(G, HostMatrix<Real>::identity(r));
  }

  /// sum_pq (sum_c L(c, p) R(c, q))^2 by loops; the side with more rows has channels before positions in them.
  static HostMatrix<double> squared_overlaps(const HostModes<Scalar>& from, const HostModes<Scalar>& to) {
    const index_t n = std::min(from.out.rows, to.in.rows);
    const index_t x = from.out.rows / n, y = to.in.rows / n;  // positions in the rows
    HostMatrix<double> A(to.modes(), from.modes());
    for (index_t j = 0; j < to.modes(); ++j) {
      for (index_t i = 0; i < from.modes(); ++i) {
        for (index_t p = 0; p < from.P * x; ++p) {
          for (index_t q = 0; q < to.Q * y; ++q) {
            Real sum = 0;
            for (index_t c = 0; c < n; ++c) {
              sum += static_cast<Real>(from.out(c * x + p % x, p / x * from.modes() + i)) *
                     static_cast<Real>(to.in(c * y + q % y, q / y * to.modes() + j));
            }
            A(j, i) += static_cast<double>(sum * sum);
          }
        }
      }
    }
    return A;
  }
};

TYPED_TEST_SUITE(SpectralGraphTest, Engines, EngineNames);

TYPED_TEST(SpectralGraphTest, of_a_rotation_by_hand) {
  using T = typename TypeParam::T;
  // (3, 4; 4, -3)/5 diag(2, 1), then diag(5, 3)
  const auto a = this->to_device(HostMatrix<T>{{T(1.2), T(-0.8)}, {T(1.6), T(0.6)}});
  const auto b = this->to_device(HostMatrix<T>{{5, 0}, {0, 3}}, Order::row_major);
  const auto g = spectral_graph<T>(this->context, {{a.view(), 1, 1, false, "a"}, {b.view(), 1, 1, false, "b"}});
  ASSERT_EQ(g.edges.size(), 1u);
  EXPECT_EQ(g.edges[0], (std::pair<index_t, index_t>(0, 1)));
  const HostMatrix<double> expected{{0.36, 0.64}, {0.64, 0.36}};
  EXPECT_EQ(g.adjacency[0].order(), Order::row_major);
  EXPECT_LE(difference(this->to_host(g.adjacency[0]), expected), 10 * this->eps);
  EXPECT_NEAR(g.layers[0].s[0], 2, 10 * this->eps);
  EXPECT_NEAR(g.layers[0].s[1], 1, 10 * this->eps);
  EXPECT_EQ(g.layers[0].n_resolved, 2);
}

TYPED_TEST(SpectralGraphTest, of_a_kernel_by_hand) {
  using T = typename TypeParam::T;
  // one output, two inputs, two positions: 3 at position 0 of channel 0, 4 at position 1 of channel 1
  const auto a = this->to_device(HostMatrix<T>{{2, 0}, {0, 1}}), b = this->to_device(HostMatrix<T>{{3, 0, 0, 4}});
  const std::vector<GraphLayer<T>> layers{{a.view(), 1, 1, false, "a"}, {b.view(), 2, 1, true, "b"}};
  const auto svr = spectral_graph<T>(this->context, layers);
  EXPECT_NEAR(svr.layers[1].s[0], 5, 20 * this->eps);
  EXPECT_LE(difference(this->to_host(svr.adjacency[0]), HostMatrix<double>{{9. / 25, 16. / 25}}), 10 * this->eps);
  const auto f = this->to_host(overlaps(this->context, svr.layers[0].out_view(), svr.layers[1].in_view()));
  ASSERT_EQ(f.rows, 2);  // two positions, one mode
  EXPECT_NEAR(std::abs(f(0, 0)), 0.6, 10 * this->eps);
  EXPECT_NEAR(f(0, 1), 0, 10 * this->eps);
  EXPECT_NEAR(std::abs(f(1, 1)), 0.8, 10 * this->eps);
  const auto cosvr = spectral_graph<T>(this->context, layers, {}, with(Method::cosvr));  // diag(3, 4)
  EXPECT_NEAR(cosvr.layers[1].s[0], 4, 20 * this->eps);
  EXPECT_LE(difference(this->to_host(cosvr.adjacency[0]), HostMatrix<double>{{0, 1}, {1, 0}}), 10 * this->eps);
}

TYPED_TEST(SpectralGraphTest, modes_give_the_weights_back) {
  using T = typename TypeParam::T;
  struct Case {
    index_t rows, cols, positions, groups;
  };
  unsigned seed = 1;
  for (const Case c : {Case{5, 7, 1, 1},
                       {7, 5, 1, 1},
                       {4, 18, 6, 1},
                       {9, 4, 2, 1},
                       {1, 6, 3, 1},
                       {6, 1, 1, 1},
                       {6, 6, 3, 2},
                       {6, 3, 3, 6},
                       {8, 10, 5, 4}}) {
    for (const Method method : {Method::svr, Method::cosvr}) {
      for (const Order order : {Order::row_major, Order::column_major}) {
        SCOPED_TRACE(testing::Message() << c.rows << " x " << c.cols << ", " << c.positions << " positions, "
                                        << c.groups << " groups, " << (method == Method::svr ? "svr" : "cosvr"));
        const auto m = this->modes(HostMatrix<T>::random(c.rows, c.cols, seed++), c.positions, c.groups, method, order);
        EXPECT_EQ(m.n_resolved, m.modes());
      }
    }
  }
}

TYPED_TEST(SpectralGraphTest, adjacency_and_overlaps_are_what_loops_say) {
  using T = typename TypeParam::T;
  struct Layer {
    index_t rows, cols, positions, groups;
    bool convolutional;
  };
  const std::vector<std::vector<Layer>> chains{
      {{6, 5, 1, 1, false}, {4, 6, 1, 1, false}},
      {{6, 12, 4, 1, true}, {5, 18, 3, 1, true}, {4, 5 * 6, 1, 1, false}, {3, 4, 1, 1, false}},
      {{6, 12, 4, 2, true}, {6, 3, 3, 6, true}, {4, 6, 1, 1, false}},
      {{12, 5, 1, 1, false}, {4, 6, 2, 1, true}},
  };
  for (const auto& chain : chains) {
    for (const Method method : {Method::svr, Method::cosvr}) {
      std::vector<DeviceMatrix<T>> weights;
      std::vector<GraphLayer<T>> layers;
      for (const Layer& l : chain) {
        weights.push_back(
            this->to_device(HostMatrix<T>::random(l.rows, l.cols, unsigned(weights.size() + 7)), Order::row_major));
        layers.push_back({weights.back().view(), l.positions, l.groups, l.convolutional, "layer"});
      }
      const auto g = spectral_graph<T>(this->context, layers, {}, with(method));
      ASSERT_EQ(g.adjacency.size(), chain.size() - 1);
      for (std::size_t k = 0; k + 1 < chain.size(); ++k) {
        const auto from = this->on_host(g.layers[k]), to = this->on_host(g.layers[k + 1]);
        const auto A = this->to_host(g.adjacency[k]);
        EXPECT_LE(difference(A, this->squared_overlaps(from, to)), 1e-13);  // in float64 whatever the vectors are in
        const auto O = this->to_host(overlaps(this->context, g.layers[k].out_view(), g.layers[k + 1].in_view()));
        HostMatrix<double> sum(A.rows, A.cols);
        for (index_t i = 0; i < O.cols; ++i) {
          for (index_t row = 0; row < O.rows; ++row) sum(row % A.rows, i) += O(row, i) * O(row, i);
        }
        EXPECT_LE(difference(A, sum), 1e-14);
      }
    }
  }
}

TYPED_TEST(SpectralGraphTest, of_two_precisions) {
  using T = typename TypeParam::T;
  using Other = std::conditional_t<std::is_same_v<T, float>, double, float>;
  const auto a = this->to_device(HostMatrix<T>::random(6, 4, 1));
  const HostMatrix<Other> W = HostMatrix<Other>::random(5, 6, 2);
  const DeviceMatrix<Other> b(*this->backend, W);
  const auto from = layer_modes<T>(this->context, {{a.view(), 1, 1, false, "a"}});
  const auto to = layer_modes<Other>(this->context, {{b.view(), 1, 1, false, "b"}});
  const auto A = this->to_host(adjacency(this->context, from[0].out_view(), to[0].in_view()));
  const auto U = this->to_host(from[0].out);
  const auto V = this->to_host(to[0].in);
  HostMatrix<double> expected = product(V.transposed(), U);
  for (double& x : expected.data) x *= x;
  EXPECT_LE(difference(A, expected), 1e-14);
}

TYPED_TEST(SpectralGraphTest, rank_keeps_the_leading_modes_of_all_groups) {
  using T = typename TypeParam::T;
  const auto a = this->to_device(HostMatrix<T>::random(8, 6, 5), Order::row_major);
  const GraphLayer<T> layer{a.view(), 3, 4, true, "a"};
  for (const Method method : {Method::svr, Method::cosvr}) {
    const auto all = layer_modes<T>(this->context, {layer}, with(method))[0];
    const auto some = layer_modes<T>(this->context, {layer}, with(method, 3))[0];
    ASSERT_EQ(some.s.size(), 3u);
    for (std::size_t k = 0; k < 3; ++k) {
      EXPECT_NEAR(some.s[k], all.s[k], 20 * this->eps * all.s[0]);
      EXPECT_EQ(some.group[k], all.group[k]);
    }
    EXPECT_EQ(some.out.cols(), 3 * some.out_positions);
    EXPECT_EQ(layer_modes<T>(this->context, {layer}, with(method, 1000))[0].s.size(), all.s.size());
  }
}

TYPED_TEST(SpectralGraphTest, modes_at_rounding_level_have_no_edges) {
  using T = typename TypeParam::T;
  const HostMatrix<T> low = product(HostMatrix<T>::random(7, 2, 1), HostMatrix<T>::random(2, 6, 2)).template as<T>();
  const auto a = this->to_device(HostMatrix<T>::random(6, 6, 3)), b = this->to_device(low),
             c = this->to_device(HostMatrix<T>::random(5, 7, 4)), zero = this->to_device(HostMatrix<T>(4, 5));
  const auto g = spectral_graph<T>(this->context, {{a.view(), 1, 1, false, "a"},
                                                   {b.view(), 1, 1, false, "b"},
                                                   {c.view(), 1, 1, false, "c"},
                                                   {zero.view(), 1, 1, false, "zero"}});
  EXPECT_EQ(g.layers[0].n_resolved, 6);
  EXPECT_EQ(g.layers[1].n_resolved, 2);
  EXPECT_EQ(g.layers[3].n_resolved, 0);
  const auto into = this->to_host(g.adjacency[0]), out = this->to_host(g.adjacency[1]);
  for (index_t j = 0; j < into.rows; ++j) {
    for (index_t i = 0; i < into.cols; ++i) EXPECT_EQ(into(j, i) > 0, j < 2) << j << ", " << i;
  }
  for (index_t j = 0; j < out.rows; ++j) {
    for (index_t i = 0; i < out.cols; ++i) EXPECT_EQ(out(j, i) > 0, i < 2) << j << ", " << i;
  }
  EXPECT_EQ(largest_entry(this->to_host(g.adjacency[2])), 0);
  EXPECT_EQ(largest_entry(this->to_host(overlaps(this->context, g.layers[2].out_view(), g.layers[3].in_view()))), 0);
}

TYPED_TEST(SpectralGraphTest, large_layers_and_small_ones_keep_their_places) {
  using T = typename TypeParam::T;
  std::vector<DeviceMatrix<T>> weights;
  std::vector<GraphLayer<T>> layers;
  for (const index_t n : {4, 520, 6, 5}) {
    HostMatrix<T> W(n, n);
    for (index_t i = 0; i < n; ++i) W(i, i) = T(n);
    weights.push_back(this->to_device(W));
  }
  for (const auto& W : weights) layers.push_back({W.view(), 1, 1, false, "layer"});
  const auto found = layer_modes<T>(this->context, layers, with(Method::svr, 2));
  for (std::size_t k = 0; k < 4; ++k) {
    EXPECT_NEAR(found[k].s[0], std::vector<double>({4, 520, 6, 5})[k], 1e-4);
    EXPECT_EQ(found[k].out.rows(), layers[k].weights.rows);
  }
}

TYPED_TEST(SpectralGraphTest, any_edges) {
  using T = typename TypeParam::T;
  const auto a = this->to_device(HostMatrix<T>::random(4, 4, 1)), b = this->to_device(HostMatrix<T>::random(4, 4, 2));
  const std::vector<GraphLayer<T>> layers{{a.view(), 1, 1, false, "a"}, {b.view(), 1, 1, false, "b"}};
  const auto g = spectral_graph<T>(this->context, layers, {{1, 0}, {0, 0}});
  ASSERT_EQ(g.adjacency.size(), 2u);
  const auto A = this->on_host(g.layers[0]), B = this->on_host(g.layers[1]);
  EXPECT_LE(difference(this->to_host(g.adjacency[0]), this->squared_overlaps(B, A)), 1e-13);
  EXPECT_LE(difference(this->to_host(g.adjacency[1]), this->squared_overlaps(A, A)), 1e-13);
}

TYPED_TEST(SpectralGraphTest, refuses_by_name) {
  using T = typename TypeParam::T;
  HostMatrix<T> bad = HostMatrix<T>::random(4, 6, 1);
  bad(2, 5) = std::numeric_limits<T>::quiet_NaN();
  const auto a = this->to_device(HostMatrix<T>::random(4, 6, 2), Order::row_major),
             b = this->to_device(HostMatrix<T>::random(3, 5, 3)), nan = this->to_device(bad, Order::row_major);
  const auto run = [&](std::vector<GraphLayer<T>> layers, std::vector<std::pair<index_t, index_t>> edges = {}) {
    return [=, this] { spectral_graph<T>(this->context, layers, edges); };
  };
  EXPECT_EQ(refused_argument(run({})), "layers");
  EXPECT_EQ(refused_argument(run({{a.view(), 1, 1, false, "a"}, {b.view(), 1, 1, false, "b"}})), "edges");
  EXPECT_EQ(refused_argument(run({{a.view(), 1, 1, false, "a"}}, {{0, 1}})), "edges");
  EXPECT_EQ(refused_argument(run({{a.view(), 4, 1, true, "a"}})), "a");
  EXPECT_EQ(refused_argument(run({{a.view(), 0, 1, true, "a"}})), "a");
  EXPECT_EQ(refused_argument(run({{a.view(), 1, 3, true, "a"}})), "a");
  EXPECT_EQ(refused_argument(run({{MatrixView<const T>(), 1, 1, false, "none"}})), "none");
  EXPECT_EQ(nonfinite_index([&] { layer_modes<T>(this->context, {{a.view()}, {nan.view(), 2, 1, true, "nan"}}); }),
            "nan(2, 5)");
  GraphParams negative;
  negative.rank = -1;
  EXPECT_EQ(refused_argument([&] { layer_modes<T>(this->context, {{a.view()}}, negative); }), "rank");
  // 4 outputs of a fully connected layer are not 4 channels at two positions of the next: that takes a convolution
  ModeView from, to;
  from.channels = 4, to.channels = 8;
  EXPECT_EQ(common_channels(from, to), 0);
  from.convolutional = true;
  EXPECT_EQ(common_channels(from, to), 4);
  to.convolutional = true;
  EXPECT_EQ(common_channels(from, to), 0);
  std::swap(from.channels, to.channels);
  from.convolutional = false;
  EXPECT_EQ(common_channels(from, to), 4);
}

TYPED_TEST(SpectralGraphTest, can_be_interrupted) {
  using T = typename TypeParam::T;
  const auto a = this->to_device(HostMatrix<T>::random(4, 6, 1), Order::row_major),
             b = this->to_device(HostMatrix<T>::random(5, 8, 2), Order::row_major);
  const std::vector<GraphLayer<T>> layers{{a.view(), 3, 1, true, "a"}, {b.view(), 2, 1, true, "b"}};
  EXPECT_GE(sweep_interrupts(this->context, [&](const Context& c) { spectral_graph<T>(c, layers); }), 3);
}

}  // namespace
}  // namespace brockett::test
