// Descramble one layer from a file of its inputs, streamed: memory stays O(n_features^2) however long the file is.
//
//   cpp_pipeline INPUTS.npy WEIGHTS.npy OUTPUT.npy [BATCH_ROWS]
//
// INPUTS (n_samples, n_features) and WEIGHTS (n, n_features) are float32 or float64; OUTPUT is P W, in WEIGHTS' type.
#include <brockett/brockett.hpp>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

#include "npy.hpp"

namespace {

brockett::Autocorrelation accumulate(const brockett::Context& context, npy::Reader& inputs, std::int64_t batch_rows) {
  brockett::Autocorrelation R(context, inputs.cols());
  const auto dtype = inputs.is_float32() ? brockett::DType::float32 : brockett::DType::float64;
  std::vector<char> batch;
  std::int64_t n_rows = 0;
  while (inputs.read_rows(batch_rows, batch, n_rows)) {
    R.update({dtype, batch.data(), n_rows, inputs.cols(), inputs.cols()});
  }
  return R;
}

template <class T>
void descramble_layer(const brockett::Context& context, const brockett::Autocorrelation& R, npy::Reader& weights,
                      const std::string& output) {
  std::vector<char> bytes;
  std::int64_t n = 0;
  weights.read_rows(weights.rows(), bytes, n);
  const brockett::MatrixView<const T> W(reinterpret_cast<const T*>(bytes.data()), n, weights.cols());
  const auto Y = brockett::Preactivations::from_autocorrelation(context, W, R);
  const brockett::Descrambling<T> result = brockett::descramble(context, Y, W);
  npy::write(output, result.weights.data(), result.weights.rows(), result.weights.cols());
  std::printf("samples %lld  rank %lld  identity_cost %.17g  cost %.17g  optimum %.17g\n",
              static_cast<long long>(R.n_samples()), static_cast<long long>(result.rank), result.identity_cost,
              result.cost, result.optimum);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4 || argc > 5) {
    std::fprintf(stderr, "usage: %s INPUTS.npy WEIGHTS.npy OUTPUT.npy [BATCH_ROWS]\n", argv[0]);
    return 2;
  }
  try {
    std::int64_t batch_rows = 4096;
    if (argc == 5) {
      const std::string_view text = argv[4];
      const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), batch_rows);
      if (error != std::errc() || end != text.data() + text.size() || batch_rows < 1) {
        throw std::runtime_error("BATCH_ROWS: expected a positive integer, got " + std::string(text));
      }
    }
    npy::Reader inputs(argv[1]);
    npy::Reader weights(argv[2]);
    if (inputs.cols() != weights.cols()) {
      throw std::runtime_error("inputs have " + std::to_string(inputs.cols()) + " features, weights expect " +
                               std::to_string(weights.cols()));
    }
    const brockett::Context context;
    const brockett::Autocorrelation R = accumulate(context, inputs, batch_rows);
    if (weights.is_float32()) {
      descramble_layer<float>(context, R, weights, argv[3]);
    } else {
      descramble_layer<double>(context, R, weights, argv[3]);
    }
  } catch (const std::exception& e) {  // brockett::Error and its kinds among them
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
}
