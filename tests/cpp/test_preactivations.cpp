#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "descramble_fixture.hpp"

namespace brockett::test {
namespace {

template <class E>
class PreactivationsTest : public DescrambleFixture<E> {};
TYPED_TEST_SUITE(PreactivationsTest, Engines, EngineNames);

/// For what is float64 throughout.
template <class E>
class PreactivationsDoubleTest : public DescrambleFixture<E> {};
TYPED_TEST_SUITE(PreactivationsDoubleTest, Backends, BackendNames);

// --- sources ----------------------------------------------------------------------------------------------------------------

TYPED_TEST(PreactivationsTest, all_sources_agree) {
  using T = typename TypeParam::T;
  const index_t n = 5, m = 7, N = 60;
  const HostMatrix<T> W = HostMatrix<T>::random(n, m, 300);
  HostMatrix<double> X = HostMatrix<double>::random(m, N, 301);
  for (double& x : X.data) x += 0.7;
  const std::vector<double> bias{0.5, -1, 2, 0, 0.25};
  const auto Xd = this->to_device(X, Order::column_major, 2);
  for (const bool biased : {false, true}) {
    RealMatrix Y = times(W, X);
    for (index_t j = 0; j < N && biased; ++j) {
      for (index_t i = 0; i < n; ++i) Y(i, j) += bias[static_cast<std::size_t>(i)];
    }
    const auto Yd = this->to_device(Y.template as<double>(), Order::column_major, 1);
    const double* b = biased ? bias.data() : nullptr;
    for (const bool center : {false, true}) {
      const SampleMoments want = sample_moments(Y, {}, center);
      const Problem p(fourier_penalty(n, 2), want.R);
      const double size = static_cast<double>(largest_entry(want.R));
      for (const Order order : {Order::row_major, Order::column_major}) {
        const auto Wd = this->to_device(W, order, 2);
        const auto check = [&](const Preactivations& y, const char* name, const char* model) {
          SCOPED_TRACE(std::string(name) + (biased ? ", bias" : "") + (center ? ", centred" : ""));
          EXPECT_EQ(y.n(), n);
          EXPECT_EQ(y.n_samples(), N);
          const auto C = this->to_host(y.matrix());
          EXPECT_LE(difference(C, want.R), 1e-13 * size);
          EXPECT_EQ(difference(C, C.transposed()), 0);
          for (const Gauge gauge : {Gauge::identity, Gauge::canonical}) {
            const auto r = this->run(y, with(gauge), W, order);
            this->check_optimal(r, p);
            EXPECT_EQ(r.error_model, model);
            EXPECT_EQ(r.block_error.size(), r.blocks.size() - 1);
          }
        };
        check(Preactivations::from_samples(this->context, samples_of(Yd), center), "samples", "moments");
        check(Preactivations::from_inputs<T>(this->context, Wd.view(), samples_of(Xd), b, center), "inputs", "moments");
        for (const Method method : {Method::gram, Method::qr}) {
          for (const bool central : {false, true}) {
            AutocorrelationParams ap;
            ap.method = method;
            ap.center = central;
            Autocorrelation acc(this->context, m, ap);
            acc.update(samples_of(Xd));
            check(Preactivations::from_autocorrelation<T>(this->context, Wd.view(), acc, b, center),
                  method == Method::qr ? (central ? "central root" : "root") : (central ? "central gram" : "gram"),
                  "gaussian");
          }
        }
        if (!biased && !center) {
          const auto R = this->to_device(sample_moments(X).R.template as<double>(), order, 1);
          check(Preactivations::from_matrix<T>(this->context, Wd.view(), R.view(), N), "matrix", "gaussian");
        }
        const auto C = this->to_device(want.R.template as<double>(), order, 3);
        check(Preactivations::from_covariance(this->context, C.view(), N), "covariance", "gaussian");
      }
    }
  }
}

TYPED_TEST(PreactivationsTest, white_inputs_by_hand_and_by_definition) {
  using T = typename TypeParam::T;
  const double bias[] = {1, -2};
  const auto W = this->to_device(HostMatrix<T>{{1, 2}, {0, 3}});
  const Preactivations y = Preactivations::isotropic<T>(this->context, W.view());
  EXPECT_EQ(difference(this->to_host(y.matrix()), HostMatrix<double>{{5, 6}, {6, 9}}), 0);
  EXPECT_EQ(y.n_samples(), 0);
  const Preactivations z = Preactivations::isotropic<T>(this->context, W.view(), bias);
  EXPECT_EQ(difference(this->to_host(z.matrix()), HostMatrix<double>{{6, 4}, {4, 13}}), 0);
  EXPECT_TRUE(this->run(z).block_error.empty());
  for (const Order order : {Order::row_major, Order::column_major}) {
    for (const auto& [n, m] : {std::pair<index_t, index_t>{5, 8}, {8, 5}, {6, 1}}) {
      const HostMatrix<T> V = HostMatrix<T>::random(n, m, 310);
      const auto device = this->to_device(V, order, 2);
      const Problem p(fourier_penalty(n, 2), times(V, V.transposed()));
      const auto r = this->run(Preactivations::isotropic<T>(this->context, device.view()), {}, V, order);
      EXPECT_NEAR(r.optimum, static_cast<double>(p.optimum()), 1e-13 * static_cast<double>(p.size()));
      EXPECT_EQ(r.rank, std::min(n, m));
      // P W = T S V^T up to gauge: its rows' energies per output frequency are the variances
      const RealMatrix Z = times(fourier_modes(n).transposed(), r.weights);
      for (std::size_t b = 0; b + 1 < p.blocks.size(); ++b) {
        Real energy = 0, want = 0;
        for (index_t i = p.blocks[b]; i < p.blocks[b + 1]; ++i) {
          want += p.variances[static_cast<std::size_t>(i)];
          for (index_t j = 0; j < m; ++j) energy += Z(i, j) * Z(i, j);
        }
        EXPECT_NEAR(static_cast<double>(energy), static_cast<double>(want),
                    40 * this->eps * static_cast<double>(p.variances[0]));
      }
    }
  }
}

TYPED_TEST(PreactivationsTest, samples_of_every_type) {
  const index_t n = 4, N = 25;
  HostMatrix<double> Y = HostMatrix<double>::random(n, N, 320);
  for (double& v : Y.data) v = std::round(8 * v) / 8;  // exact in every type
  const SampleMoments want = sample_moments(Y);
  std::vector<std::uint16_t> half(static_cast<std::size_t>(n * N)), brain(half.size());
  for (std::size_t i = 0; i < half.size(); ++i) {
    half[i] = half_bits(DType::float16, Y.data[i]);
    brain[i] = half_bits(DType::bfloat16, Y.data[i]);
  }
  const auto d64 = this->to_device(Y);
  const auto d32 = this->to_device(Y.template as<float>());
  const auto d16 = bytes_to_device(this->backend, half.data(), half.size() * 2),
             b16 = bytes_to_device(this->backend, brain.data(), brain.size() * 2);
  for (const SampleView& v : {samples_of(d64), samples_of(d32), SampleView{DType::float16, d16.get(), N, n, n},
                              SampleView{DType::bfloat16, b16.get(), N, n, n}}) {
    const Preactivations y = Preactivations::from_samples(this->context, v);
    EXPECT_LE(difference(this->to_host(y.matrix()), want.R), 1e-15);
    const Problem p(fourier_penalty(n, 2), want.R);
    this->check_optimal(this->run(y), p);
  }
}

TYPED_TEST(PreactivationsTest, stacked_sources_add_up) {
  using T = typename TypeParam::T;
  const index_t n = 6;
  const HostMatrix<T> W = HostMatrix<T>::random(n, 4, 330);
  const HostMatrix<double> X = HostMatrix<double>::random(4, 30, 331), Y2 = HostMatrix<double>::random(n, 11, 332),
                           Y3 = HostMatrix<double>::random(n, 7, 333);
  const auto Wd = this->to_device(W);
  const auto x = this->to_device(X), y2 = this->to_device(Y2, Order::column_major, 2), y3 = this->to_device(Y3);
  AutocorrelationParams root;
  root.method = Method::qr;
  Autocorrelation acc(this->context, 4, root);
  acc.update(samples_of(x));
  const auto sources = [&](int i) {
    return i == 0   ? Preactivations::from_inputs<T>(this->context, Wd.view(), samples_of(x))
           : i == 1 ? Preactivations::from_autocorrelation<T>(this->context, Wd.view(), acc)
                    : Preactivations::isotropic<T>(this->context, Wd.view());
  };
  for (int i = 0; i < 3; ++i) {
    Preactivations y = sources(i);
    RealMatrix C = i == 2 ? times(W, W.transposed()) : sample_moments(times(W, X)).R;
    y.add(0.5, samples_of(y2));
    y.add(3, samples_of(y3));
    y.add(0, samples_of(y3));
    C = plus(plus(C, 0.5L, sample_moments(Y2).R), 3, sample_moments(Y3).R);
    EXPECT_LE(difference(this->to_host(y.matrix()), C), 1e-13 * largest_entry(C));
    EXPECT_EQ(y.n_samples(), 0);
    const auto r = this->run(y, {}, W);
    this->check_optimal(r, Problem(fourier_penalty(n, 2), C));
    EXPECT_TRUE(r.block_error.empty());
    EXPECT_EQ(r.error_model, "");
    // a refused one leaves it as it was
    const auto before = this->to_host(y.matrix());
    HostMatrix<double> bad = Y2;
    bad(3, 5) = kNaN;
    const auto bad_d = this->to_device(bad), five = this->to_device(HostMatrix<double>::random(5, 4, 1));
    EXPECT_EQ(refused_argument([&] { y.add(-1, samples_of(y2)); }), "stack");
    EXPECT_EQ(refused_argument([&] { y.add(kNaN, samples_of(y2)); }), "stack");
    EXPECT_EQ(refused_argument([&] { y.add(kInf, samples_of(y2)); }), "stack");
    EXPECT_EQ(refused_argument([&] { y.add(1e308, samples_of(y2)); }), "stack");
    EXPECT_EQ(refused_argument([&] { y.add(1, samples_of(five)); }), "stack");
    EXPECT_EQ(nonfinite_index([&] { y.add(1, samples_of(bad_d)); }), "stack(5, 3)");
    EXPECT_EQ(refused_argument([&] { y.add(1, {DType::float64, y2.mat().data, 0, n, n}); }), "stack");
    EXPECT_EQ(difference(this->to_host(y.matrix()), before), 0);
  }
}

TYPED_TEST(PreactivationsDoubleTest, many_blocks_of_samples) {
  // blocks are at most 2^21 / 40 = 52428 samples
  const index_t n = 40, N = 110003;
  HostMatrix<double> Y = HostMatrix<double>::random(n, N, 340);
  for (index_t j = 0; j < N; ++j) {
    for (index_t i = 0; i < n; ++i) Y(i, j) = Y(i, j) / static_cast<double>(1 + i) + 0.5;
  }
  const auto device = this->to_device(Y);
  for (const bool center : {false, true}) {
    AutocorrelationParams ap;
    ap.center = center;
    Autocorrelation acc(this->context, n, ap);
    acc.update(samples_of(device));
    if (center) {
      EXPECT_GE(sweep_interrupts(this->context,
                                 [&](const Context& c) { Preactivations::from_samples(c, samples_of(device), true); }),
                3);
    }
    const Preactivations y = Preactivations::from_samples(this->context, samples_of(device), center);
    const auto C = this->to_host(acc.matrix());
    EXPECT_LE(difference(this->to_host(y.matrix()), C), 1e-14);
    const auto Cd = this->to_device(C);
    const auto from_samples = this->run(y),
               from_matrix = this->run(Preactivations::from_covariance(this->context, Cd.view()));
    EXPECT_NEAR(from_samples.cost, from_matrix.cost, 1e-9 * from_matrix.cost);
    EXPECT_NEAR(from_samples.optimum, from_matrix.optimum, 1e-9 * from_matrix.cost);
    EXPECT_EQ(y.n_samples(), N);
    if (center) {  // Gaussian data: the fourth moments say what the Gaussian formula says
      const auto gaussian = this->run(Preactivations::from_covariance(this->context, Cd.view(), N));
      for (std::size_t b = 0; b < gaussian.block_error.size(); ++b) {
        EXPECT_NEAR(from_samples.block_error[b] / gaussian.block_error[b], 1, 0.1) << b;
      }
    }
  }
}

TYPED_TEST(PreactivationsDoubleTest, the_square_root_keeps_what_the_gram_matrix_loses) {
  // one strong direction, and a tail at 1e-8 of it: its variances drown in the rounding of the Gram matrix
  const index_t n = 16, N = 120;
  std::vector<Real> s{1};
  for (index_t i = 1; i < n; ++i) s.push_back(1e-8L * (2 - static_cast<Real>(i) / 16));
  const HostMatrix<double> X = with_singular_values(n, N, s, 350).template as<double>();
  const auto device = this->to_device(X);
  const auto I = this->to_device(HostMatrix<double>::identity(n));
  std::vector<Real> lambda;  // exactly: the strong direction meets the zero
  for (index_t i = 0; i < n; ++i) lambda.push_back(std::pow(static_cast<Real>((i + 1) / 2), 4));
  const ThinSvd want = jacobi_svd(real(X));
  Real optimum = 0;
  for (std::size_t i = 0; i < want.s.size(); ++i) optimum += lambda[i] * want.s[i] * want.s[i] / static_cast<Real>(N);
  const auto run_method = [&](Method method) {
    AutocorrelationParams ap;
    ap.method = method;
    Autocorrelation acc(this->context, n, ap);
    acc.update(samples_of(device));
    return this->run(Preactivations::from_autocorrelation<double>(this->context, I.view(), acc));
  };
  const auto true_cost = [&](const HostMatrix<double>& P) {  // sum lambda_i |(T^T P X)_i|^2 / N: no cancellation
    const RealMatrix Z = times(fourier_modes(n).transposed(), times(P, X));
    Real sum = 0;
    for (index_t i = 0; i < n; ++i) {
      for (index_t j = 0; j < N; ++j)
        sum += lambda[static_cast<std::size_t>(i)] * Z(i, j) * Z(i, j) / static_cast<Real>(N);
    }
    return sum;
  };
  const auto root = run_method(Method::qr), gram = run_method(Method::gram);
  EXPECT_LE(std::abs(root.optimum / optimum - 1), 1e-6L);
  EXPECT_LE(std::abs(true_cost(root.P) / optimum - 1), 1e-4L);
  EXPECT_LE(std::abs(root.cost / true_cost(root.P) - 1), 1e-4L);
  EXPECT_EQ(root.rank, n);  // rounding is relative to the square root, and the tail is well above it
  EXPECT_GT(true_cost(gram.P) / optimum - 1, 0.05L);
  EXPECT_GT(std::abs(gram.optimum / optimum - 1), 1e-3L);
}

TYPED_TEST(PreactivationsTest, data_without_covariance_are_refused) {
  const HostMatrix<double> indefinite{{1, 0, 0}, {0, -0.1, 0}, {0, 0, 2}}, negative{{-1, 0}, {0, -2}};
  EXPECT_EQ(refused_argument([&] { this->run(real(indefinite)); }), "C");
  EXPECT_EQ(refused_argument([&] { this->run(real(negative)); }), "C");
  // rounding is not refused
  EXPECT_EQ(refused_argument([&] { this->run(RealMatrix{{1, 0, 0}, {0, -1e-15L, 0}, {0, 0, 2}}); }), "");
}

TYPED_TEST(PreactivationsTest, rounding_of_a_large_mean_is_not_taken_for_indefinite_data) {
  // R about zero holds mean^2 = 1e14 beside deviations of 1, so C = W (R - mean mean^T) W^T is known to 1e-2 only, and of
  // its zero eigenvalues some come out below zero
  using T = typename TypeParam::T;
  const auto W = this->to_device(HostMatrix<T>::identity(4));
  for (const unsigned seed : {370u, 371u, 372u, 373u, 374u, 375u, 376u, 377u}) {
    HostMatrix<double> X = HostMatrix<double>::random(4, 50, seed);
    for (index_t j = 0; j < 50; ++j) X(0, j) = 0, X(1, j) = 0;
    for (double& x : X.data) x += 1e7;
    const auto Xd = this->to_device(X);
    Autocorrelation acc(this->context, 4);
    acc.update(samples_of(Xd));
    const auto r = this->run(Preactivations::from_autocorrelation<T>(this->context, W.view(), acc, nullptr, true));
    const Problem p(fourier_penalty(4, 2), sample_moments(X, {}, true).R);
    EXPECT_NEAR(r.optimum, static_cast<double>(p.optimum()), static_cast<double>(p.size()));
  }
}

TYPED_TEST(PreactivationsTest, sources_refuse_by_name) {
  using T = typename TypeParam::T;
  const HostMatrix<double> Y = HostMatrix<double>::random(3, 6, 1);
  const auto y = this->to_device(Y);
  const auto W = this->to_device(HostMatrix<T>::random(2, 3, 2));
  const auto I = this->to_device(HostMatrix<double>::identity(3));
  const Context& c = this->context;

  // samples of y, of x
  const auto from_samples = [&](const SampleView& v) {
    return refused_argument([&] { Preactivations::from_samples(c, v); });
  };
  const auto from_inputs = [&](const SampleView& v, const double* b = nullptr) {
    return refused_argument([&] { Preactivations::from_inputs<T>(c, W.view(), v, b); });
  };
  EXPECT_EQ(from_samples(samples_of(y)), "");
  EXPECT_EQ(from_inputs(samples_of(y)), "");
  const auto broken = [&](auto&& change) {
    SampleView v = samples_of(y);
    change(v);
    return v;
  };
  for (const SampleView& v : {broken([](auto& s) { s.n_samples = 0; }), broken([](auto& s) { s.n_samples = -2; }),
                              broken([](auto& s) { s.data = nullptr; }), broken([](auto& s) { s.n_features = 0; }),
                              broken([](auto& s) { s.ld = 2; })}) {
    EXPECT_EQ(from_samples(v), "preactivations");
    EXPECT_EQ(from_inputs(v), "inputs");
  }
  EXPECT_EQ(from_inputs(broken([](auto& s) { s.n_features = 2; })), "inputs");
  for (const double value : {kNaN, kInf}) {
    HostMatrix<double> bad = Y;
    bad(1, 4) = value;
    const auto b = this->to_device(bad);
    EXPECT_EQ(nonfinite_index([&] { Preactivations::from_samples(c, samples_of(b)); }), "preactivations(4, 1)");
    EXPECT_EQ(nonfinite_index([&] { Preactivations::from_inputs<T>(c, W.view(), samples_of(b)); }), "inputs(4, 1)");
  }
  for (const double value : {1e150, 1e-160}) {
    const auto b = this->to_device(HostMatrix<double>(3, 6, value));
    EXPECT_EQ(from_samples(samples_of(b)), "preactivations");
    EXPECT_EQ(from_inputs(samples_of(b)), "inputs");
  }
  const double bias[] = {1, kNaN};
  EXPECT_EQ(from_inputs(samples_of(y), bias), "bias");

  // W
  HostMatrix<T> nan = HostMatrix<T>::random(2, 3, 2);
  nan(1, 2) = static_cast<T>(kNaN);
  const auto Wn = this->to_device(nan, Order::row_major, 1);
  EXPECT_EQ(nonfinite_index([&] { Preactivations::from_inputs<T>(c, Wn.view(), samples_of(y)); }), "W(1, 2)");
  EXPECT_EQ(nonfinite_index([&] { Preactivations::isotropic<T>(c, Wn.view()); }), "W(1, 2)");
  EXPECT_EQ(nonfinite_index([&] { Preactivations::from_matrix<T>(c, Wn.view(), I.view()); }), "W(1, 2)");
  EXPECT_EQ(refused_argument([&] { Preactivations::isotropic<T>(c, MatrixView<const T>()); }), "W");
  EXPECT_EQ(refused_argument([&] { Preactivations::isotropic<T>(c, W.view(), bias); }), "bias");

  // accumulators
  const auto other = make_guarded_backend();
  Autocorrelation acc(c, 3), four(c, 4), elsewhere(Context(other), 3);
  const DeviceMatrix<double> there(*other, Y);
  elsewhere.update(samples_of(there));
  EXPECT_EQ(refused_argument([&] { Preactivations::from_autocorrelation<T>(c, W.view(), acc); }),
            "autocorrelation");  // empty
  acc.update(samples_of(y));
  EXPECT_EQ(refused_argument([&] { Preactivations::from_autocorrelation<T>(c, W.view(), acc); }), "");
  EXPECT_EQ(refused_argument([&] { Preactivations::from_autocorrelation<T>(c, W.view(), acc, bias); }), "bias");
  EXPECT_EQ(refused_argument([&] { Preactivations::from_autocorrelation<T>(c, W.view(), four); }), "autocorrelation");
  EXPECT_EQ(refused_argument([&] { Preactivations::from_autocorrelation<T>(c, W.view(), elsewhere); }),
            "autocorrelation");

  // matrices
  const auto from_matrix = [&](const HostMatrix<double>& R, index_t N = 0) {
    const auto d = this->to_device(R);
    const std::string of_w = refused_argument([&] { Preactivations::from_matrix<T>(c, W.view(), d.view(), N); });
    const std::string of_y = refused_argument([&] { Preactivations::from_covariance(c, d.view(), N); });
    EXPECT_EQ(of_w == "autocorrelation", of_y == "C" || (R.rows == R.cols && R.rows != 3)) << of_w << " " << of_y;
    return of_w;
  };
  EXPECT_EQ(from_matrix(HostMatrix<double>::identity(3)), "");
  EXPECT_EQ(from_matrix(HostMatrix<double>::identity(3), -1), "n_samples");
  EXPECT_EQ(from_matrix(HostMatrix<double>::identity(4)), "autocorrelation");
  EXPECT_EQ(from_matrix(HostMatrix<double>(3, 4)), "autocorrelation");
  EXPECT_EQ(from_matrix(HostMatrix<double>{{1, 1e-6, 0}, {0, 1, 0}, {0, 0, 1}}), "autocorrelation");
  EXPECT_EQ(from_matrix(HostMatrix<double>{{1, 1e-10, 0}, {0, 1, 0}, {0, 0, 1}}), "");
  EXPECT_EQ(from_matrix(HostMatrix<double>{{1, kNaN, 0}, {0, 1, 0}, {0, 0, 1}}), "autocorrelation");
  EXPECT_EQ(refused_argument([&] { Preactivations::from_covariance(c, {}); }), "C");
  // an indefinite R shows in the second moments of y
  const auto square = this->to_device(HostMatrix<T>::identity(3));
  const auto R = this->to_device(HostMatrix<double>{{1, 0, 0}, {0, -0.5, 0}, {0, 0, 1}});
  const Preactivations indefinite = Preactivations::from_matrix<T>(c, square.view(), R.view());
  EXPECT_EQ(refused_argument([&] { this->run(indefinite); }), "autocorrelation");
}

}  // namespace
}  // namespace brockett::test
