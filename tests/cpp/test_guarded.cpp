// The guarded backend itself: what it must catch, it catches.
#include "guarded.hpp"

#include <gtest/gtest.h>

#include <vector>

#include "engines.hpp"
#include "linalg/buffer.hpp"

namespace {

using namespace brockett;
using namespace brockett::linalg;
using namespace brockett::test;

class Guarded : public testing::Test {
 protected:
  void SetUp() override { testing::FLAGS_gtest_death_test_style = "threadsafe"; }

  std::shared_ptr<GuardedBackend> backend = make_guarded_backend();
  LinAlg<double>& la = backend->full();
};
using GuardedDeathTest = Guarded;

// Reads and writes that the compiler must not remove.
double read(const double* p) { return *static_cast<const volatile double*>(p); }
void write(double* p) { *static_cast<volatile double*>(p) = 1; }

constexpr char kWall[] = "guarded memory touched";

TEST_F(GuardedDeathTest, host_code_cannot_read_or_write_device_memory) {
  const Buffer<double> a(la, 5, 5);
  la.fill(a, 1.0);
  EXPECT_DEATH(read(a.data() + 7), kWall);
  EXPECT_DEATH(write(a.data()), kWall);
  EXPECT_EQ(to_host<double>(*backend, a.mat())(2, 3), 1.0);
}

TEST_F(GuardedDeathTest, freed_memory_stays_closed) {
  double* p = static_cast<double*>(la.allocate(80));
  la.deallocate(p);
  const Buffer<double> another(la, 10, 1);
  EXPECT_NE(another.data(), p);
  EXPECT_DEATH(read(p), kWall);
  EXPECT_DEATH(la.deallocate(p), "not allocated");
}

TEST_F(GuardedDeathTest, memory_left_behind_is_reported) {
  EXPECT_DEATH(
      {
        const auto other = make_guarded_backend();
        other->full().allocate(8);
      },
      "still allocated");
}

TEST_F(Guarded, primitives_refuse_host_memory_as_device_memory) {
  std::vector<double> host(100);
  const Buffer<double> a(la, 10, 10);
  la.fill(a, 1.0);
  double on_stack = 0;
  try {
    la.fill({&on_stack, 1, 1}, 1);
    ADD_FAILURE() << "took memory of the stack";
  } catch (const std::logic_error& e) {
    EXPECT_STREQ(e.what(), "guarded backend: fill: a device argument is not device memory");
  }
  const Mat<double> on_host(host.data(), 10, 10);
  EXPECT_THROW(la.fill(on_host, 1), std::logic_error);
  EXPECT_THROW(la.copy(on_host, a), std::logic_error);
  EXPECT_THROW(la.copy(a, on_host), std::logic_error);
  EXPECT_THROW(la.norm(on_host), std::logic_error);
  EXPECT_THROW(la.first_nonfinite(DType::float64, host.data(), 10, 10, 10), std::logic_error);
  EXPECT_THROW(la.multiply(Op::none, Op::none, 1, a, on_host, 0, a), std::logic_error);
  EXPECT_THROW(la.svd_thin(a, host.data(), on_host, on_host), std::logic_error);
  // Memory of another guarded backend is no device memory here either.
  const auto other = make_guarded_backend();
  const Buffer<double> foreign(other->full(), 10, 10);
  EXPECT_THROW(la.fill(foreign, 1), std::logic_error);
}

TEST_F(Guarded, primitives_refuse_device_memory_as_host_memory) {
  const Buffer<double> a(la, 10, 10), b(la, 10, 10);
  la.set_identity(a);
  EXPECT_THROW(la.upload(b.data(), a), std::logic_error);
  EXPECT_THROW(la.download(a, b.data()), std::logic_error);
  EXPECT_THROW(la.scale_columns(a, b.data()), std::logic_error);
  EXPECT_THROW(la.eigen_symmetric(a, b.data(), true), std::logic_error);
  EXPECT_THROW(la.column_dots(a, a, b.data()), std::logic_error);
}

TEST_F(Guarded, primitives_refuse_what_reaches_beyond_an_allocation) {
  const Buffer<double> a(la, 10, 10), b(la, 10, 10);
  EXPECT_THROW(la.fill({a.data(), 10, 11}, 0), std::logic_error);
  EXPECT_THROW(la.fill({a.data(), 10, 10, 11}, 0), std::logic_error);
  EXPECT_THROW(la.fill({a.data() + 1, 10, 10}, 0), std::logic_error);
  EXPECT_THROW(la.fill({a.data() - 1, 10, 10}, 0), std::logic_error);
  EXPECT_THROW(la.fill({a.data(), 10, 10, 9}, 0), std::logic_error);
  EXPECT_THROW(la.convert_from(DType::float64, b.data(), 11, a), std::logic_error);
  EXPECT_THROW(
      la.multiply_batched(Op::none, Op::none, 1, {a.data(), 2, 2}, 4, {a.data(), 2, 2}, 4, 0, {b.data(), 2, 2}, 4, 26),
      std::logic_error);
  la.fill({a.data(), 9, 10, 10}, 0);
  la.fill({a.data() + 1, 9, 10, 10}, 0);
}

TEST_F(Guarded, primitives_refuse_shapes_that_do_not_fit) {
  const Buffer<double> a(la, 3, 2), b(la, 3, 2), c(la, 3, 3);
  EXPECT_THROW(la.multiply(Op::none, Op::none, 1, a, b, 0, c), std::logic_error);
  EXPECT_THROW(la.add(1, a, c), std::logic_error);
  EXPECT_THROW(la.transpose(a, b), std::logic_error);
  EXPECT_THROW(la.cholesky(a), std::logic_error);
  EXPECT_THROW(la.lq_factor(a), std::logic_error);
  la.multiply(Op::none, Op::transpose, 1, a, b, 0, c);
}

TEST_F(Guarded, primitives_refuse_outputs_that_overlap_other_arguments) {
  const Buffer<double> buffer(la, 10, 10);
  const Mat<double> a = buffer;
  la.fill(a, 1);
  EXPECT_THROW(la.copy(a, a), std::logic_error);
  EXPECT_THROW(la.copy(a.block(0, 0, 5, 5), a.block(4, 4, 5, 5)), std::logic_error);
  EXPECT_THROW(la.copy(a.block(4, 0, 5, 5), a.block(0, 4, 5, 5)), std::logic_error);
  EXPECT_THROW(la.multiply(Op::none, Op::none, 1, a, a, 0, a), std::logic_error);
  // Side by side and below each other they do not.
  la.copy(a.block(0, 0, 5, 5), a.block(5, 5, 5, 5));
  la.copy(a.block(0, 0, 5, 10), a.block(5, 0, 5, 10));
  la.copy(a.block(5, 0, 5, 5), a.block(0, 5, 5, 5));
  la.add(1, a.columns(0, 5), a.columns(5, 5));
  la.accumulate_outer(Op::none, 1, a.block(0, 0, 5, 3), 0, a.block(5, 5, 5, 5));
}

TEST_F(Guarded, memory_starts_as_nan) {
  const Buffer<double> a(la, 3, 7);
  const Buffer<float> b(backend->single(), 3, 7);
  for (const double x : to_host<double>(*backend, a.mat()).data) EXPECT_TRUE(std::isnan(x));
  for (const float x : to_host<float>(*backend, b.mat()).data) EXPECT_TRUE(std::isnan(x));
}

// An algorithm of three allocations, of which `leaking` loses one and `swallowing` goes on without.
TEST_F(Guarded, sweeps_through_failing_allocations) {
  const auto clean = [&] {
    const Buffer<double> a(la, 2, 2), b(la, 2, 2);
    const Buffer<float> c(backend->single(), 2, 2);
  };
  EXPECT_EQ(sweep_failing_allocations(*backend, clean), 3U);
  EXPECT_EQ(backend->allocations(), 0U + 1 + 2 + 3);
  EXPECT_EQ(backend->live_allocations(), 0U);

  std::vector<void*> lost;
  const auto leaking = [&] {
    lost.push_back(la.allocate(8));
    la.deallocate(la.allocate(8));
    la.deallocate(lost.back());
    lost.pop_back();
  };
  EXPECT_THROW(sweep_failing_allocations(*backend, leaking), std::logic_error);
  for (void* p : lost) la.deallocate(p);

  const auto swallowing = [&] {
    try {
      la.deallocate(la.allocate(8));
    } catch (const OutOfMemory&) {
    }
  };
  EXPECT_THROW(sweep_failing_allocations(*backend, swallowing), std::logic_error);
}

// Workers hold keys to the same allocation at once, and the wall is up again after the last.
TEST_F(GuardedDeathTest, serves_workers) {
  const Buffer<double> a(la, 50, 50), out(la, 1, 64);
  la.fill(a, 1.0);
  backend->for_each(64,
                    [&](index_t i) {
                      const Buffer<double> mine(la, 50, 50);
                      la.copy(a, mine);
                      la.fill(out.mat().columns(i, 1), la.norm(mine));
                    },
                    {});
  for (const double x : to_host<double>(*backend, out.mat()).data) EXPECT_EQ(x, 50);
  EXPECT_DEATH(read(a.data()), kWall);
}

}  // namespace
