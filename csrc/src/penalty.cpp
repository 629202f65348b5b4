#include "brockett/penalty.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <numeric>

#include "check.hpp"
#include "penalty_basis.hpp"
#include "signs.hpp"

namespace brockett {

using linalg::Buffer;
using linalg::Mat;
using linalg::Modes;
using linalg::Op;

namespace {

// x^p by repeated multiplication for small integers p: integers stay exact
double power(double x, double p) {
  if (p != std::floor(p) || p > 64) return std::pow(x, p);
  double out = 1;
  for (int i = 0; i < static_cast<int>(p); ++i) out *= x;
  return out;
}

// frequency of real Fourier mode i: 0, 1, 1, 2, 2, …
double fourier_frequency(index_t i) { return static_cast<double>((i + 1) / 2); }

// squared frequency of mode i of one grid axis: k^2 (exact), or (pi k / n)^2 of the reflected axis
double axis_symbol(Boundary boundary, index_t i, index_t n) {
  if (boundary == Boundary::periodic) return fourier_frequency(i) * fourier_frequency(i);
  const double k = std::numbers::pi * static_cast<double>(i) / static_cast<double>(n);
  return k * k;
}

// 4 sin^2 of the symbol of one difference, exact at the Nyquist frequency
double difference_symbol(Boundary boundary, index_t i, index_t n) {
  const double s = boundary == Boundary::periodic
                       ? std::sin(std::numbers::pi * fourier_frequency(i) / static_cast<double>(n))
                       : std::sin(std::numbers::pi * static_cast<double>(i) / static_cast<double>(2 * n));
  return 4 * s * s;
}

// neighbours that differ by no more than `tolerance`, or `relative` times the larger, are one run
std::vector<index_t> equal_runs(const std::vector<double>& lambda, double tolerance, double relative = 0) {
  std::vector<index_t> starts{0};
  const index_t n = static_cast<index_t>(lambda.size());
  for (index_t i = 1; i < n; ++i) {
    const double upper = lambda[static_cast<std::size_t>(i)], lower = lambda[static_cast<std::size_t>(i - 1)];
    if (upper - lower > std::max(tolerance, relative * std::abs(upper))) starts.push_back(i);
  }
  starts.push_back(n);
  return starts;
}

Penalty matrix_penalty(const char* name, MatrixView<const double> A, int exponent) {
  if (A.rows < 1 || A.rows != A.cols) {
    throw InvalidArgument(name, "must be a square matrix, has shape " + shape_text(A.rows, A.cols));
  }
  check_view(name, A);
  if (exponent < 1) throw InvalidArgument("power", "must be at least 1, is " + std::to_string(exponent));
  Penalty p;
  p.kind = Penalty::Kind::matrix;
  p.n = A.rows;
  p.power = exponent;
  p.A.resize(static_cast<std::size_t>(A.size()));
  double magnitude = 0, asymmetry = 0;
  for (index_t i = 0; i < A.rows; ++i) {
    for (index_t j = 0; j < A.cols; ++j) {
      if (!std::isfinite(A(i, j))) throw NonFinite(name, i, j);
      magnitude = std::max(magnitude, std::abs(A(i, j)));
      asymmetry = std::max(asymmetry, std::abs(A(i, j) - A(j, i)));
      p.A[static_cast<std::size_t>(i * A.cols + j)] = 0.5 * A(i, j) + 0.5 * A(j, i);
    }
  }
  if (asymmetry > 1e-8 * magnitude) {
    throw InvalidArgument(name, "must be symmetric; its largest asymmetry is " + std::to_string(asymmetry));
  }
  return p;
}

}  // namespace

Penalty fourier_derivative(double order) {
  if (!(order >= 0) || !std::isfinite(order)) {
    throw InvalidArgument("order", "must be finite and >= 0, is " + std::to_string(order));
  }
  Penalty p;
  p.order = order;
  return p;
}

Penalty finite_difference(int order, Boundary boundary) {
  if (order < 1) throw InvalidArgument("order", "must be an integer >= 1, is " + std::to_string(order));
  Penalty p;
  p.kind = Penalty::Kind::difference;
  p.order = order;
  p.boundary = boundary;
  return p;
}

Penalty graph_laplacian(MatrixView<const double> L, int exponent) {
  Penalty p = matrix_penalty("L", L, exponent);
  for (index_t i = 0; i < L.rows; ++i) {
    double sum = 0, size = 0;
    for (index_t j = 0; j < L.cols; ++j) {
      sum += L(i, j);
      size += std::abs(L(i, j));
    }
    if (std::abs(sum) > 1e-8 * size) {
      throw InvalidArgument(
          "L", "rows of a graph Laplacian sum to zero; row " + std::to_string(i) + " sums to " + std::to_string(sum));
    }
  }
  return p;
}

Penalty grid(std::vector<index_t> shape, double order, Boundary boundary) {
  if (shape.empty() || *std::min_element(shape.begin(), shape.end()) < 1) {
    throw InvalidArgument("shape", "must be one or more lengths >= 1");
  }
  Penalty p = fourier_derivative(order);
  p.kind = Penalty::Kind::grid;
  p.boundary = boundary;
  p.shape = std::move(shape);
  return p;
}

Penalty custom(MatrixView<const double> A) { return matrix_penalty("A", A, 1); }

PenaltyBasis::PenaltyBasis(const Context& context, const Penalty& penalty, index_t n)
    : context_(context), penalty_(penalty), n_(n) {
  if (n < 1) throw InvalidArgument("n", "must be at least 1, is " + std::to_string(n));
  lambda_.resize(static_cast<std::size_t>(n));
  switch (penalty.kind) {
    case Penalty::Kind::fourier:
      set_modes(Modes::fourier);
      break;
    case Penalty::Kind::difference:
      set_modes(penalty.boundary == Boundary::periodic ? Modes::fourier : Modes::dct);
      break;
    case Penalty::Kind::grid:
      set_grid();
      break;
    case Penalty::Kind::matrix:
      set_matrix();
      break;
  }
  if (!std::isfinite(lambda_.back()) || !std::isfinite(lambda_.front())) {
    throw InvalidArgument("penalty", "its eigenvalues overflow float64 at n = " + std::to_string(n));
  }
}

void PenaltyBasis::set_modes(Modes modes) {
  modes_ = modes;
  for (index_t i = 0; i < n_; ++i) {
    lambda_[static_cast<std::size_t>(i)] = penalty_.kind == Penalty::Kind::fourier
                                               ? power(fourier_frequency(i), 2 * penalty_.order)
                                               : power(difference_symbol(penalty_.boundary, i, n_), penalty_.order);
  }
  blocks_ = equal_runs(lambda_, 0);
}

void PenaltyBasis::set_grid() {
  const auto& shape = penalty_.shape;
  index_t rest = n_;
  std::string text;
  for (const index_t length : shape) {  // by division: the product may not be a number
    rest = length > 0 && rest % length == 0 ? rest / length : 0;
    text += (text.empty() ? "" : " x ") + std::to_string(length);
  }
  if (rest != 1) {
    throw InvalidArgument("penalty", "a grid of " + text + " points does not fit n = " + std::to_string(n_));
  }
  modes_ = penalty_.boundary == Boundary::periodic ? Modes::fourier : Modes::dct;
  std::vector<double> flat(static_cast<std::size_t>(n_));
  for (index_t i = 0; i < n_; ++i) {
    double sum = 0;
    index_t at = i;
    for (std::size_t a = shape.size(); a-- > 0;) {
      sum += axis_symbol(penalty_.boundary, at % shape[a], shape[a]);
      at /= shape[a];
    }
    flat[static_cast<std::size_t>(i)] = power(sum, penalty_.order);
  }
  order_.resize(static_cast<std::size_t>(n_));
  std::iota(order_.begin(), order_.end(), index_t{0});
  std::stable_sort(order_.begin(), order_.end(), [&](index_t a, index_t b) {
    return flat[static_cast<std::size_t>(a)] < flat[static_cast<std::size_t>(b)];
  });
  for (std::size_t i = 0; i < order_.size(); ++i) lambda_[i] = flat[static_cast<std::size_t>(order_[i])];
  // equal up to rounding counts as equal, so that the order of ties is the same on every machine; relative to the eigenvalue
  // itself, since the small ones are what smooth data cost
  blocks_ = equal_runs(lambda_, 0, penalty_.boundary == Boundary::periodic ? 0 : 1e-12);
  for (std::size_t b = 0; b + 1 < blocks_.size(); ++b)
    std::sort(order_.begin() + blocks_[b], order_.begin() + blocks_[b + 1]);
}

void PenaltyBasis::set_matrix() {
  if (penalty_.n != n_) {
    throw InvalidArgument(
        "penalty", "has a matrix of size " + std::to_string(penalty_.n) + ", the layer has n = " + std::to_string(n_));
  }
  if (static_cast<index_t>(penalty_.A.size()) != n_ * n_) {
    throw InvalidArgument("penalty", "A must hold n^2 entries, holds " + std::to_string(penalty_.A.size()));
  }
  auto& la = context_.backend().full();
  Buffer<double> V(la, n_, n_);
  la.upload(penalty_.A.data(), V);
  std::vector<double> w(static_cast<std::size_t>(n_));
  la.eigen_symmetric(V, w.data(), true);
  // for a positive semidefinite A the rounding of its zeros must not be raised to a sign
  const double rounding = kTie * std::max(std::abs(w.front()), std::abs(w.back()));
  for (auto& v : w) {
    if (std::abs(v) <= rounding) v = 0;
    if (penalty_.power % 2 == 0) v = std::abs(v);
  }
  std::vector<index_t> order(w.size());
  std::iota(order.begin(), order.end(), index_t{0});
  std::stable_sort(order.begin(), order.end(), [&](index_t a, index_t b) {
    return w[static_cast<std::size_t>(a)] < w[static_cast<std::size_t>(b)];
  });
  T_ = Buffer<double>(la, n_, n_);
  for (index_t i = 0; i < n_; ++i) {
    la.copy(V.mat().columns(order[static_cast<std::size_t>(i)], 1), T_.mat().columns(i, 1));
    lambda_[static_cast<std::size_t>(i)] = w[static_cast<std::size_t>(order[static_cast<std::size_t>(i)])];
  }
  la.scale_columns(T_, column_signs<double>(la, T_).data());
  // ties are told from the eigenvalues of A itself: those of its power span more than rounding can tell apart
  blocks_ = equal_runs(lambda_, rounding);
  for (auto& v : lambda_) v = power(v, penalty_.power);
}

bool PenaltyBasis::circulant() const {
  if (penalty_.kind == Penalty::Kind::grid)
    return penalty_.boundary == Boundary::periodic && penalty_.shape.size() == 1;
  return penalty_.kind == Penalty::Kind::fourier ||
         (penalty_.kind == Penalty::Kind::difference && penalty_.boundary == Boundary::periodic);
}

void PenaltyBasis::apply(Op op, Mat<double> X) const {
  auto& la = context_.backend().full();
  if (penalty_.kind == Penalty::Kind::fourier || penalty_.kind == Penalty::Kind::difference) {
    la.apply_modes(modes_, op, X);
    return;
  }
  Buffer<double> Y(la, X.rows, X.cols);
  if (penalty_.kind == Penalty::Kind::matrix) {
    la.multiply(Op::none, flip(op), 1.0, X, T_, 0.0, Y);
    la.copy(Y, X);
    return;
  }
  if (op == Op::none) {
    for (index_t i = 0; i < n_; ++i) {
      la.copy(X.columns(i, 1), Y.mat().columns(order_[static_cast<std::size_t>(i)], 1));
    }
    apply_axes(op, Y);
    la.copy(Y, X);
  } else {
    la.copy(X, Y);
    apply_axes(op, Y);
    for (index_t i = 0; i < n_; ++i) {
      la.copy(Y.mat().columns(order_[static_cast<std::size_t>(i)], 1), X.columns(i, 1));
    }
  }
}

// one axis at a time: the columns of X along an axis are `stride` apart, which is a leading dimension
void PenaltyBasis::apply_axes(Op op, Mat<double> X) const {
  index_t stride = 1;
  for (std::size_t a = penalty_.shape.size(); a-- > 0;) {
    const index_t length = penalty_.shape[a];
    for (index_t outer = 0; outer < n_; outer += stride * length) {
      for (index_t inner = 0; inner < stride; ++inner) {
        context_.backend().full().apply_modes(
            modes_, op, Mat<double>(X.data + (outer + inner) * X.ld, X.rows, length, X.ld * stride));
      }
    }
    stride *= length;
  }
}

Buffer<double> PenaltyBasis::matrix() const {
  auto& la = context_.backend().full();
  Buffer<double> X(la, n_, n_);
  la.set_identity(X);
  apply(Op::transpose, X);  // T
  la.scale_columns(X, lambda_.data());
  apply(Op::none, X);  // T diag(lambda) T^T
  la.mirror_lower(X);
  return X;
}

std::vector<double> eigenvalues(const Context& context, const Penalty& penalty, index_t n) {
  return PenaltyBasis(context, penalty, n).lambda();
}

Array<double> basis(const Context& context, const Penalty& penalty, index_t n) {
  const PenaltyBasis p(context, penalty, n);
  auto out = make_array<double>(context, n, n);
  const Mat<double> X(out.data(), n, n);
  context.backend().full().set_identity(X);
  p.apply(Op::none, X);  // T^T column-major is T row-major
  return out;
}

Array<double> matrix(const Context& context, const Penalty& penalty, index_t n) {
  const Buffer<double> A = PenaltyBasis(context, penalty, n).matrix();
  return row_major_array<double>(context, A);
}

}  // namespace brockett
