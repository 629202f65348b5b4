// The stand-in for CUDA itself: what it must catch, it catches, in the modes that can.
#include <cusolverDn.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "control.h"
#include "shim_launch.hpp"

namespace {

constexpr int kEager = 0, kDeferred = 1, kGuard = 2;

template <class T>
T* on_device(std::size_t count) {
  void* p = nullptr;
  EXPECT_EQ(cudaMalloc(&p, count * sizeof(T)), cudaSuccess);
  return static_cast<T*>(p);
}

class Stream {
 public:
  explicit Stream(unsigned flags = cudaStreamNonBlocking) {
    EXPECT_EQ(cudaStreamCreateWithFlags(&stream_, flags), cudaSuccess);
  }
  ~Stream() { EXPECT_EQ(cudaStreamDestroy(stream_), cudaSuccess); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  operator cudaStream_t() const { return stream_; }  // NOLINT: implicit on purpose
  void wait() const { EXPECT_EQ(cudaStreamSynchronize(stream_), cudaSuccess); }

 private:
  cudaStream_t stream_ = nullptr;
};

class Event {
 public:
  Event() { EXPECT_EQ(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), cudaSuccess); }
  ~Event() { EXPECT_EQ(cudaEventDestroy(event_), cudaSuccess); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  operator cudaEvent_t() const { return event_; }  // NOLINT: implicit on purpose

 private:
  cudaEvent_t event_ = nullptr;
};

class Blas {
 public:
  explicit Blas(cudaStream_t stream) {
    EXPECT_EQ(cublasCreate(&handle_), CUBLAS_STATUS_SUCCESS);
    EXPECT_EQ(cublasSetStream(handle_, stream), CUBLAS_STATUS_SUCCESS);
  }
  ~Blas() { EXPECT_EQ(cublasDestroy(handle_), CUBLAS_STATUS_SUCCESS); }
  Blas(const Blas&) = delete;
  Blas& operator=(const Blas&) = delete;
  operator cublasHandle_t() const { return handle_; }  // NOLINT: implicit on purpose

 private:
  cublasHandle_t handle_ = nullptr;
};

class Solver {
 public:
  explicit Solver(cudaStream_t stream) {
    EXPECT_EQ(cusolverDnCreate(&handle_), CUSOLVER_STATUS_SUCCESS);
    EXPECT_EQ(cusolverDnSetStream(handle_, stream), CUSOLVER_STATUS_SUCCESS);
  }
  ~Solver() { EXPECT_EQ(cusolverDnDestroy(handle_), CUSOLVER_STATUS_SUCCESS); }
  Solver(const Solver&) = delete;
  Solver& operator=(const Solver&) = delete;
  operator cusolverDnHandle_t() const { return handle_; }  // NOLINT: implicit on purpose

 private:
  cusolverDnHandle_t handle_ = nullptr;
};

class Pool {
 public:
  explicit Pool(int device = 0) {
    cudaMemPoolProps properties = {};
    properties.allocType = cudaMemAllocationTypePinned;
    properties.location.type = cudaMemLocationTypeDevice;
    properties.location.id = device;
    EXPECT_EQ(cudaMemPoolCreate(&pool_, &properties), cudaSuccess);
  }
  ~Pool() { EXPECT_EQ(cudaMemPoolDestroy(pool_), cudaSuccess); }
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;
  operator cudaMemPool_t() const { return pool_; }  // NOLINT: implicit on purpose
  double* allocate(std::size_t count, cudaStream_t stream) const {
    void* p = nullptr;
    EXPECT_EQ(cudaMallocFromPoolAsync(&p, count * sizeof(double), pool_, stream), cudaSuccess);
    return static_cast<double*>(p);
  }
  std::uint64_t attribute(cudaMemPoolAttr which) const {
    std::uint64_t bytes = 0;
    EXPECT_EQ(cudaMemPoolGetAttribute(pool_, which, &bytes), cudaSuccess);
    return bytes;
  }

 private:
  cudaMemPool_t pool_ = nullptr;
};

class CudaShim : public testing::Test {
 protected:
  void SetUp() override {
    testing::FLAGS_gtest_death_test_style = "threadsafe";
    allocations_ = brockett_shim_live_allocations();
    handles_ = brockett_shim_live_handles();
  }
  void TearDown() override {
    brockett_shim_reset();
    EXPECT_EQ(cudaSetDevice(0), cudaSuccess);
    EXPECT_EQ(cudaGetLastError(), cudaSuccess);
    EXPECT_EQ(brockett_shim_live_allocations(), allocations_);
    EXPECT_EQ(brockett_shim_live_handles(), handles_);
  }
  const int mode = brockett_shim_mode();

 private:
  std::size_t allocations_ = 0, handles_ = 0;
};
using CudaShimDeathTest = CudaShim;

void upload(double* to, const std::vector<double>& from, cudaStream_t stream) {
  ASSERT_EQ(cudaMemcpyAsync(to, from.data(), from.size() * sizeof(double), cudaMemcpyHostToDevice, stream),
            cudaSuccess);
  ASSERT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
}
std::vector<double> download(const double* from, std::size_t count, cudaStream_t stream) {
  std::vector<double> to(count);
  EXPECT_EQ(cudaMemcpyAsync(to.data(), from, count * sizeof(double), cudaMemcpyDeviceToHost, stream), cudaSuccess);
  EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
  return to;
}
void set(double* p, double value, cudaStream_t stream) {
  shim::submit(stream, [=] { *p = value; });
}
void add(double* p, double value, cudaStream_t stream) {
  shim::submit(stream, [=] { *p += value; });
}

// --- when work runs -------------------------------------------------------------------------------------------------------

TEST_F(CudaShim, work_waits_for_a_synchronisation_unless_eager) {
  const Stream stream;
  int runs = 0;
  shim::submit(stream, [&] { ++runs; });
  EXPECT_EQ(runs, mode == kEager ? 1 : 0);
  EXPECT_EQ(brockett_shim_pending() > 0, mode != kEager);
  stream.wait();
  EXPECT_EQ(runs, 1);
}

TEST_F(CudaShim, one_stream_keeps_its_order_and_two_do_not) {
  const Stream older, newer;
  std::string order;
  shim::submit(older, [&] { order += 'a'; });
  shim::submit(newer, [&] { order += 'b'; });
  shim::submit(older, [&] { order += 'c'; });
  older.wait();
  EXPECT_EQ(order, mode == kEager ? "abc" : mode == kDeferred ? "bac" : "ac");
  newer.wait();
  EXPECT_EQ(order, mode == kGuard ? "acb" : order);
}

// Each thread runs once; which comes first is another in each mode.
TEST_F(CudaShim, threads_run_in_no_order) {
  for (const std::int64_t n : {0, 1, 2, 1000, 999983, 1000003}) {
    std::vector<int> runs(static_cast<std::size_t>(n), 0);
    std::vector<std::int64_t> order;
    shim::in_some_order(n, [&](std::int64_t k) {
      ++runs[static_cast<std::size_t>(k)];
      order.push_back(k);
    });
    EXPECT_EQ(std::count(runs.begin(), runs.end(), 1), n);
    EXPECT_EQ(std::is_sorted(order.begin(), order.end()), mode == kEager || n <= 1 || (mode == kGuard && n == 2)) << n;
    EXPECT_EQ(std::is_sorted(order.rbegin(), order.rend()), mode == kDeferred || n <= 1) << n;
  }
}

TEST_F(CudaShim, events_hold_a_stream_up) {
  const Stream older, newer;
  const Event event;
  std::string order;
  shim::submit(older, [&] { order += 'a'; });
  ASSERT_EQ(cudaEventRecord(event, older), cudaSuccess);
  shim::submit(older, [&] { order += 'x'; });
  ASSERT_EQ(cudaStreamWaitEvent(newer, event, 0), cudaSuccess);
  shim::submit(newer, [&] { order += 'b'; });
  newer.wait();
  EXPECT_LT(order.find('a'), order.find('b'));
  if (mode == kGuard) {
    EXPECT_EQ(order, "ab");  // what follows the event is nobody's business
  }
  older.wait();
  EXPECT_EQ(order.size(), 3U);
}

TEST_F(CudaShim, an_event_can_be_waited_for_on_the_host) {
  const Stream stream;
  const Event event;
  int runs = 0;
  shim::submit(stream, [&] { ++runs; });
  ASSERT_EQ(cudaEventRecord(event, stream), cudaSuccess);
  ASSERT_EQ(cudaEventSynchronize(event), cudaSuccess);
  EXPECT_EQ(runs, 1);
}

TEST_F(CudaShim, the_default_stream_orders_itself_with_blocking_streams_only) {
  const Stream blocking(cudaStreamDefault), free_one;
  std::string order;
  shim::submit(blocking, [&] { order += 'a'; });
  shim::submit(free_one, [&] { order += 'f'; });
  shim::submit(nullptr, [&] { order += 'b'; });
  shim::submit(blocking, [&] { order += 'c'; });
  blocking.wait();
  std::erase(order, 'f');
  EXPECT_EQ(order, "abc");
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
}

// --- memory ---------------------------------------------------------------------------------------------------------------

TEST_F(CudaShim, memory_starts_as_nan_and_is_counted) {
  const std::size_t bytes = brockett_shim_live_bytes();
  double* p = on_device<double>(10);
  EXPECT_EQ(brockett_shim_live_bytes(), bytes + 80);
  for (const double x : download(p, 10, nullptr)) EXPECT_TRUE(std::isnan(x));
  std::size_t free = 0, total = 0;
  ASSERT_EQ(cudaMemGetInfo(&free, &total), cudaSuccess);
  EXPECT_LE(free, total - 80);
  ASSERT_EQ(cudaFree(p), cudaSuccess);
}

// Read and write so that the compiler must not remove it.
double peek(const double* p) { return *static_cast<const volatile double*>(p); }

TEST_F(CudaShimDeathTest, the_host_cannot_touch_device_memory_in_guard_mode) {
  double* p = on_device<double>(10);
  if (mode == kGuard) {
    EXPECT_DEATH(peek(p), "touched by the host");
  }
  ASSERT_EQ(cudaFree(p), cudaSuccess);
  EXPECT_DEATH(peek(p), "touched by the host");  // freed memory is closed in every mode
}

TEST_F(CudaShimDeathTest, a_kernel_cannot_leave_its_bounds) {
  double* p = on_device<double>(512);
  const Stream stream;
  EXPECT_DEATH(
      {
        shim::submit(stream, [=] { p[512] = 1; });
        stream.wait();
      },
      "outside its bounds");
  double* odd = on_device<double>(3);
  EXPECT_DEATH(
      {
        shim::submit(stream, [=] { odd[3] = 1; });
        stream.wait();
        cudaFree(odd);
      },
      "written beyond the end");
  ASSERT_EQ(cudaFree(p), cudaSuccess);
  ASSERT_EQ(cudaFree(odd), cudaSuccess);
}

TEST_F(CudaShimDeathTest, copies_check_both_sides) {
  double host[4] = {};
  double* p = on_device<double>(4);
  EXPECT_DEATH(cudaMemcpyAsync(host, host, 32, cudaMemcpyHostToDevice, nullptr), "the target is not device memory");
  EXPECT_DEATH(cudaMemcpyAsync(p, p, 32, cudaMemcpyHostToDevice, nullptr), "the source is device memory");
  EXPECT_DEATH(cudaMemcpyAsync(p, p, 32, cudaMemcpyDeviceToHost, nullptr), "the target is device memory");
  EXPECT_DEATH(cudaMemcpyAsync(p + 1, host, 32, cudaMemcpyHostToDevice, nullptr),
               "8 bytes beyond its allocation of 32");
  EXPECT_DEATH(cudaMemsetAsync(host, 0, 8, nullptr), "the target is not device memory");
  EXPECT_DEATH(cudaFree(p + 1), "not allocated");
  ASSERT_EQ(cudaFree(p), cudaSuccess);
  EXPECT_DEATH(cudaFree(p), "not allocated");
  EXPECT_DEATH(cudaMemsetAsync(p, 0, 8, nullptr), "was freed, or never allocated");
}

TEST_F(CudaShimDeathTest, pool_memory_follows_the_order_of_streams) {
  const Pool pool;
  const Stream one, two;
  const Event event;
  double* p = pool.allocate(4, one);
  EXPECT_DEATH(cudaMemsetAsync(p, 0, 32, two), "does not wait for its allocation");
  ASSERT_EQ(cudaEventRecord(event, one), cudaSuccess);
  ASSERT_EQ(cudaStreamWaitEvent(two, event, 0), cudaSuccess);
  ASSERT_EQ(cudaMemsetAsync(p, 0, 32, two), cudaSuccess);
  EXPECT_DEATH(cudaFreeAsync(p, one), "work of another stream may still use");
  ASSERT_EQ(cudaEventRecord(event, two), cudaSuccess);
  ASSERT_EQ(cudaStreamWaitEvent(one, event, 0), cudaSuccess);
  ASSERT_EQ(cudaFreeAsync(p, one), cudaSuccess);
  EXPECT_DEATH(cudaMemsetAsync(p, 0, 32, one), "was freed");
  EXPECT_EQ(pool.attribute(cudaMemPoolAttrUsedMemCurrent), 0U);
  one.wait();
}

TEST_F(CudaShim, a_host_that_waited_may_do_what_it_likes) {
  const Pool pool;
  const Stream one, two;
  double* p = pool.allocate(4, one);
  one.wait();
  ASSERT_EQ(cudaMemsetAsync(p, 0, 32, two), cudaSuccess);
  two.wait();
  ASSERT_EQ(cudaFreeAsync(p, one), cudaSuccess);
  one.wait();
}

TEST_F(CudaShim, pools_keep_what_was_freed_up_to_their_threshold) {
  const Pool pool;
  const Stream stream;
  std::uint64_t all = ~std::uint64_t{0};
  ASSERT_EQ(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &all), cudaSuccess);
  ASSERT_EQ(cudaFreeAsync(pool.allocate(100, stream), stream), cudaSuccess);
  stream.wait();
  EXPECT_EQ(pool.attribute(cudaMemPoolAttrUsedMemCurrent), 0U);
  EXPECT_EQ(pool.attribute(cudaMemPoolAttrReservedMemCurrent), 800U);
  ASSERT_EQ(cudaMemPoolTrimTo(pool, 0), cudaSuccess);
  EXPECT_EQ(pool.attribute(cudaMemPoolAttrReservedMemCurrent), 0U);
  all = 0;
  ASSERT_EQ(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &all), cudaSuccess);
  ASSERT_EQ(cudaFreeAsync(pool.allocate(100, stream), stream), cudaSuccess);
  EXPECT_EQ(pool.attribute(cudaMemPoolAttrReservedMemCurrent), 800U);
  stream.wait();
  EXPECT_EQ(pool.attribute(cudaMemPoolAttrReservedMemCurrent), 0U);
}

TEST_F(CudaShimDeathTest, pinned_memory_must_outlive_the_copies) {
  void* pinned = nullptr;
  ASSERT_EQ(cudaMallocHost(&pinned, 64), cudaSuccess);
  cudaPointerAttributes attributes = {};
  ASSERT_EQ(cudaPointerGetAttributes(&attributes, pinned), cudaSuccess);
  EXPECT_EQ(attributes.type, cudaMemoryTypeHost);
  double* p = on_device<double>(8);
  ASSERT_EQ(cudaPointerGetAttributes(&attributes, p + 3), cudaSuccess);
  EXPECT_EQ(attributes.type, cudaMemoryTypeDevice);
  EXPECT_EQ(attributes.device, 0);
  ASSERT_EQ(cudaPointerGetAttributes(&attributes, this), cudaSuccess);
  EXPECT_EQ(attributes.type, cudaMemoryTypeUnregistered);

  const Stream stream;
  ASSERT_EQ(cudaMemcpyAsync(p, pinned, 64, cudaMemcpyHostToDevice, stream), cudaSuccess);
  EXPECT_DEATH(cudaFreeHost(pinned), "nobody waited for");
  EXPECT_DEATH(cudaMemcpyAsync(p, static_cast<double*>(pinned) + 1, 64, cudaMemcpyHostToDevice, stream),
               "beyond its pinned memory");
  stream.wait();
  ASSERT_EQ(cudaFreeHost(pinned), cudaSuccess);
  ASSERT_EQ(cudaFree(p), cudaSuccess);
}

TEST_F(CudaShim, running_out_of_memory_is_reported_and_remembered_once) {
  brockett_shim_set_memory(1000);
  void* p = nullptr;
  EXPECT_EQ(cudaMalloc(&p, 1001), cudaErrorMemoryAllocation);
  EXPECT_EQ(p, nullptr);
  EXPECT_EQ(cudaGetLastError(), cudaErrorMemoryAllocation);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
  brockett_shim_fail_allocation(2);
  double* q = on_device<double>(1);
  EXPECT_TRUE(brockett_shim_failure_pending());
  EXPECT_EQ(cudaMalloc(&p, 8), cudaErrorMemoryAllocation);
  EXPECT_FALSE(brockett_shim_failure_pending());
  EXPECT_EQ(cudaMalloc(&p, 8), cudaErrorMemoryAllocation);
  EXPECT_EQ(cudaGetLastError(), cudaErrorMemoryAllocation);
  brockett_shim_fail_allocations(1, 1);
  EXPECT_EQ(cudaMalloc(&p, 8), cudaErrorMemoryAllocation);
  EXPECT_EQ(cudaGetLastError(), cudaErrorMemoryAllocation);
  EXPECT_EQ(cudaMalloc(&p, 8), cudaSuccess);
  ASSERT_EQ(cudaFree(p), cudaSuccess);
  ASSERT_EQ(cudaFree(q), cudaSuccess);
}

// --- devices --------------------------------------------------------------------------------------------------------------

TEST_F(CudaShimDeathTest, devices_do_not_mix) {
  int count = 0;
  ASSERT_EQ(cudaGetDeviceCount(&count), cudaSuccess);
  ASSERT_EQ(count, 2);
  const Stream first;
  const Blas blas(first);
  double* p = on_device<double>(4);
  ASSERT_EQ(cudaSetDevice(1), cudaSuccess);
  const Stream second;
  double* q = on_device<double>(4);
  EXPECT_DEATH(shim::submit(first, [] {}), "device 1 is current, the stream belongs to device 0");
  EXPECT_DEATH(cudaMemsetAsync(p, 0, 8, second), "lies on device 0, the stream belongs to device 1");
  const double one = 1, zero = 0;
  EXPECT_DEATH(cublasDgemm_64(blas, CUBLAS_OP_N, CUBLAS_OP_N, 2, 2, 2, &one, p, 2, p, 2, &zero, p, 2),
               "the handle belongs to device 0");
  ASSERT_EQ(cudaFree(q), cudaSuccess);
  EXPECT_EQ(cudaSetDevice(2), cudaErrorInvalidDevice);
  EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidDevice);
  ASSERT_EQ(cudaSetDevice(0), cudaSuccess);
  ASSERT_EQ(cudaFree(p), cudaSuccess);
}

TEST_F(CudaShim, drivers_may_be_missing_or_old) {
  int count = 7;
  brockett_shim_set_driver(0);
  EXPECT_EQ(cudaGetDeviceCount(&count), cudaErrorInsufficientDriver);
  EXPECT_EQ(count, 0);
  brockett_shim_set_driver(12080);
  EXPECT_EQ(cudaGetDeviceCount(&count), cudaErrorInsufficientDriver);
  int version = 0;
  EXPECT_EQ(cudaDriverGetVersion(&version), cudaSuccess);
  EXPECT_EQ(version, 12080);
  cublasHandle_t handle = nullptr;
  EXPECT_EQ(cublasCreate(&handle), CUBLAS_STATUS_NOT_INITIALIZED);
  brockett_shim_set_driver(13000);
  brockett_shim_set_devices(0);
  EXPECT_EQ(cudaGetDeviceCount(&count), cudaErrorNoDevice);
  EXPECT_STREQ(cudaGetErrorName(cudaGetLastError()), "cudaErrorNoDevice");
}

// --- libraries ------------------------------------------------------------------------------------------------------------

TEST_F(CudaShimDeathTest, library_calls_check_every_argument) {
  const Stream stream;
  const Blas blas(stream);
  double* p = on_device<double>(12);
  double host[12] = {};
  const double one = 1, zero = 0;
  const auto gemm = [&](const double* a, int64_t lda, double* c, int64_t ldc) {
    return cublasDgemm_64(blas, CUBLAS_OP_N, CUBLAS_OP_T, 2, 2, 3, &one, a, lda, p, 2, &zero, c, ldc);
  };
  EXPECT_EQ(gemm(p, 2, p + 6, 2), CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(gemm(p, 1, p + 6, 2), CUBLAS_STATUS_INVALID_VALUE);
  EXPECT_DEATH(gemm(host, 2, p, 2), "cublasDgemm_v2_64: A is not device memory");
  EXPECT_DEATH(gemm(p, 6, p, 2), "A reaches 16 bytes beyond its allocation of 96");
  EXPECT_DEATH(gemm(p, 2, p + 6, 5), "C reaches 8 bytes beyond");
  EXPECT_DEATH(cublasDgemm_64(blas, CUBLAS_OP_N, CUBLAS_OP_N, 1, 1, 1, p, p, 1, p, 1, &zero, p, 1),
               "alpha is device memory");
  EXPECT_DEATH(cublasDsyrk_64(blas, CUBLAS_FILL_MODE_LOWER, CUBLAS_OP_N, 4, 1, &one, p, 4, &zero, p, 4),
               "cublasDsyrk_v2_64: C reaches");
  stream.wait();
  ASSERT_EQ(cudaFree(p), cudaSuccess);
  const auto gone = [] {
    const Stream s;
    const Blas b(s);
    return static_cast<cublasHandle_t>(b);
  }();
  EXPECT_DEATH(cublasSetStream(gone, stream), "was destroyed");
}

TEST_F(CudaShim, products_are_those_of_the_stream) {
  const Stream stream;
  const Blas blas(stream);
  double* p = on_device<double>(12);
  upload(p, {1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0}, stream);
  const double one = 1, zero = 0;
  // [1 3; 2 4] [5 7; 6 8]^T
  ASSERT_EQ(cublasDgemm_64(blas, CUBLAS_OP_N, CUBLAS_OP_T, 2, 2, 2, &one, p, 2, p + 4, 2, &zero, p + 8, 2),
            CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(download(p + 8, 4, stream), (std::vector<double>{26, 38, 30, 44}));
  ASSERT_EQ(cudaFree(p), cudaSuccess);
}

struct Eigen {
  std::size_t device_bytes = 0, host_bytes = 0;
  double *a, *w, *work;
  int* info;
  std::vector<char> host;
  Eigen(cusolverDnHandle_t solver, std::int64_t n) : a(on_device<double>(9)), w(on_device<double>(3)) {
    EXPECT_EQ(cusolverDnXsyevd_bufferSize(solver, nullptr, CUSOLVER_EIG_MODE_NOVECTOR, CUBLAS_FILL_MODE_LOWER, n,
                                          CUDA_R_64F, a, 3, CUDA_R_64F, w, CUDA_R_64F, &device_bytes, &host_bytes),
              CUSOLVER_STATUS_SUCCESS);
    work = on_device<double>(device_bytes / sizeof(double) + 1);
    info = on_device<int>(1);
    host.resize(host_bytes);
  }
  ~Eigen() {
    for (void* p : {static_cast<void*>(a), static_cast<void*>(w), static_cast<void*>(work), static_cast<void*>(info)}) {
      cudaFree(p);
    }
  }
  cusolverStatus_t run(cusolverDnHandle_t solver, std::size_t short_of = 0) {
    return cusolverDnXsyevd(solver, nullptr, CUSOLVER_EIG_MODE_NOVECTOR, CUBLAS_FILL_MODE_LOWER, 3, CUDA_R_64F, a, 3,
                            CUDA_R_64F, w, CUDA_R_64F, work, device_bytes - short_of, host.data(), host_bytes, info);
  }
};

TEST_F(CudaShim, solvers_want_their_workspace_and_destroy_their_input) {
  const Stream stream;
  const Solver solver(stream);
  Eigen problem(solver, 3);
  upload(problem.a, {2, 0, 0, 9, 3, 0, 9, 9, 1}, stream);
  EXPECT_EQ(problem.run(solver, 8), CUSOLVER_STATUS_INVALID_VALUE);
  EXPECT_EQ(problem.run(solver), CUSOLVER_STATUS_SUCCESS);
  EXPECT_EQ(download(problem.w, 3, stream), (std::vector<double>{1, 2, 3}));
  for (const double x : download(problem.a, 9, stream)) EXPECT_TRUE(std::isnan(x));
  for (const char c : problem.host) EXPECT_EQ(static_cast<unsigned char>(c), 0xFF);
}

TEST_F(CudaShim, solvers_fail_to_converge_when_told_to) {
  const Stream stream;
  const Solver solver(stream);
  Eigen problem(solver, 3);
  upload(problem.a, {2, 0, 0, 9, 3, 0, 9, 9, 1}, stream);
  brockett_shim_fail_info("cusolverDnXsyevd", 2, 1);
  const std::size_t calls = brockett_shim_calls("cusolverDnXsyevd");
  EXPECT_EQ(problem.run(solver), CUSOLVER_STATUS_SUCCESS);
  EXPECT_EQ(brockett_shim_calls("cusolverDnXsyevd"), calls + 1);
  int info = 0;
  ASSERT_EQ(cudaMemcpyAsync(&info, problem.info, sizeof info, cudaMemcpyDeviceToHost, stream), cudaSuccess);
  stream.wait();
  EXPECT_EQ(info, 2);
  for (const double x : download(problem.w, 3, stream)) EXPECT_TRUE(std::isnan(x));
  brockett_shim_fail_status("cusolverDnXsyevd", CUSOLVER_STATUS_INTERNAL_ERROR, 1);
  EXPECT_EQ(problem.run(solver), CUSOLVER_STATUS_INTERNAL_ERROR);
}

TEST_F(CudaShim, limits_of_the_originals_hold) {
  const Stream stream;
  const Solver solver(stream);
  std::size_t device_bytes = 0, host_bytes = 0;
  EXPECT_EQ(cusolverDnXgesvd_bufferSize(solver, nullptr, 'S', 'S', 2, 3, CUDA_R_64F, nullptr, 2, CUDA_R_64F, nullptr,
                                        CUDA_R_64F, nullptr, 2, CUDA_R_64F, nullptr, 3, CUDA_R_64F, &device_bytes,
                                        &host_bytes),
            CUSOLVER_STATUS_INVALID_VALUE);
  const auto batched = [&](std::int64_t n, std::int64_t batch) {
    return cusolverDnXsyevBatched_bufferSize(solver, nullptr, CUSOLVER_EIG_MODE_NOVECTOR, CUBLAS_FILL_MODE_LOWER, n,
                                             CUDA_R_64F, nullptr, n, CUDA_R_64F, nullptr, CUDA_R_64F, &device_bytes,
                                             &host_bytes, batch);
  };
  EXPECT_EQ(batched(1 << 10, (1 << 11) - 1), CUSOLVER_STATUS_SUCCESS);
  EXPECT_EQ(batched(1 << 10, 1 << 11), CUSOLVER_STATUS_INVALID_VALUE);
  EXPECT_EQ(batched(3, 40000), CUSOLVER_STATUS_INVALID_VALUE);
  double* memory = on_device<double>(8);
  const auto polar = [&](double* U, std::int64_t ldu, double* V, std::int64_t ldv) {
    return cusolverDnXgesvdp_bufferSize(solver, nullptr, CUSOLVER_EIG_MODE_NOVECTOR, 1, 2, 2, CUDA_R_64F, memory, 2,
                                        CUDA_R_64F, memory, CUDA_R_64F, U, ldu, CUDA_R_64F, V, ldv, CUDA_R_64F,
                                        &device_bytes, &host_bytes);
  };
  EXPECT_EQ(polar(memory, 2, memory + 4, 2), CUSOLVER_STATUS_SUCCESS);
  EXPECT_EQ(polar(nullptr, 2, nullptr, 2), CUSOLVER_STATUS_INVALID_VALUE);
  EXPECT_EQ(polar(memory, 1, memory + 4, 2), CUSOLVER_STATUS_INVALID_VALUE);
  EXPECT_EQ(polar(memory, 2, memory + 4, 1), CUSOLVER_STATUS_INVALID_VALUE);
  ASSERT_EQ(cudaFree(memory), cudaSuccess);
}

TEST_F(CudaShim, reduced_precisions_round_their_inputs) {
  const Stream stream;
  const Blas blas(stream);
  float* p = on_device<float>(3);
  const float x = 1 + 0x1p-11F + 0x1p-12F, one = 1, zero = 0;  // 1 + 2^-10 in tf32, 1 in bfloat16
  const auto square = [&](cudaDataType type, cublasComputeType_t compute) {
    EXPECT_EQ(cudaMemcpyAsync(p, &x, sizeof x, cudaMemcpyHostToDevice, stream), cudaSuccess);
    EXPECT_EQ(cublasGemmEx_64(blas, CUBLAS_OP_N, CUBLAS_OP_N, 1, 1, 1, &one, p, type, 1, p, type, 1, &zero, p + 1,
                              CUDA_R_32F, 1, compute, CUBLAS_GEMM_DEFAULT),
              CUBLAS_STATUS_SUCCESS);
    float out = 0;
    EXPECT_EQ(cudaMemcpyAsync(&out, p + 1, sizeof out, cudaMemcpyDeviceToHost, stream), cudaSuccess);
    stream.wait();
    return out;
  };
  EXPECT_EQ(square(CUDA_R_32F, CUBLAS_COMPUTE_32F), x * x);
  EXPECT_EQ(square(CUDA_R_32F, CUBLAS_COMPUTE_32F_FAST_TF32), (1 + 0x1p-10F) * (1 + 0x1p-10F));
  EXPECT_EQ(square(CUDA_R_32F, CUBLAS_COMPUTE_32F_FAST_16BF), 1);
  EXPECT_EQ(cublasGemmEx_64(blas, CUBLAS_OP_N, CUBLAS_OP_N, 1, 1, 1, &one, p, CUDA_R_16F, 1, p, CUDA_R_16BF, 1, &zero,
                            p, CUDA_R_32F, 1, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
            CUBLAS_STATUS_NOT_SUPPORTED);
  ASSERT_EQ(cudaFree(p), cudaSuccess);
}

TEST_F(CudaShim, statuses_and_launches_fail_when_told_to) {
  const Stream stream;
  brockett_shim_fail_status("kernel", cudaErrorLaunchFailure, 1);
  int runs = 0;
  shim::submit(stream, [&] { ++runs; });
  stream.wait();
  EXPECT_EQ(runs, 0);
  EXPECT_EQ(cudaGetLastError(), cudaErrorLaunchFailure);
  brockett_shim_fail_status("cudaStreamSynchronize", cudaErrorIllegalAddress, 1);
  EXPECT_EQ(cudaStreamSynchronize(stream), cudaErrorIllegalAddress);
  EXPECT_EQ(cudaGetLastError(), cudaErrorIllegalAddress);
}

// A kernel on one stream that reads what another stream writes, without an event between: wrong in one mode at least,
// whichever of the two streams is the older.
TEST_F(CudaShim, a_missing_wait_shows_in_one_order_or_the_other) {
  int wrong = 0;
  for (const bool writer_is_older : {true, false}) {
    const Stream a, b;
    const Stream &writer = writer_is_older ? a : b, &reader = writer_is_older ? b : a;
    double* p = on_device<double>(1);
    set(p, 1, writer);
    add(p, 1, reader);
    reader.wait();
    writer.wait();
    wrong += download(p, 1, writer)[0] != 2;
    ASSERT_EQ(cudaFree(p), cudaSuccess);
  }
  if (mode == kEager) {
    EXPECT_EQ(wrong, 0);  // which is why eager is not enough
  } else {
    EXPECT_GE(wrong, 1);
  }
}

}  // namespace
