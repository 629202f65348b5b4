// One text of a test for every engine: TYPED_TEST over {lapack, guarded, cuda} x {float, double}; cuda is the CUDA backend
// over a stand-in for CUDA (cuda_shim/), which ctest runs in each of its modes.
//
//   template <class E> class Svd : public brockett::test::EngineTest<E> {};
//   TYPED_TEST_SUITE(Svd, brockett::test::Engines, brockett::test::EngineNames);
//   TYPED_TEST(Svd, of_a_diagonal) {
//     using T = typename TypeParam::T;
//     const auto A = this->to_device(HostMatrix<T>{{3, 0}, {0, 2}});
//     const auto r = brockett::svd<T>(this->context, A.view());
//     const HostMatrix<T> U = this->to_host(r.U);
//   }
//
// No fixture has a member called T: -Wshadow would refuse the alias in the test.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <utility>

#include "brockett/context.hpp"
#include "brockett/cuda.hpp"
#include "control.h"
#include "cuda_runtime_api.h"
#include "guarded.hpp"
#include "host_matrix.hpp"
#include "linalg/buffer.hpp"
#include "linalg/cuda/plugin.hpp"
#include "linalg/linalg.hpp"

namespace brockett::test {

/// A matrix in the memory of a backend, in either order, its leading dimension larger than need be by `padding`; what
/// lies between the columns is NaN, so that reading it shows.
template <class T>
class DeviceMatrix {
 public:
  DeviceMatrix(linalg::Backend& backend, const HostMatrix<T>& A, Order order = Order::column_major, index_t padding = 0)
      : order_(order), long_(order == Order::column_major ? A.rows : A.cols) {
    linalg::LinAlg<T>& la = linalg::of<T>(backend);
    const HostMatrix<T> columns = order == Order::column_major ? A : A.transposed();
    buffer_ = linalg::Buffer<T>(la, columns.rows + padding, columns.cols);
    la.fill(buffer_, std::numeric_limits<T>::quiet_NaN());
    la.upload(columns.data.data(), mat());
  }
  /// The column-major reading: the matrix, or its transpose where the order is row-major.
  linalg::Mat<T> mat() const { return {buffer_.data(), long_, buffer_.cols(), std::max<index_t>(1, buffer_.rows())}; }
  operator linalg::Mat<T>() const { return mat(); }  // NOLINT: implicit on purpose
  operator linalg::Mat<const T>() const { return mat(); }  // NOLINT: implicit on purpose
  MatrixView<const T> view() const {
    return order_ == Order::column_major ? MatrixView<const T>(buffer_.data(), long_, buffer_.cols(), mat().ld, order_)
                                         : MatrixView<const T>(buffer_.data(), buffer_.cols(), long_, mat().ld, order_);
  }

 private:
  Order order_;
  index_t long_;
  linalg::Buffer<T> buffer_;
};

template <class T>
HostMatrix<T> to_host(linalg::Backend& backend, linalg::Mat<const T> A) {
  HostMatrix<T> out(A.rows, A.cols);
  linalg::of<T>(backend).download(A, out.data.data());
  return out;
}
template <class T>
HostMatrix<T> to_host(linalg::Backend& backend, MatrixView<const T> A) {
  return A.order == Order::column_major
             ? to_host<T>(backend, linalg::Mat<const T>(A.data, A.rows, A.cols, A.ld))
             : to_host<T>(backend, linalg::Mat<const T>(A.data, A.cols, A.rows, A.ld)).transposed();
}

/// Raw bytes in the memory of a backend (samples in half precision, say).
inline std::shared_ptr<const void> bytes_to_device(const std::shared_ptr<linalg::Backend>& backend, const void* host,
                                                   std::size_t bytes) {
  std::vector<float> words((bytes + sizeof(float) - 1) / sizeof(float));
  std::memcpy(words.data(), host, bytes);
  auto& la = backend->single();
  void* p = la.allocate(words.size() * sizeof(float));
  la.upload(words.data(), {static_cast<float*>(p), static_cast<index_t>(words.size()), 1});
  return {p, [backend](void* q) { backend->single().deallocate(q); }};
}

enum class EngineKind { lapack, guarded, cuda };

template <class Scalar, EngineKind kind_>
struct Engine {
  using T = Scalar;
  static constexpr EngineKind kind = kind_;
  /// Is the backend's memory closed to the host? (Such engines are slow, too: a test may take smaller matrices.)
  static constexpr bool apart = kind != EngineKind::lapack;
};
using Engines = testing::Types<Engine<float, EngineKind::lapack>, Engine<double, EngineKind::lapack>,
                               Engine<float, EngineKind::guarded>, Engine<double, EngineKind::guarded>,
                               Engine<float, EngineKind::cuda>, Engine<double, EngineKind::cuda>>;
/// The backends, for what has no precision of its own.
using Backends = testing::Types<Engine<double, EngineKind::lapack>, Engine<double, EngineKind::guarded>,
                                Engine<double, EngineKind::cuda>>;

/// ctest chooses by these names (CMakeLists.txt).
struct BackendNames {
  template <class E>
  static std::string GetName(int) {
    constexpr const char* names[] = {"lapack", "guarded", "cuda"};
    return names[static_cast<int>(E::kind)];
  }
};
struct EngineNames {
  template <class E>
  static std::string GetName(int i) {
    return BackendNames::GetName<E>(i) + (sizeof(typename E::T) == 4 ? "_float" : "_double");
  }
};

/// What lives on the stand-in's devices; nobody may leave anything behind.
class DeviceLeaks {
 public:
  DeviceLeaks() : allocations_(brockett_shim_live_allocations()), handles_(brockett_shim_live_handles()) {}
  ~DeviceLeaks() {
    EXPECT_EQ(brockett_shim_live_allocations(), allocations_) << "device or pinned memory is left behind";
    EXPECT_EQ(brockett_shim_live_handles(), handles_) << "streams, events or handles are left behind";
    EXPECT_EQ(cudaGetLastError(), cudaSuccess) << "an error of the CUDA run time was left for others to find";
  }
  DeviceLeaks(const DeviceLeaks&) = delete;
  DeviceLeaks& operator=(const DeviceLeaks&) = delete;

 private:
  std::size_t allocations_, handles_;
};

/// A backend of its own over the stand-in. With BROCKETT_TEST_CUDA=real in the environment it is the one that libbrockett
/// loads, from the plugin that BROCKETT_CUDA_PLUGIN names: the same tests on a GPU.
inline std::shared_ptr<linalg::Backend> make_cuda_backend() {
  const char* which = std::getenv("BROCKETT_TEST_CUDA");
  if (which != nullptr && std::string(which) == "real") return cuda::make_context(0).shared_backend();
  return brockett_cuda_plugin()->make_backend(0, nullptr);
}

template <class E>
class EngineTest : public testing::Test {
 public:
  static constexpr bool apart = E::apart;
  /// Distance from 1 to the next number of this precision, for tolerances.
  static constexpr double eps = std::numeric_limits<typename E::T>::epsilon();

 private:
  const DeviceLeaks leaks_;  // looks when the backend is gone

 protected:
  std::shared_ptr<linalg::Backend> backend = make_backend();
  Context context{backend};
  linalg::LinAlg<typename E::T>& la = linalg::of<typename E::T>(*backend);

  template <class U>
  DeviceMatrix<U> to_device(const HostMatrix<U>& A, Order order = Order::column_major, index_t padding = 0) {
    return {*backend, A, order, padding};
  }
  template <class U>
  HostMatrix<U> to_host(const DeviceMatrix<U>& A) {
    return test::to_host<U>(*backend, A.view());
  }
  template <class U>
  HostMatrix<U> to_host(const Array<U>& A) {
    return test::to_host<U>(*backend, A.view());
  }
  template <class U>
  HostMatrix<U> to_host(linalg::Mat<U> A) {
    return test::to_host<U>(*backend, linalg::Mat<const U>(A));
  }

 private:
  static std::shared_ptr<linalg::Backend> make_backend() {
    if constexpr (E::kind == EngineKind::guarded) return make_guarded_backend();
    if constexpr (E::kind == EngineKind::cuda) return make_cuda_backend();
    return linalg::lapack_backend();
  }
};

}  // namespace brockett::test
