// All singular values: square roots of the eigenvalues of float64 Gram matrices, or QR and gesdd.
#include <algorithm>
#include <cmath>
#include <limits>

#include "brockett/svd.hpp"
#include "check.hpp"
#include "gram.hpp"
#include "linalg/buffer.hpp"
#include "linalg/linalg.hpp"
#include "scaled_copy.hpp"

namespace brockett {

using linalg::Buffer;
using linalg::Mat;
using linalg::Op;

namespace {

using Method = SingularValuesParams::Method;

constexpr double kEps = std::numeric_limits<double>::epsilon();
// Values of a float64 Gram matrix below this share of s_1 are rounding.
constexpr double kGramFloor = 1e-7;

/// Gram first: always for float data, for double data where one side is twice the other (a QR costs more then).
template <class T>
bool tries_gram(Method method, index_t rows, index_t cols) {
  if (method != Method::automatic) return method == Method::gram;
  return std::is_same_v<T, float> || std::max(rows, cols) >= 2 * std::min(rows, cols);
}

SingularValues from_gram(const double* ascending, index_t k, index_t longest) {
  SingularValues out;
  for (index_t i = k; i-- > 0;) out.values.push_back(std::sqrt(std::max(ascending[i], 0.0)));
  out.method = "gram";
  // rounding of the sums and of the eigensolver, both relative to s_1^2
  out.bound = 4 * kEps * std::sqrt(static_cast<double>(longest));
  const double resolution = kGramFloor * out.values[0];
  out.n_resolved = static_cast<index_t>(
      std::count_if(out.values.begin(), out.values.end(), [&](double v) { return v > 0 && v >= resolution; }));
  return out;
}

template <class T>
SingularValues by_qr(const Context& context, Mat<const T> M) {
  auto& la = linalg::of<T>(context.backend());
  const index_t k = std::min(M.rows, M.cols), longest = std::max(M.rows, M.cols);
  Buffer<T> work(la, longest, k);
  if (M.rows >= M.cols) {
    la.copy(M, work);
  } else {
    la.transpose(M, work);
  }
  context.check_interrupt();
  std::vector<T> s(static_cast<std::size_t>(k));
  if (longest > k) {
    la.qr_factor(work);
    Buffer<T> R(la, k, k);
    la.copy(work.mat().block(0, 0, k, k), R);
    context.check_interrupt();
    la.svd_thin(R, s.data(), {}, {});
  } else {
    la.svd_thin(work, s.data(), {}, {});
  }
  SingularValues out;
  out.values.assign(s.begin(), s.end());
  out.method = "qr+gesdd";
  constexpr double eps = static_cast<double>(std::numeric_limits<T>::epsilon());
  out.bound = 4 * eps * std::sqrt(static_cast<double>(longest));
  const double resolution = static_cast<double>(k) * eps * out.values[0];
  out.n_resolved = static_cast<index_t>(
      std::count_if(out.values.begin(), out.values.end(), [&](double v) { return v > resolution; }));
  return out;
}

/// Packed matrices one after the other, which can be read as one.
template <class T>
bool is_stack(const MatrixView<const T>* A, index_t count) {
  const Mat<const T> first = columns_of(A[0]);
  for (index_t i = 0; i < count; ++i) {
    const Mat<const T> M = columns_of(A[i]);
    const bool next = M.data == first.data + i * first.rows * first.cols;
    if (!next || M.rows != first.rows || M.cols != first.cols || M.ld != M.rows) return false;
  }
  return true;
}

/// No NaN, no Inf; the largest magnitude of each. A stack is looked at as a whole, for a GPU waits for every answer.
template <class T>
std::vector<double> check_group(linalg::Backend& backend, const MatrixView<const T>* A, index_t count, bool stack) {
  std::vector<double> magnitudes;
  if (stack && count > 1) {
    const Mat<const T> first = columns_of(A[0]), all(first.data, first.rows * first.cols, count);
    auto& la = linalg::of<T>(backend);
    if (std::isfinite(la.max_abs_of(dtype_of<T>(), all.data, all.rows, all.cols, all.ld))) {
      std::vector<index_t> rows(static_cast<std::size_t>(count));
      std::vector<T> values(rows.size());
      la.column_argmax(all, rows.data(), values.data());
      for (const T v : values) magnitudes.push_back(std::abs(static_cast<double>(v)));
      return magnitudes;
    }
  }
  for (index_t i = 0; i < count; ++i) magnitudes.push_back(check_matrix(backend, "A", A[i]));
  return magnitudes;
}

/// Lower triangles of the Gram matrices of the shorter sides, side by side in G. A stack on a device is converted many
/// matrices at a time.
template <class T>
void gram_group(const Context& context, const std::vector<Scaled<T>>& A, bool stack, Mat<double> G) {
  auto& backend = context.backend();
  const auto count = static_cast<index_t>(A.size());
  const index_t rows = A[0].M.rows, cols = A[0].M.cols, k = std::min(rows, cols);
  const auto shorter = [](const auto& M) { return M.rows >= M.cols ? Op::transpose : Op::none; };
  for (const Scaled<T>& one : A) stack = stack && one.scale == 1;
  const index_t together = std::min(count, backend.block_elements() / (rows * cols));
  if (!stack || together <= 1 || backend.batch_size(1) == 1 || std::is_same_v<T, double>) {
    for (index_t i = 0; i < count; ++i) {
      const Mat<const T> M = A[static_cast<std::size_t>(i)].M;
      gram_into(context, M, shorter(M), G.columns(i * k, k));
    }
    return;
  }
  auto& la = backend.full();
  const Op op = shorter(A[0].M);
  const Buffer<double> wide(la, rows, cols * together);
  for (index_t first = 0; first < count; first += together) {
    const index_t some = std::min(together, count - first);
    la.convert_from(dtype_of<T>(), A[static_cast<std::size_t>(first)].M.data, rows, wide.mat().columns(0, cols * some));
    for (index_t i = 0; i < some; ++i) {
      la.accumulate_outer(op, 1.0, wide.mat().columns(i * cols, cols), 0.0, G.columns((first + i) * k, k));
    }
    context.check_interrupt();
  }
}

/// One group of matrices of the same shape: their Gram matrices side by side, decomposed in one call.
template <class T>
void solve_group(const Context& context, const MatrixView<const T>* A, index_t count, Method method,
                 SingularValues* out) {
  auto& backend = context.backend();
  const index_t k = std::min(A[0].rows, A[0].cols), longest = std::max(A[0].rows, A[0].cols);
  const auto threads = backend.thread_scope(k);
  const bool stack = is_stack(A, count);
  const std::vector<double> magnitudes = check_group(backend, A, count, stack);
  std::vector<Scaled<T>> safe;
  for (index_t i = 0; i < count; ++i) {
    safe.push_back(scaled<T>(backend, columns_of(A[i]), magnitudes[static_cast<std::size_t>(i)]));
  }
  const bool gram = tries_gram<T>(method, A[0].rows, A[0].cols);
  if (gram) {
    Buffer<double> G(backend.full(), k, k * count);
    gram_group(context, safe, stack, G.mat());
    std::vector<double> w(static_cast<std::size_t>(k * count));
    context.check_interrupt();
    backend.full().eigenvalues_batched(G.mat().columns(0, k), k * k, count, w.data());
    for (index_t i = 0; i < count; ++i) out[i] = from_gram(&w[static_cast<std::size_t>(i * k)], k, longest);
  }
  for (index_t i = 0; i < count; ++i) {
    const Scaled<T>& one = safe[static_cast<std::size_t>(i)];
    // double data: squares lose (s_1 / s)^2 eps; beyond 1e-12 they are not good enough
    const bool enough =
        gram && (std::is_same_v<T, float> || method == Method::gram || out[i].values.back() >= 1e-2 * out[i].values[0]);
    if (!enough) out[i] = by_qr<T>(context, one.M);
    for (auto& v : out[i].values) v /= one.scale;
  }
}

}  // namespace

template <class T>
std::vector<SingularValues> singular_values_batch(const Context& context, const std::vector<MatrixView<const T>>& A,
                                                  const SingularValuesParams& params) {
  const index_t total = static_cast<index_t>(A.size());
  std::vector<SingularValues> out(A.size());
  if (total == 0) return out;
  for (const auto& one : A) {
    check_view("A", one);
    if (one.rows != A[0].rows || one.cols != A[0].cols) {
      throw InvalidArgument("A", "the matrices of a batch must have one shape, have " +
                                     shape_text(A[0].rows, A[0].cols) + " and " + shape_text(one.rows, one.cols));
    }
  }
  const index_t k = std::min(A[0].rows, A[0].cols);
  const auto bytes = sizeof(double) * static_cast<std::size_t>(k * k);
  index_t group = context.backend().batch_size(bytes);
  // eigensolvers that take several at once are given them, but a short batch is shared out, too
  if (tries_gram<T>(params.method, A[0].rows, A[0].cols)) {
    group = std::max(group, std::min(context.backend().eigen_batch(k), total / 4));
  }
  group = std::clamp<index_t>(group, 1, total);
  const index_t groups = (total + group - 1) / group;
  if (groups == 1) {
    solve_group<T>(context, A.data(), total, params.method, out.data());
    return out;
  }
  const Context quiet(context.shared_backend());  // workers may not run the interrupt check
  parallel_for(context, groups, [&](index_t g) {
    const index_t first = g * group;
    solve_group<T>(quiet, A.data() + first, std::min(group, total - first), params.method, out.data() + first);
  });
  return out;
}

template <class T>
SingularValues singular_values(const Context& context, MatrixView<const T> A, const SingularValuesParams& params) {
  return singular_values_batch<T>(context, {A}, params)[0];
}

#define BROCKETT_INSTANTIATE(T)                                                                                       \
  template SingularValues singular_values(const Context&, MatrixView<const T>, const SingularValuesParams&);          \
  template std::vector<SingularValues> singular_values_batch(const Context&, const std::vector<MatrixView<const T>>&, \
                                                             const SingularValuesParams&);
BROCKETT_INSTANTIATE(float)
BROCKETT_INSTANTIATE(double)

}  // namespace brockett
