// Threads: workers, limits on BLAS, and that the user's setting is honoured and put back.
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <functional>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "brockett/context.hpp"
#include "brockett/error.hpp"
#include "brockett/svd.hpp"
#include "host_matrix.hpp"
#include "linalg/buffer.hpp"
#include "linalg/lapack/threads.hpp"
#include "reference.hpp"

namespace {

using namespace brockett;
using namespace brockett::linalg;
using test::HostMatrix;

// The tests run with OPENBLAS_NUM_THREADS=1; these ones play a user who allows two threads, on at least two cores.
class Threads : public testing::Test {
 protected:
  void SetUp() override {
    if (lapack::blas_threads() == 0) GTEST_SKIP() << "this BLAS cannot be asked for its threads";
    cpu_set_t cores;
    ASSERT_EQ(sched_getaffinity(0, sizeof cores, &cores), 0);
    if (CPU_COUNT(&cores) < 2) GTEST_SKIP() << "one core";
    found_ = lapack::blas_threads();
    lapack::set_blas_threads(2);
  }
  void TearDown() override {
    set_threads(0);
    if (found_ > 0) lapack::set_blas_threads(found_);
  }
  void for_each(index_t count, const std::function<void(index_t)>& f) { backend->for_each(count, f, {}); }
  // How many threads a matrix product started now would run on.
  static int in_force() { return lapack::blas_threads_in_force(); }

  std::shared_ptr<Backend> backend = lapack_backend();

 private:
  int found_ = 0;
};

TEST_F(Threads, are_what_blas_the_cores_and_the_user_allow) {
  EXPECT_EQ(threads(), 2);
  set_threads(1);
  EXPECT_EQ(threads(), 1);
  set_threads(1000);
  EXPECT_EQ(threads(), 2);
  set_threads(0);
  lapack::set_blas_threads(1);
  EXPECT_EQ(threads(), 1);
  EXPECT_THROW(set_threads(-1), InvalidArgument);
}

TEST_F(Threads, fewer_cores_mean_fewer_threads) {
  std::thread([] {
    cpu_set_t all, one;
    sched_getaffinity(0, sizeof all, &all);
    CPU_ZERO(&one);
    for (int core = 0; core < CPU_SETSIZE; ++core) {
      if (CPU_ISSET(core, &all)) {
        CPU_SET(core, &one);
        break;
      }
    }
    ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
    EXPECT_EQ(threads(), 1);
  }).join();
  EXPECT_EQ(threads(), 2);
}

TEST_F(Threads, scopes_give_large_matrices_all_threads_and_small_ones_one) {
  {
    const auto scope = backend->thread_scope(1024);
    EXPECT_EQ(in_force(), 2);
  }
  {
    const auto scope = backend->thread_scope(1023);
    EXPECT_EQ(in_force(), 1);
    EXPECT_EQ(threads(), 2);  // what the user allows, not what is in force
    const auto inner = backend->thread_scope(4096);
    EXPECT_EQ(in_force(), 1);
  }
  EXPECT_EQ(in_force(), 2);
  set_threads(1);
  const auto scope = backend->thread_scope(4096);
  EXPECT_EQ(in_force(), 1);
}

TEST_F(Threads, scopes_of_several_callers_end_in_any_order) {
  auto a = backend->thread_scope(10), b = backend->thread_scope(4096), c = backend->thread_scope(10);
  a.reset();
  EXPECT_EQ(in_force(), 1);
  c.reset();
  EXPECT_EQ(in_force(), 2);
  b.reset();
  EXPECT_EQ(in_force(), 2);
}

TEST_F(Threads, a_setting_changed_meanwhile_is_kept) {
  auto scope = backend->thread_scope(10);
  lapack::set_blas_threads(2);  // threadpoolctl in another thread of the program
  EXPECT_EQ(threads(), 2);
  lapack::set_blas_threads(1);
  scope.reset();
  EXPECT_EQ(in_force(), 2);  // 1 was ours, as far as can be told
  scope = backend->thread_scope(2048);
  lapack::set_blas_threads(1);
  scope.reset();
  EXPECT_EQ(in_force(), 1);
}

TEST_F(Threads, many_callers_leave_the_setting_as_it_was) {
  std::vector<std::thread> callers;
  for (int t = 0; t < 4; ++t) {
    callers.emplace_back([this, t] {
      for (int i = 0; i < 200; ++i) {
        if (t % 2 == 0) {
          const auto scope = backend->thread_scope(i % 3 == 0 ? 4096 : 16);
        } else {
          for_each(3, [](index_t) {});
        }
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(in_force(), 2);
}

TEST_F(Threads, workers_do_every_item_once_with_blas_at_one_thread) {
  std::array<std::atomic<int>, 100> done{};
  std::mutex mutex;
  std::set<std::thread::id> ids;
  for_each(100, [&](index_t i) {
    ++done[static_cast<std::size_t>(i)];
    EXPECT_EQ(in_force(), 1);
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    const std::lock_guard lock(mutex);
    ids.insert(std::this_thread::get_id());
  });
  for (const auto& count : done) EXPECT_EQ(count, 1);
  EXPECT_EQ(ids.size(), 2U);
  EXPECT_FALSE(ids.contains(std::this_thread::get_id()));
  EXPECT_EQ(in_force(), 2);
  for_each(0, [](index_t) { FAIL(); });
}

TEST_F(Threads, nested_work_stays_on_its_worker) {
  std::atomic<int> count = 0;
  for_each(4, [&](index_t) {
    const auto worker = std::this_thread::get_id();
    for_each(5, [&](index_t) {
      EXPECT_EQ(std::this_thread::get_id(), worker);
      const auto scope = backend->thread_scope(5000);
      EXPECT_EQ(in_force(), 1);
      ++count;
    });
  });
  EXPECT_EQ(count, 20);
  EXPECT_EQ(in_force(), 2);
}

TEST_F(Threads, one_item_may_use_all_of_blas) {
  for_each(1, [&](index_t) {
    const auto scope = backend->thread_scope(4096);
    EXPECT_EQ(in_force(), 2);
  });
}

TEST_F(Threads, narrow_products_have_workers_where_blas_has_one_thread) {
  EXPECT_EQ(lapack::narrow_workers(), 1);
  {
    const auto scope = backend->narrow_scope();
    EXPECT_EQ(in_force(), 1);
    EXPECT_EQ(lapack::narrow_workers(), 2);
    std::thread([] { EXPECT_EQ(lapack::narrow_workers(), 1); }).join();
    for_each(2, [&](index_t) {
      const auto inner = backend->narrow_scope();
      EXPECT_EQ(lapack::narrow_workers(), 1);
    });
    set_threads(1);
    {
      const auto inner = backend->narrow_scope();
      EXPECT_EQ(lapack::narrow_workers(), 1);
    }
    EXPECT_EQ(lapack::narrow_workers(), 2);
  }
  EXPECT_EQ(lapack::narrow_workers(), 1);
  EXPECT_EQ(in_force(), 2);
}

// Tall, wide, square; shares that are no whole pieces; padding. Workers add the same pieces up in shares.
template <class T>
void check_shared_products(Backend& backend) {
  LinAlg<T>& la = of<T>(backend);
  const double eps = static_cast<double>(std::numeric_limits<T>::epsilon());
  for (const auto& [m, n, columns] :
       {std::array<index_t, 3>{9001, 261, 3}, {300, 8031, 16}, {1100, 1150, 8}, {1450, 1500, 27}}) {
    SCOPED_TRACE(std::to_string(m) + " x " + std::to_string(n) + " times " + std::to_string(columns));
    const HostMatrix<T> A = HostMatrix<T>::random(m, n, 60);
    ASSERT_GE(A.data.size() * sizeof(T), std::size_t{4} << 20);
    const Buffer<T> a(la, m + 3, n);
    la.fill(a, std::numeric_limits<T>::quiet_NaN());
    const Mat<T> inner = a.mat().block(1, 0, m, n);
    la.upload(A.data.data(), inner);
    for (const Op op : {Op::none, Op::transpose}) {
      const HostMatrix<T> X = HostMatrix<T>::random(op == Op::none ? n : m, columns, 61);
      const HostMatrix<double> there = test::product(op == Op::none ? A : A.transposed(), X);
      const HostMatrix<double> back = test::product(op == Op::none ? A.transposed() : A, there);
      const Buffer<T> x(la, X.rows, columns), y(la, there.rows, columns), z(la, X.rows, columns);
      la.upload(X.data.data(), x);
      const auto read = [&](const Buffer<T>& from) {
        HostMatrix<T> out(from.rows(), columns);
        la.download(from, out.data.data());
        return out;
      };
      la.fill(y, std::numeric_limits<T>::quiet_NaN());
      la.fill(z, std::numeric_limits<T>::quiet_NaN());
      la.multiply_there_and_back(op, inner, x, y, z);
      EXPECT_LE(test::difference(read(y), there), 10000 * eps);
      EXPECT_LE(test::difference(read(z), back), 2e6 * eps);  // entries of about 8000
      la.multiply(op, Op::none, T{2}, inner, x, T{-2}, y);  // 2 A X - 2 A X
      EXPECT_LE(test::largest_entry(read(y)), 20000 * eps);
    }
  }
}

TEST_F(Threads, narrow_products_of_workers_are_what_one_thread_computes) {
  const auto scope = backend->narrow_scope();
  ASSERT_EQ(lapack::narrow_workers(), 2);
  check_shared_products<float>(*backend);
  check_shared_products<double>(*backend);
}

// An operator of the caller, which sees the threads that the caller gave it.
class Watched final : public Operator<float> {
 public:
  explicit Watched(const HostMatrix<float>& A) : product_({A.view()}) {}
  index_t rows() const override { return product_.rows(); }
  index_t cols() const override { return product_.cols(); }
  void apply(const Context& context, MatrixView<const float> X, MatrixView<float> Y) const override {
    product_.apply(context, X, Y);
    see();
  }
  void apply_transposed(const Context& context, MatrixView<const float> Y, MatrixView<float> X) const override {
    product_.apply_transposed(context, Y, X);
    see();
  }
  mutable std::set<int> seen;

 private:
  void see() const {
    seen.insert(lapack::blas_threads_in_force());
    seen.insert(-lapack::narrow_workers());
  }
  Product<float> product_;
};

TEST_F(Threads, an_svd_by_blocks_is_the_same_with_workers) {
  const HostMatrix<float> A = HostMatrix<float>::random(1100, 1300, 5);  // 5.7 MB
  const Context context;
  for (const SvdParams::Method method : {SvdParams::Method::krylov, SvdParams::Method::quick}) {
    SvdParams params;
    params.rank = 5;
    params.method = method;
    params.tol = 1e-3;
    set_threads(1);
    const Svd<float> one = svd<float>(context, A.view(), params);
    set_threads(2);
    const Svd<float> two = svd<float>(context, A.view(), params);
    ASSERT_EQ(one.s.size(), two.s.size());
    EXPECT_EQ(one.columns, two.columns);
    EXPECT_NEAR(one.residual, two.residual, 1e-5);
    for (std::size_t i = 0; i < one.s.size(); ++i) EXPECT_NEAR(one.s[i], two.s[i], 2e-6 * one.s[0]);
    const Watched callers(A);
    const Svd<float> watched = svd<float>(context, callers, params);
    EXPECT_EQ(callers.seen, (std::set<int>{2, -1}));
    EXPECT_NEAR(watched.s[0], one.s[0], 0.01 * one.s[0]);  // quick: another basis
  }
  EXPECT_EQ(in_force(), 2);
}

TEST_F(Threads, the_exception_of_the_lowest_failing_item_is_thrown) {
  using std::chrono::milliseconds;
  for (int run = 0; run < 20; ++run) {
    // Item 3 fails after a later item has failed, and before one that runs beside it.
    const index_t other = run % 2 == 0 ? 5 : 4;
    const milliseconds slow(2), slower(other == 4 ? 5 : 0);
    std::atomic<int> started = 0;
    try {
      for_each(1000, [&](index_t i) {
        ++started;
        std::this_thread::sleep_for(i == 3 ? slow : i == other ? slower : milliseconds(0));
        if (i == 3 || i == other) throw std::runtime_error(std::to_string(i));
      });
      ADD_FAILURE() << "no exception";
    } catch (const std::runtime_error& e) {
      EXPECT_STREQ(e.what(), "3");
    }
    EXPECT_LT(started, 1000);
  }
  EXPECT_EQ(in_force(), 2);
}

TEST_F(Threads, a_poll_that_throws_stops_the_work) {
  for (const int limit : {2, 1}) {  // with workers, and without
    set_threads(limit);
    std::atomic<int> started = 0;
    int polls = 0;
    const auto caller = std::this_thread::get_id();
    const auto poll = [&] {
      EXPECT_EQ(std::this_thread::get_id(), caller);
      if (++polls == 3) throw Interrupted();
    };
    const auto sleep = [&](index_t) {
      ++started;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    };
    EXPECT_THROW(backend->for_each(1000, sleep, poll), Interrupted);
    EXPECT_EQ(polls, 3);
    EXPECT_GT(started, 0);
    EXPECT_LT(started, 100);
  }
  EXPECT_EQ(in_force(), 2);
}

// Nothing of ours lives in the child but the thread that forked, which holds a limit at that moment, as does another
// one that takes and drops them all the time.
TEST_F(Threads, work_goes_on_after_a_fork) {
  LinAlg<double>& la = backend->full();
  const auto work = [&] {
    constexpr index_t n = 100;
    std::atomic<int> good = 0;
    for_each(4, [&](index_t) {
      const Buffer<double> a(la, n, n), b(la, n, n), c(la, n, n);
      la.set_identity(a);
      la.set_identity(b);
      la.multiply(Op::none, Op::none, 1, a, b, 0, c);
      if (la.dot(c, c) == static_cast<double>(n)) ++good;
    });
    return good == 4;
  };
  ASSERT_TRUE(work());
  std::atomic<bool> stop = false;
  std::thread other([&] {
    while (!stop) {
      const auto small = backend->thread_scope(10), large = backend->thread_scope(5000);
    }
  });
  for (int round = 0; round < 20; ++round) {
    auto scope = backend->thread_scope(10);
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      alarm(20);  // a child that waits for ever ends by the signal
      scope.reset();
      _exit(!work() ? 1 : threads() != 2 ? 2 : in_force() != 2 ? 3 : 0);
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    scope.reset();
    EXPECT_TRUE(WIFEXITED(status)) << "signal " << WTERMSIG(status);
    EXPECT_EQ(WEXITSTATUS(status), 0);
    if (HasFailure()) break;
  }
  stop = true;
  other.join();
  EXPECT_TRUE(work());
  EXPECT_EQ(in_force(), 2);
}

TEST_F(Threads, blas_says_what_it_is) {
  EXPECT_NE(blas_info().find("OpenBLAS"), std::string::npos) << blas_info();
  EXPECT_NE(blas_info().find("LAPACK 3."), std::string::npos) << blas_info();
  EXPECT_NE(blas_info().find("-bit integers"), std::string::npos) << blas_info();
}

TEST(Context, asks_before_it_goes_on) {
  Context context;
  context.check_interrupt();
  int asked = 0;
  context.set_interrupt([&] { return ++asked == 2; });
  context.check_interrupt();
  EXPECT_THROW(context.check_interrupt(), Interrupted);
  EXPECT_EQ(context.backend().name(), "lapack");
  EXPECT_THROW(Context(nullptr), InvalidArgument);
  int major = 0, minor = 0, patch = 0, length = 0;
  EXPECT_EQ(std::sscanf(version(), "%d.%d.%d%n", &major, &minor, &patch, &length), 3) << version();
  EXPECT_EQ(version()[length], '\0') << version();
}

}  // namespace
