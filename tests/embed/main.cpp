// A program outside brockett's tree that uses an installed libbrockett. Regressions it guards:
//
//  1. brockettConfig.cmake, its targets or the installed headers are incomplete: find_package, the include path, C++20
//     and the libraries must all come from linking brockett::brockett alone, with no BLAS named by the consumer.
//  2. libbrockett cannot find the BLAS bundled beside it (RPATH), or the BLAS it was linked to.
//  3. A class or template of the public headers is not exported from a library with hidden visibility; exceptions
//  thrown
//     inside are not caught by type outside, because their type information is hidden.
//  4. A function in a public header is neither inline nor a template: the second translation unit then fails to link.
//  5. The installed library, its headers and the version that CMake reports are of different releases.
//  6. brockett_cuda_FOUND is undefined, or names a plugin that is not installed (in CMakeLists.txt).
//  7. Where there is no plugin, no driver or no GPU, asking for one crashes, or gives no reason; where there is one, the
//     same text computes something else on it.
#include <brockett/brockett.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <string>
#include <vector>

brockett::index_t features_of(const brockett::Autocorrelation& R);

namespace {

void require(bool ok, const char* what, double got = 0, double want = 0) {
  if (ok) return;
  std::fprintf(stderr, "FAILED: %s (got %.17g, want %.17g)\n", what, got, want);
  std::exit(1);
}

void require_close(double got, double want, double tol, const char* what) {
  require(std::abs(got - want) <= tol * std::max(1.0, std::abs(want)), what, got, want);
}

// Four samples c_i e_i, so R = diag(c_i^2) / 4 = diag(16, 4, 1, 9).
template <class T>
std::vector<T> four_samples() {
  std::vector<T> x(16, T{0});
  const double c[] = {8, 4, 2, 6};
  for (int i = 0; i < 4; ++i) x[static_cast<std::size_t>(5 * i)] = static_cast<T>(c[i]);
  return x;
}

// W = I, so C = R. A of n = 4 has eigenvalues 0, 1, 1, 16 and a constant diagonal 18 / 4, so by hand
//   optimum  = 0*16 + 1*9 + 1*4 + 16*1 = 29,   cost of the identity = 18 / 4 * tr R = 4.5 * 30 = 135.
template <class T>
void check(const brockett::Context& context, double tol) {
  using namespace brockett;
  const std::vector<T> x = four_samples<T>();
  Autocorrelation first(context, 4);
  Autocorrelation second(context, 4);
  first.update(samples(x.data(), 3, 4));
  second.update(samples(x.data() + 12, 1, 4));
  first.merge(second);
  require(first.n_samples() == 4 && features_of(first) == 4, "number of samples after a merge");
  const Array<double> R = first.matrix();
  const double diagonal[] = {16, 4, 1, 9};
  for (index_t i = 0; i < 4; ++i) {
    for (index_t j = 0; j < 4; ++j) require_close(R(i, j), i == j ? diagonal[i] : 0.0, 1e-15, "entry of R");
  }

  std::vector<T> identity(16, T{0});
  for (std::size_t i = 0; i < 4; ++i) identity[5 * i] = T{1};
  const MatrixView<const T> W(identity.data(), 4, 4);
  const Descrambling<T> d = descramble(context, Preactivations::from_autocorrelation(context, W, first), W);
  require_close(d.optimum, 29, 1e-13, "optimum");
  require_close(d.cost, 29, tol, "cost, evaluated from P");
  require_close(d.identity_cost, 135, 1e-13, "cost of the identity");
  require(d.rank == 4, "rank", static_cast<double>(d.rank), 4);
  const double sigma[] = {4, 3, 2, 1};
  for (std::size_t i = 0; i < 4; ++i) require_close(d.sigma[i], sigma[i], 1e-14, "sigma");
  for (index_t i = 0; i < 4; ++i) {
    for (index_t j = 0; j < 4; ++j) {
      double dot = 0;
      for (index_t k = 0; k < 4; ++k) dot += static_cast<double>(d.P(i, k)) * static_cast<double>(d.P(j, k));
      require_close(dot, i == j ? 1.0 : 0.0, tol, "P P^T");
      require_close(d.weights(i, j), d.P(i, j), tol, "P W with W = I");
    }
  }

  const Svd<T> s = svd(context, MatrixView<const T>(x.data(), 4, 4));
  const double values[] = {8, 6, 4, 2};
  for (std::size_t i = 0; i < 4; ++i) require_close(s.s[i], values[i], tol, "singular value");
}

void check_errors(const brockett::Context& context) {
  std::vector<double> x = four_samples<double>();
  x[6] = std::numeric_limits<double>::quiet_NaN();
  brockett::Autocorrelation R(context, 4);
  try {
    R.update(brockett::samples(x.data(), 4, 4));
    require(false, "a NaN was accepted");
  } catch (const brockett::NonFinite& e) {
    require(e.row() == 1 && e.column() == 2, "index of the NaN", static_cast<double>(e.column()), 2);
    require(!e.argument().empty(), "argument of the NaN");
  }
  require(R.n_samples() == 0, "a refused update left samples behind");
  try {
    R.matrix();
    require(false, "R of no samples was given");
  } catch (const brockett::Error&) {
  }
}

// Samples in host memory, accumulated on a GPU; its results stay there, so only the numbers of the state are compared.
void check_gpu(const brockett::Context& context) {
  const std::vector<double> x = four_samples<double>();
  brockett::Autocorrelation R(context, 4);
  R.update_from_host(brockett::samples(x.data(), 4, 4));
  const std::vector<double> moment = R.state().moment;
  const double diagonal[] = {64, 16, 4, 36};
  for (std::size_t i = 0; i < 4; ++i) {
    for (std::size_t j = 0; j < 4; ++j) {
      require_close(moment[4 * i + j], i == j ? diagonal[i] : 0.0, 1e-15, "moment on the GPU");
    }
  }
}

std::string check_cuda() {
  const brockett::cuda::Status status = brockett::cuda::status();
  require(status.available == status.reason.empty(), "a reason exactly where CUDA is not available");
  if (status.available) {
    check_gpu(brockett::cuda::make_context());
    return brockett::cuda::device_info(0).name;
  }
  try {
    brockett::cuda::make_context();
    require(false, "a context on a GPU that is not there");
  } catch (const brockett::EngineUnavailable& e) {
    require(std::string(e.what()).find(status.reason) != std::string::npos, "the reason in the exception");
  }
  return status.reason;
}

}  // namespace

int main() {
  const brockett::Context context;
  require(std::string(brockett::version()) == EXPECTED_VERSION, "version of the library and of the CMake package");
  check<double>(context, 1e-13);
  check<float>(context, 5e-6);
  check_errors(context);
  std::printf("cuda: %s\n", check_cuda().c_str());
  std::printf("embed: brockett %s, %s: ok\n", brockett::version(), brockett::blas_info().c_str());
}
