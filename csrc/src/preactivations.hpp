// What Preactivations keeps beside C: whatever lets a cost be evaluated more accurately than from C.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "brockett/descramble.hpp"
#include "linalg/buffer.hpp"

namespace brockett {

struct Preactivations::Impl {
  Context context;
  std::string source;          // argument name, for messages
  index_t n = 0;
  index_t n_samples = 0;       // 0: unknown
  bool center = false;
  bool stacked = false;
  double noise = 0;            // magnitude of what C was summed up from, where that may be above C itself
  linalg::Buffer<double> C;    // n x n, symmetric, full
  linalg::Buffer<double> F;    // n x r with C = F F^T, where a square root was accumulated; else empty

  // samples at hand: y itself, or the inputs x of W (op_w(W) is n x m)
  SampleView samples;
  linalg::Buffer<double> W;
  linalg::Op op_w = linalg::Op::none;
  std::vector<double> bias;    // added to W x; empty: none
  std::vector<double> mean;    // of y, subtracted when center

  bool has_samples() const { return samples.data != nullptr; }
  /// f(Y) for blocks Y (n x b) of the samples of y, bias added, not centred.
  void for_each_block(const std::function<void(linalg::Mat<double>)>& f) const;
};

}  // namespace brockett
