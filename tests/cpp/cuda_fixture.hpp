// The CUDA backend over the stand-in, for tests that steer the stand-in: streams and devices of the caller, failures, leaks.
#pragma once

#include <cusolverDn.h>

#include <functional>
#include <string>

#include "brockett/brockett.hpp"
#include "control.h"
#include "engines.hpp"
#include "reference.hpp"
#include "shim_launch.hpp"

namespace brockett::test {

class CudaTest : public testing::Test {
 private:
  const DeviceLeaks leaks_;

 protected:
  void TearDown() override { brockett_shim_reset(); }

  static std::shared_ptr<linalg::Backend> make(int device = 0, cudaStream_t stream = nullptr) {
    return brockett_cuda_plugin()->make_backend(device, stream);
  }
};

/// Enough to see that a context computes: R of four samples by hand.
inline void expect_that_it_works(const Context& context) {
  const DeviceMatrix<double> X(context.backend(), HostMatrix<double>{{8, 0}, {0, 4}});
  Autocorrelation R(context, 2);
  R.update(samples_of(X));
  EXPECT_EQ(difference(to_host<double>(context.backend(), R.matrix().view()), HostMatrix<double>{{32, 0}, {0, 8}}), 0);
}

}  // namespace brockett::test
