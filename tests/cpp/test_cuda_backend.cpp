// The CUDA backend where things go wrong, or several at once: memory that is short, solvers that do not converge, errors of
// the libraries, several threads, streams and devices; and nothing left behind after 10,000 calls.
//
// What the modes of the stand-in are good for was tried by seeding bugs into the backend, one at a time, and running
// test_linalg, test_decompositions, test_streaming and this file (x: some test fails, or the stand-in stops the program):
//
//                                                                  eager  deferred  guard
//   a download is not waited for                                     -       x        x
//   cuBLAS stays on the default stream                               x       x        x     (clocks, at cudaFreeAsync)
//   no event between the copy stream and the work                    -       x        x
//   the host reads a result in device memory                         -       -        x     (SIGSEGV)
//   a kernel gets host memory                                        -       x        x
//   a library gets host memory                                       x       x        x
//   a leading dimension too large by one                             x       x        x
//   half the workspace that was asked for                            x       x        x
//   a buffer too small by one element                                x       x        x
//   a workspace is used after it was freed                           x       x        x
//   a kernel counts on the order of its threads                      -       x        x
#include <thread>

#include "cuda_fixture.hpp"

namespace {

using namespace brockett;
using namespace brockett::test;

class CudaBackend : public CudaTest {
 protected:
  std::shared_ptr<linalg::Backend> backend = make();
  Context context{backend};
};

// --- memory that is short -------------------------------------------------------------------------------------------------

/// `work` with no device memory left from the first allocation on, then from the second, … until it gets through. Each time
/// it throws OutOfMemory naming a size, or does without; it leaves nothing behind, and the context works. How many threw.
int sweep_full_device(const Context& context, const std::function<void()>& work) {
  work();  // staging memory, made once, is there
  const std::size_t before = brockett_shim_live_allocations(), handles = brockett_shim_live_handles();
  int thrown = 0;
  for (std::size_t k = 1;; ++k) {
    brockett_shim_fail_allocation(k);
    try {
      work();
    } catch (const OutOfMemory& e) {
      ++thrown;
      const std::string text = e.what();  // a size, or what of CUDA's own could not be made
      EXPECT_TRUE(text.find_first_of("0123456789") != std::string::npos || text.find("Create") != std::string::npos)
          << text;
    }
    const bool got_through = brockett_shim_failure_pending();
    brockett_shim_fail_allocation(0);
    EXPECT_EQ(brockett_shim_live_allocations(), before) << "memory is left behind by failure " << k;
    EXPECT_EQ(brockett_shim_live_handles(), handles) << "handles are left behind by failure " << k;
    EXPECT_EQ(cudaGetLastError(), cudaSuccess) << "failure " << k << " is left for others to find";
    if (got_through || testing::Test::HasFailure()) break;
    if (k % 5 == 1) expect_that_it_works(context);
  }
  expect_that_it_works(context);
  work();
  return thrown;
}

template <class T>
class CudaMemory : public CudaTest {
 protected:
  std::shared_ptr<linalg::Backend> backend = make();
  Context context{backend};
};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(CudaMemory, Scalars);

TYPED_TEST(CudaMemory, short_memory_in_svd) {
  using T = TypeParam;
  const DeviceMatrix<T> A(*this->backend, HostMatrix<T>::random(9, 6, 1), Order::row_major, 1);
  const DeviceMatrix<T> singular(*this->backend, HostMatrix<T>{{1, 2}, {2, 4}, {3, 6}});
  const DeviceMatrix<double> R(*this->backend, HostMatrix<double>::identity(6));
  const Context& c = this->context;
  for (const auto method :
       {SvdParams::Method::automatic, SvdParams::Method::exact, SvdParams::Method::gram, SvdParams::Method::quick}) {
    SvdParams p;
    p.method = method;
    EXPECT_GE(sweep_full_device(c, [&] { svd<T>(c, A.view(), p); }), 4);
    EXPECT_GE(sweep_full_device(c, [&] { svd<T>(c, singular.view(), p); }), 4);
  }
  for (const auto method : {SingularValuesParams::Method::gram, SingularValuesParams::Method::exact}) {
    EXPECT_GE(sweep_full_device(c, [&] { singular_values<T>(c, A.view(), {method}); }), 3);
  }
  EXPECT_GE(sweep_full_device(c, [&] { whitened_svd<T>(c, A.view(), R.view()); }), 4);
}

TYPED_TEST(CudaMemory, short_memory_in_descrambling) {
  using T = TypeParam;
  const Context& c = this->context;
  const DeviceMatrix<T> W(*this->backend, HostMatrix<T>::random(6, 3, 1));
  const DeviceMatrix<double> X(*this->backend, HostMatrix<double>::random(3, 20, 2));
  const DeviceMatrix<double> P0(*this->backend, HostMatrix<double>::identity(6));
  Autocorrelation acc(c, 3);
  acc.update(samples_of(X));
  const auto y = Preactivations::from_autocorrelation<T>(c, W.view(), acc);
  for (const auto gauge :
       {DescrambleParams::Gauge::identity, DescrambleParams::Gauge::canonical, DescrambleParams::Gauge::given}) {
    DescrambleParams p;
    p.gauge = gauge;
    p.P0 = P0.view();
    EXPECT_GE(sweep_full_device(c, [&] { descramble<T>(c, y, W.view(), p); }), 8);
  }
  DescrambleParams p;
  p.group = DescrambleParams::Group::permutation;
  p.starts = 1;
  EXPECT_GE(sweep_full_device(c, [&] { descramble<T>(c, y, W.view(), p); }), 4);
  EXPECT_GE(sweep_full_device(c, [&] { Preactivations::from_samples(c, samples_of(X), true); }), 3);
  EXPECT_GE(sweep_full_device(c, [&] { Preactivations::from_inputs<T>(c, W.view(), samples_of(X)); }), 4);
  EXPECT_GE(sweep_full_device(c, [&] { diagonalize<T>(c, W.view()); }), 4);
  const DeviceMatrix<double> C(*this->backend, HostMatrix<double>::identity(6));
  EXPECT_GE(sweep_full_device(c, [&] { brockett_cost(c, P0.view(), C.view()); }), 3);
  EXPECT_GE(sweep_full_device(c, [&] { basis(c, finite_difference(1), 7); }), 1);
}

TEST_F(CudaBackend, short_memory_in_autocorrelation) {
  const DeviceMatrix<float> X(*backend, HostMatrix<float>::random(5, 700, 3));
  const std::vector<float> host(5 * 700, 0.5F);
  const std::vector<double> weights(700, 2.0);
  for (const auto method : {AutocorrelationParams::Method::gram, AutocorrelationParams::Method::qr}) {
    for (const bool center : {false, true}) {
      AutocorrelationParams p;
      p.method = method;
      p.center = center;
      Autocorrelation acc(context, 5, p), other(context, 5, p);
      other.update(samples_of(X));
      const auto same_after = [&](const std::function<void(Autocorrelation&)>& step) {
        // what fails leaves the accumulator as it was
        EXPECT_GE(sweep_full_device(context,
                                    [&] {
                                      Autocorrelation fresh(context, acc.state());
                                      const AutocorrelationState before = fresh.state();
                                      try {
                                        step(fresh);
                                      } catch (const OutOfMemory&) {
                                        EXPECT_EQ(fresh.n_samples(), before.n_samples);
                                        EXPECT_EQ(fresh.weight(), before.weight);
                                        EXPECT_EQ(fresh.mean(), before.mean);
                                        throw;
                                      }
                                    }),
                  4);
      };
      acc.update(samples_of(X), weights.data());
      same_after([&](Autocorrelation& a) { a.update(samples_of(X), weights.data()); });
      same_after([&](Autocorrelation& a) { a.update_from_host(samples(host.data(), 700, 5), weights.data()); });
      same_after([&](Autocorrelation& a) { a.merge(other); });
      same_after([&](Autocorrelation& a) { a.matrix(); });
    }
  }
}

TEST_F(CudaBackend, making_a_backend_fails_cleanly) {
  const std::size_t allocations = brockett_shim_live_allocations(), handles = brockett_shim_live_handles();
  for (std::size_t k = 1;; ++k) {
    brockett_shim_fail_allocation(k);
    bool thrown = false;
    try {
      make();
    } catch (const OutOfMemory&) {
      thrown = true;
    }
    const bool got_through = brockett_shim_failure_pending();
    brockett_shim_fail_allocation(0);
    EXPECT_EQ(brockett_shim_live_allocations(), allocations);
    EXPECT_EQ(brockett_shim_live_handles(), handles);
    EXPECT_EQ(thrown, !got_through);
    if (got_through) {
      EXPECT_GE(k, 4U);
      break;
    }
  }
}

// A card that is almost full: the sizes stand in the message, what is there is used, and afterwards all goes on.
TEST_F(CudaBackend, memory_of_a_small_device) {
  brockett_shim_set_memory(1 << 20);
  auto& la = backend->full();
  try {
    const linalg::Buffer<double> too_large(la, 1 << 10, 1 << 10);
    ADD_FAILURE() << "8 MB of 1 MB";
  } catch (const OutOfMemory& e) {
    EXPECT_NE(std::string(e.what()).find("8388608"), std::string::npos) << e.what();
  }
  // what was freed can be had again, though the pool keeps it, and in another size
  for (int i = 0; i < 5; ++i) {
    const linalg::Buffer<double> most(la, 1 << 16, 1);
    const linalg::Buffer<double> rest(la, 1 << 14, 3);
  }
  for (index_t i = 0; i < 4; ++i) const linalg::Buffer<double> all(la, (1 << 17) - 8 * i, 1);
}

// What the streams of a device keep for their next workspaces they keep in one place.
TEST_F(CudaBackend, the_streams_of_a_device_share_a_pool) {
  const auto pools = [] { return brockett_shim_calls("cudaMemPoolCreate"); };
  const std::size_t before = pools();
  cudaStream_t stream = nullptr;
  ASSERT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
  {
    const Context second{make(0, stream)};
    expect_that_it_works(second);
    EXPECT_EQ(pools(), before);
    const Context elsewhere{make(1)};
    expect_that_it_works(elsewhere);
    EXPECT_EQ(pools(), before + 1);
  }
  ASSERT_EQ(cudaStreamDestroy(stream), cudaSuccess);
  expect_that_it_works(context);
}

// Without memory pools (some virtual GPUs), and without memory that can be pinned, the same results.
TEST_F(CudaBackend, does_without_pools_and_pinned_memory) {
  setenv("BROCKETT_SHIM_NO_POOLS", "1", 1);
  brockett_shim_fail_status("cudaMallocHost", cudaErrorMemoryAllocation, 1000);
  {
    const std::size_t pools = brockett_shim_calls("cudaMallocFromPoolAsync");
    const Context plain{make()};
    expect_that_it_works(plain);
    Autocorrelation acc(plain, 2);
    const double x[] = {1, 2};
    acc.update_from_host(samples(x, 1, 2));
    EXPECT_EQ(acc.state().moment, (std::vector<double>{1, 2, 2, 4}));
    EXPECT_EQ(brockett_shim_calls("cudaMallocFromPoolAsync"), pools);
  }
  unsetenv("BROCKETT_SHIM_NO_POOLS");
}

// --- solvers and libraries that fail --------------------------------------------------------------------------------------

/// The first solver fails: the second gives the same answer; it fails as well: NotConverged, and the context works. `info`
/// is what they say; with BROCKETT_SHIM_SILENT NaN is all that shows it.
template <class F>
void expect_retry(const Context& context, const std::vector<const char*>& solvers, int info, F&& compute) {
  const auto want = compute();
  for (std::size_t failing = 1; failing <= solvers.size(); ++failing) {
    for (std::size_t i = 0; i < failing; ++i) brockett_shim_fail_info(solvers[i], info, 1000);
    const std::size_t calls = brockett_shim_calls(solvers[failing - 1]);
    try {
      const auto got = compute();
      EXPECT_LT(failing, solvers.size()) << "nobody converged, and nobody said so";
      ASSERT_EQ(got.size(), want.size());
      for (std::size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(got[i], want[i], 1e-5 * (1 + std::abs(want[i]))) << i;
    } catch (const NotConverged& e) {
      EXPECT_EQ(failing, solvers.size()) << e.what();
      EXPECT_NE(std::string(e.what()).find_first_of("0123456789"), std::string::npos) << e.what();
    }
    EXPECT_GT(brockett_shim_calls(solvers[failing - 1]), calls) << solvers[failing - 1];
    brockett_shim_reset();
    expect_that_it_works(context);
  }
}
template <class F>
void expect_retry(const Context& context, const std::vector<const char*>& solvers, F&& compute) {
  for (const int info : {3, BROCKETT_SHIM_SILENT}) expect_retry(context, solvers, info, compute);
}

TYPED_TEST(CudaMemory, solvers_are_tried_one_after_the_other) {
  using T = TypeParam;
  linalg::LinAlg<T>& la = linalg::of<T>(*this->backend);
  const std::string jacobi = std::is_same_v<T, float> ? "cusolverDnSsyevj" : "cusolverDnDsyevj";
  HostMatrix<T> S = HostMatrix<T>::random(12, 12, 5);
  for (index_t j = 0; j < 12; ++j) {
    for (index_t i = 0; i < j; ++i) S(i, j) = S(j, i);
  }
  const auto run = [&](const HostMatrix<T>& A, const auto& f) {
    std::vector<T> out(12);
    const DeviceMatrix<T> a(*this->backend, A, Order::column_major, 2);
    f(a, out);
    return std::vector<double>(out.begin(), out.end());
  };
  for (const bool vectors : {false, true}) {
    expect_retry(this->context, {"cusolverDnXsyevd", jacobi.c_str()}, [&] {
      return run(S, [&](const DeviceMatrix<T>& a, std::vector<T>& out) { la.eigen_symmetric(a, out.data(), vectors); });
    });
  }
  expect_retry(this->context, {"cusolverDnXsyevdx", "cusolverDnXsyevd", jacobi.c_str()}, [&] {
    return run(S, [&](const DeviceMatrix<T>& a, std::vector<T>& out) {
      const DeviceMatrix<T> V(*this->backend, HostMatrix<T>(12, 3));
      la.eigen_symmetric_largest(a, 3, out.data(), V);
      // the vectors, too, belong to S: |V^T S V|
      const DeviceMatrix<T> s(*this->backend, S), SV(*this->backend, HostMatrix<T>(12, 3));
      std::vector<double> rayleigh(3);
      la.multiply(linalg::Op::none, linalg::Op::none, T(1), s, V, T(0), SV);
      la.column_dots(V, SV, rayleigh.data());
      for (std::size_t j = 0; j < 3; ++j) EXPECT_NEAR(rayleigh[j], static_cast<double>(out[j]), 1e-4);
    });
  });
  for (const bool wide : {false, true}) {
    const HostMatrix<T> A = HostMatrix<T>::random(wide ? 12 : 30, wide ? 30 : 12, 6);
    expect_retry(this->context, {"cusolverDnXgesvdp", "cusolverDnXgesvd"}, [&] {
      return run(A, [&](const DeviceMatrix<T>& a, std::vector<T>& out) {
        const DeviceMatrix<T> U(*this->backend, HostMatrix<T>(A.rows, 12)),
            Vt(*this->backend, HostMatrix<T>(12, A.cols));
        la.svd_thin(a, out.data(), U, Vt);
        const auto back = product(product(to_host<T>(*this->backend, U.view()), HostMatrix<T>::diagonal(out)),
                                  to_host<T>(*this->backend, Vt.view()));
        EXPECT_LE(difference(back, A), 1e-4);
      });
    });
  }
  // the matrices of a batch that failed are done again one by one, by all that there is for one
  const HostMatrix<T> batch = HostMatrix<T>::random(4, 12, 7);  // three of 4 x 4
  expect_retry(this->context, {"cusolverDnXsyevBatched", "cusolverDnXsyevd", jacobi.c_str()}, [&] {
    return run(batch, [&](const DeviceMatrix<T>& a, std::vector<T>& out) {
      la.eigenvalues_batched({a.mat().data, 4, 4, a.mat().ld}, 4 * a.mat().ld, 3, out.data());
    });
  });
  const HostMatrix<T> imaginary = HostMatrix<T>::random(4, 12, 8);
  expect_retry(this->context, {"cusolverDnXsyevBatched", "cusolverDnXsyevd"}, [&] {
    return run(batch, [&](const DeviceMatrix<T>& a, std::vector<T>& out) {
      const DeviceMatrix<T> b(*this->backend, imaginary, Order::column_major, 2);
      la.eigenvalues_hermitian_batched({a.mat().data, 4, 4, a.mat().ld}, {b.mat().data, 4, 4, b.mat().ld},
                                       4 * a.mat().ld, 3, out.data());
    });
  });
}

TEST_F(CudaBackend, errors_of_the_libraries_become_errors_of_ours) {
  const DeviceMatrix<double> A(*backend, HostMatrix<double>::random(6, 4, 9));
  const auto compute = [&] {
    svd<double>(context, A.view());
    singular_values<double>(context, A.view(), {SingularValuesParams::Method::exact});
  };
  const std::vector<std::pair<const char*, int>> failures{
      {"kernel", cudaErrorLaunchFailure},
      {"cudaEventSynchronize", cudaErrorIllegalAddress},
      {"cudaMemcpyAsync", cudaErrorInvalidValue},
      {"cudaMallocFromPoolAsync", cudaErrorNotSupported},
      {"cudaSetDevice", cudaErrorInvalidDevice},
      {"cublasDgemm_v2_64", CUBLAS_STATUS_EXECUTION_FAILED},
      {"cublasDsyrk_v2_64", CUBLAS_STATUS_INTERNAL_ERROR},
      {"cusolverDnXsyevd", CUSOLVER_STATUS_INTERNAL_ERROR},
      {"cusolverDnXsyevd_bufferSize", CUSOLVER_STATUS_INVALID_VALUE},
      {"cusolverDnXgesvdp", CUSOLVER_STATUS_INTERNAL_ERROR}};
  int failed = 0;
  for (const auto& [function, status] : failures) {
    SCOPED_TRACE(function);
    const std::size_t calls = brockett_shim_calls(function);
    const int before = failed;
    brockett_shim_fail_status(function, status, 1);
    try {
      compute();
    } catch (const Error& e) {
      ++failed;
      const std::string text = e.what();
      EXPECT_TRUE(text.starts_with("CUDA: ") || text.starts_with("cuBLAS: ") || text.starts_with("cuSOLVER: ")) << text;
      brockett_shim_reset();
    }
    // what was called has failed, and was not overlooked
    EXPECT_TRUE(brockett_shim_calls(function) == calls || failed > before);
    brockett_shim_reset();
    EXPECT_EQ(cudaGetLastError(), cudaSuccess);
    expect_that_it_works(context);
    compute();
  }
  EXPECT_GE(failed, 6);
}

// --- several at once ------------------------------------------------------------------------------------------------------

std::vector<double> spectrum(const Context& context, unsigned seed) {
  const DeviceMatrix<double> A(context.backend(), HostMatrix<double>::random(20, 11, seed));
  return svd<double>(context, A.view()).s;
}

TEST_F(CudaBackend, threads_share_a_context_and_have_their_own) {
  std::vector<std::vector<double>> want;
  for (unsigned seed = 0; seed < 4; ++seed) want.push_back(spectrum(Context{}, seed));
  std::vector<std::thread> threads;
  std::vector<std::string> wrong(8);
  for (unsigned t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      const int device = static_cast<int>(t % 2);
      const Context mine = t < 4 ? context : Context{make(device)};
      for (unsigned round = 0; round < 3; ++round) {
        const unsigned seed = (t + round) % 4;
        const std::vector<double> got = spectrum(mine, seed);
        for (std::size_t i = 0; i < got.size(); ++i) {
          if (!(std::abs(got[i] - want[seed][i]) < 1e-12)) wrong[t] = "thread " + std::to_string(t);
        }
      }
      int current = -1;
      if (cudaGetDevice(&current) != cudaSuccess || current != 0) wrong[t] += " left another device current";
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::string& what : wrong) EXPECT_EQ(what, "");
}

TEST_F(CudaBackend, two_devices_do_not_mix) {
  const Context second{make(1)};
  expect_that_it_works(second);
  const DeviceMatrix<double> there(second.backend(), HostMatrix<double>::random(4, 3, 1));
  for (const int likely : {-1, 0, 1, 7}) {
    EXPECT_EQ(brockett_cuda_plugin()->device_of(there.mat().data, likely), 1);
    EXPECT_EQ(brockett_cuda_plugin()->device_of(nullptr, likely), -1);
  }
  int current = -1;
  ASSERT_EQ(cudaGetDevice(&current), cudaSuccess);
  EXPECT_EQ(current, 0);
  Autocorrelation a(context, 2), b(second, 2);
  const double x[] = {1, 2};
  b.update_from_host(samples(x, 1, 2));
  EXPECT_EQ(refused_argument([&] { a.merge(b); }), "other");
  EXPECT_EQ(Autocorrelation(context, b.state()).state().moment, (std::vector<double>{1, 2, 2, 4}));
}

// The caller's stream: work that it has queued before is waited for, and it may queue its own behind ours.
TEST_F(CudaBackend, work_keeps_the_order_of_the_callers_stream) {
  for (const bool blocking : {false, true}) {
    cudaStream_t stream = nullptr;
    ASSERT_EQ(cudaStreamCreateWithFlags(&stream, blocking ? cudaStreamDefault : cudaStreamNonBlocking), cudaSuccess);
    {
      const Context mine{make(0, stream)};
      const DeviceMatrix<double> A(mine.backend(), HostMatrix<double>{{1, 0}, {0, 1}});
      double* p = A.mat().data;
      shim::submit(stream, [p] { p[0] = 3, p[3] = 4; });  // the caller's kernel
      const auto r = svd<double>(mine, A.view());
      EXPECT_NEAR(r.s[0], 4, 1e-15);
      EXPECT_NEAR(r.s[1], 3, 1e-15);
      Autocorrelation acc(mine, 2);
      shim::submit(stream, [p] { p[0] = 6; });
      acc.update(samples_of(A));
      const auto R = acc.matrix();  // not waited for
      const double* q = R.data();
      double seen[2] = {};
      shim::submit(stream, [q, &seen] { seen[0] = q[0], seen[1] = q[3]; });
      ASSERT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
      EXPECT_EQ(seen[0], 18);
      EXPECT_EQ(seen[1], 8);
    }
    ASSERT_EQ(cudaStreamDestroy(stream), cudaSuccess);
  }
}

// Two contexts on two streams, joined by the plugin's order().
TEST_F(CudaBackend, streams_are_ordered_on_request) {
  cudaStream_t first = nullptr, then = nullptr;
  ASSERT_EQ(cudaStreamCreateWithFlags(&first, cudaStreamNonBlocking), cudaSuccess);
  ASSERT_EQ(cudaStreamCreateWithFlags(&then, cudaStreamNonBlocking), cudaSuccess);
  {
    const Context a{make(0, first)}, b{make(0, then)};
    const linalg::Buffer<double> x(a.backend().full(), 1, 1);
    brockett_cuda_plugin()->order(0, first, then);
    brockett_cuda_plugin()->order(0, then, then);  // nothing to do
    a.backend().full().fill(x, 7.0);
    brockett_cuda_plugin()->order(0, first, then);
    EXPECT_EQ(b.backend().full().norm(x), 7);
    brockett_cuda_plugin()->order(0, then, first);
  }
  EXPECT_THROW(brockett_cuda_plugin()->order(2, first, then), InvalidArgument);
  ASSERT_EQ(cudaStreamDestroy(first), cudaSuccess);
  ASSERT_EQ(cudaStreamDestroy(then), cudaSuccess);
}

// Backends are kept for the next call with their stream; that one may be gone when a backend is dropped.
TEST_F(CudaBackend, a_stream_may_go_before_its_backend) {
  cudaStream_t stream = nullptr;
  ASSERT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
  std::shared_ptr<linalg::Backend> kept = make(0, stream);
  expect_that_it_works(Context{kept});
  ASSERT_EQ(cudaStreamDestroy(stream), cudaSuccess);
  kept.reset();
  expect_that_it_works(context);
}

// --- leaks ----------------------------------------------------------------------------------------------------------------

TEST_F(CudaBackend, ten_thousand_calls_leave_nothing_behind) {
  const DeviceMatrix<double> A(*backend, HostMatrix<double>{{3, 0}, {0, 2}});
  const auto call = [&](int i) {
    if (i % 4 == 0) {
      EXPECT_EQ(backend->full().max_abs(A), 3);
    } else if (i % 4 == 1) {
      singular_values<double>(context, A.view());
    } else if (i % 4 == 2) {
      Autocorrelation acc(context, 2);
      acc.update(samples_of(A));
    } else {
      EXPECT_THROW(Autocorrelation(context, 3).update(samples_of(A)), InvalidArgument);
    }
  };
  for (int i = 0; i < 8; ++i) call(i);
  std::size_t free_before = 0, free_after = 0, total = 0;
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  ASSERT_EQ(cudaMemGetInfo(&free_before, &total), cudaSuccess);
  const std::size_t allocations = brockett_shim_live_allocations(), handles = brockett_shim_live_handles();
  for (int i = 0; i < 10000; ++i) call(i);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  ASSERT_EQ(cudaMemGetInfo(&free_after, &total), cudaSuccess);
  EXPECT_EQ(free_after, free_before);
  EXPECT_EQ(brockett_shim_live_allocations(), allocations);
  EXPECT_EQ(brockett_shim_live_handles(), handles);
}

TEST_F(CudaBackend, backends_come_and_go) {
  for (int i = 0; i < 200; ++i) expect_that_it_works(Context{make(i % 2)});  // DeviceLeaks counts
}

}  // namespace
