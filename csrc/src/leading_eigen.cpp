#include "leading_eigen.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>

#include "gram.hpp"
#include "krylov.hpp"
#include "lanczos.hpp"
#include "scaled_copy.hpp"
#include "svd_costs.hpp"

namespace brockett {

using linalg::Buffer;
using linalg::Mat;
using linalg::Op;

namespace {

std::size_t at(index_t i) { return static_cast<std::size_t>(i); }

// Residual over the largest eigenvalue: the goal of the iteration, and what products of order 4096 let it measure.
constexpr double kGoal = 1e-14;
constexpr double kAccepted = 1e-13;

/// C as M^T M of an M that nobody needs: only there and back together is known.
class MomentMap final : public LinearMap<double> {
 public:
  MomentMap(const Context& context, Mat<const double> C) : backend_(context.backend()), la_(backend_.full()), C_(C) {}
  index_t rows() const override { return C_.rows; }
  index_t cols() const override { return C_.cols; }
  void apply(Op, Mat<const double> X, Mat<double> Y) const override {
    la_.multiply(Op::none, Op::none, 1.0, C_, X, 0.0, Y);
  }
  void there_and_back(Op op, Mat<const double> X, Mat<double>, Mat<double> Z) const override { apply(op, X, Z); }
  void apply_accurately(Op op, Mat<const double> X, Mat<double> Y) const override { apply(op, X, Y); }
  std::shared_ptr<void> narrow_scope() const override { return backend_.narrow_scope(); }

 private:
  linalg::Backend& backend_;
  linalg::LinAlg<double>& la_;
  Mat<const double> C_;
};

/// (sum of the eigenvalues)^2 over the sum of their squares: how many of them share the sum.
double spread(linalg::LinAlg<double>& la, Mat<const double> C) {
  std::vector<double> diagonal(at(C.rows));
  la.download(Mat<const double>(C.data, 1, C.rows, C.ld + 1), diagonal.data());
  const double ratio = std::accumulate(diagonal.begin(), diagonal.end(), 0.0) / la.norm(C);
  return std::isfinite(ratio) ? ratio * ratio : 0;
}

/// The vectors in the span of X (n x k, orthonormal) that diagonalize C there, in its place; their residual is measured.
std::optional<LeadingEigen> rayleigh_ritz(const Context& context, Mat<const double> C, Buffer<double> X) {
  auto& la = context.backend().full();
  const index_t n = X.rows(), k = X.cols();
  LeadingEigen out;
  Buffer<double> Y(la, n, k), H(la, k, k), Z(la, k, k), CU(la, n, k);
  la.multiply(Op::none, Op::none, 1.0, C, X, 0.0, Y);
  la.multiply(Op::transpose, Op::none, 1.0, X, Y, 0.0, H);
  out.values.resize(at(k));
  la.eigen_symmetric_largest(H, k, out.values.data(), Z);
  out.U = Buffer<double>(la, n, k);
  la.multiply(Op::none, Op::none, 1.0, X, Z, 0.0, out.U);
  la.multiply(Op::none, Op::none, 1.0, Y, Z, 0.0, CU);
  context.check_interrupt();
  la.copy(out.U, X);
  la.scale_columns(X, out.values.data());
  la.add(-1.0, CU, X);
  std::vector<double> squares(at(k));
  la.column_dots(X, X, squares.data());
  const double worst = std::sqrt(*std::max_element(squares.begin(), squares.end()));
  if (!(worst <= kAccepted * std::abs(out.values[0]))) return std::nullopt;
  return out;
}

/// Nothing where `max_columns` products were not enough.
std::optional<LeadingEigen> by_krylov(const Context& context, Mat<const double> C, index_t count, double max_columns) {
  const MomentMap map(context, C);
  KrylovParams p;
  p.rank = count;
  p.tol = kGoal;
  const index_t width = krylov_width(context.backend().batch_size(1) > 1, count);
  Lanczos<double> lanczos(context, map, Op::none, p, width);
  index_t next_check = count + count / 2 + 2 * width, last_columns = 0;
  double last_error = 0, smallest = std::numeric_limits<double>::infinity();
  auto narrow = map.narrow_scope();
  for (;;) {
    context.check_interrupt();
    if (lanczos.size() + lanczos.width() <= lanczos.capacity() && lanczos.width() > 0) lanczos.expand();
    const bool full = lanczos.size() + lanczos.width() > lanczos.capacity(), whole = lanczos.width() == 0;
    const bool spent = static_cast<double>(lanczos.columns()) >= max_columns;
    if (!full && !whole && !spent && lanczos.size() < next_check) continue;

    const index_t keep =
        whole ? lanczos.size() : std::min(count + std::max(count / 4, 2 * lanczos.width()), lanczos.size());
    const auto ritz = lanczos.ritz(keep);
    std::vector<double> values = ritz.sigma;
    for (auto& v : values) v *= v;
    const index_t found = std::min(count, lanczos.size());
    const double error =
        values[0] > 0 ? *std::max_element(ritz.distance.begin(), ritz.distance.begin() + found) / values[0] : 0;
    const bool enough = lanczos.size() >= count;
    if (whole || (enough && error <= kGoal)) {
      smallest = std::min(smallest, lanczos.smallest());
      if (whole || values[0] == 0 || !crowded(values, count, lanczos.width(), kGoal)) {
        narrow.reset();
        auto out = rayleigh_ritz(context, C, lanczos.vectors(ritz, count));
        if (!out) return out;
        out->smallest = std::min(smallest, out->values.back());
        out->columns = lanczos.columns();
        return out;
      }
      if (spent) return std::nullopt;
      lanczos.restart(ritz, std::min(keep, lanczos.size() - 1));
      lanczos.widen();
      next_check = lanczos.size() + 2 * lanczos.width();
      last_columns = 0;
      continue;
    }
    if (spent) return std::nullopt;
    // log(error) falls ever faster: going by its last slope is too far, a fifth of it is not
    index_t more = count;
    if (last_columns > 0 && error < last_error) {
      const double slope = std::log(last_error / error) / static_cast<double>(lanczos.columns() - last_columns);
      more = static_cast<index_t>(std::min(0.2 * std::log(error / kGoal) / slope, 1e9));
    }
    last_error = error;
    last_columns = lanczos.columns();
    if (full) {
      smallest = std::min(smallest, lanczos.smallest());  // a restart forgets the other end of the spectrum
      lanczos.restart(ritz, std::min(keep, lanczos.size() - 1));
    }
    next_check = lanczos.size() + std::max(more, 3 * lanczos.width());
  }
}

LeadingEigen by_decomposition(const Context& context, Mat<const double> C, index_t count, double noise) {
  auto& la = context.backend().full();
  const index_t n = C.rows;
  Buffer<double> work(la, n, n);
  la.copy(C, work);
  LeadingEigen out;
  out.U = Buffer<double>(la, C.rows, count);
  out.values.resize(at(count));
  la.eigen_symmetric_largest(work, count, out.values.data(), out.U);
  out.smallest = out.values.back();
  context.check_interrupt();
  // the other end, by a Cholesky factorization of what has to be positive definite: n^3 / 3 flops
  std::vector<double> shift(at(n), rounding_of_zero(n, std::max(out.values[0], noise)));
  Buffer<double> diagonal(la, 1, n);
  la.upload(shift.data(), diagonal);
  la.copy(C, work);
  la.add(1.0, diagonal, Mat<double>(work.data(), 1, n, n + 1));
  if (la.cholesky(work) != 0) {
    std::vector<double> all(at(n));
    la.copy(C, work);
    la.eigen_symmetric(work, all.data(), false);
    out.smallest = all[0];
  }
  return out;
}

}  // namespace

LeadingEigen leading_eigen(const Context& context, Mat<const double> C, index_t count, double noise,
                           LeadingMethod method) {
  const double n = static_cast<double>(C.rows), product = 2 * n * n;
  const KrylovCosts krylov =
      krylov_costs(C.rows, count, product, 2 * product, 4e10, spread(context.backend().full(), C));
  const double direct = eigen_seconds(C.rows, count);
  if (method == LeadingMethod::krylov || (method == LeadingMethod::automatic && krylov.seconds < direct)) {
    // a spectrum harder than the model's is given up where the decomposition would have been done
    const double limit = method == LeadingMethod::krylov ? 10 * n + 64 : 2 * direct / krylov.seconds * krylov.columns;
    const Scaled<double> safe =
        scaled<double>(context.backend(), C, context.backend().full().max_abs(C));  // residuals are squared
    if (auto out = by_krylov(context, safe.M, count, limit)) {
      for (auto& v : out->values) v /= safe.scale;
      out->smallest /= safe.scale;
      return std::move(*out);
    }
    context.check_interrupt();
  }
  return by_decomposition(context, C, count, noise);
}

}  // namespace brockett
