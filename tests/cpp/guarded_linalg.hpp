// The pieces of the guarded backend: the vault of closed memory, the key that opens it for one call, and the
// primitives.
#pragma once

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <stdexcept>
#include <vector>

#include "linalg/linalg.hpp"

namespace brockett::test {

using linalg::LinAlg;
using linalg::Mat;
using linalg::Modes;
using linalg::Op;
using linalg::Side;

/// Device memory that a primitive was handed, in bytes: `cols` columns of `rows` bytes, `ld` bytes apart.
struct Region {
  const char* data = nullptr;
  std::size_t rows = 0, cols = 0, ld = 0;
  bool written = false;
  std::size_t batch = 1, stride = 0;

  bool empty() const { return rows == 0 || cols == 0 || batch == 0; }
  std::size_t bytes() const { return empty() ? 0 : (batch - 1) * stride + (cols - 1) * ld + rows; }
  bool overlaps(const Region& o) const;
};

/// Allocations that are closed unless an Access is open.
class Vault {
 public:
  Vault();
  ~Vault();
  void* allocate(std::size_t bytes);
  void deallocate(void* p) noexcept;
  std::size_t live_allocations() const;
  std::size_t allocations() const;
  void fail_allocation_after(std::size_t count);
  bool cancel_failure();

  struct State;

 private:
  struct Block;
  friend class Access;
  std::unique_ptr<State> state_;
};

/// Checks the device arguments of one call of a primitive, and opens them while it lives.
class Access {
 public:
  Access(Vault& vault, const char* primitive, std::initializer_list<Region> regions);
  ~Access();
  Access(const Access&) = delete;
  Access& operator=(const Access&) = delete;
  void host(const void* p) const;
  void check(bool condition, const char* what) const;

 private:
  struct Opened {
    Vault::Block* block;
    bool written;
  };
  Vault& vault_;
  const char* primitive_;
  std::vector<Opened> open_;
};

template <class T>
Region region(Mat<T> A, bool written, index_t batch = 1, index_t stride = 0) {
  const auto size = [](index_t count) { return static_cast<std::size_t>(count) * sizeof(T); };
  if (A.rows < 0 || A.cols < 0 || (!A.empty() && A.ld < A.rows)) {
    throw std::logic_error("guarded backend: a matrix has a negative size, or ld < rows");
  }
  return {reinterpret_cast<const char*>(A.data), size(A.rows), static_cast<std::size_t>(A.cols), size(A.ld), written,
          static_cast<std::size_t>(batch),       size(stride)};
}
template <class T>
Region in(Mat<const T> A) {
  return region(A, false);
}
template <class T>
Region out(Mat<T> A) {
  return region(A, true);
}
inline Region typed(DType type, const void* data, index_t rows, index_t cols, index_t ld, bool written) {
  const auto as = [&]<class T>(T*) {
    return region(Mat<const T>(static_cast<const T*>(data), rows, cols, ld), written);
  };
  switch (type) {
    case DType::float32:
      return as(static_cast<float*>(nullptr));
    case DType::float64:
      return as(static_cast<double*>(nullptr));
    default:
      return as(static_cast<std::uint16_t*>(nullptr));
  }
}

/// LinAlg<T> of the host, behind the vault.
template <class T>
class GuardedLinAlg final : public LinAlg<T> {
 public:
  GuardedLinAlg(Vault& vault, LinAlg<T>& inner) : vault_(vault), inner_(inner) {}

  void* allocate(std::size_t bytes) override { return vault_.allocate(bytes); }
  void deallocate(void* p) noexcept override { vault_.deallocate(p); }
  void upload(const T* host, Mat<T> A) override {
    const Access access(vault_, "upload", {out(A)});
    if (!A.empty()) access.host(host);
    inner_.upload(host, A);
  }
  void download(Mat<const T> A, T* host) override {
    const Access access(vault_, "download", {in(A)});
    if (!A.empty()) access.host(host);
    inner_.download(A, host);
  }
  void copy(Mat<const T> A, Mat<T> B) override {
    const Access access(vault_, "copy", {in(A), out(B)});
    access.check(A.rows == B.rows && A.cols == B.cols, "shapes differ");
    inner_.copy(A, B);
  }
  void transpose(Mat<const T> A, Mat<T> B) override {
    const Access access(vault_, "transpose", {in(A), out(B)});
    access.check(A.rows == B.cols && A.cols == B.rows, "shapes do not fit");
    inner_.transpose(A, B);
  }
  void convert_from(DType type, const void* source, index_t source_ld, Mat<T> A) override {
    const Access access(vault_, "convert_from", {typed(type, source, A.rows, A.cols, source_ld, false), out(A)});
    inner_.convert_from(type, source, source_ld, A);
  }
  void convert_to(Mat<const T> A, DType type, void* target, index_t target_ld) override {
    const Access access(vault_, "convert_to", {in(A), typed(type, target, A.rows, A.cols, target_ld, true)});
    inner_.convert_to(A, type, target, target_ld);
  }
  void add_from(DType type, const void* source, index_t source_ld, Mat<T> Y) override {
    const Access access(vault_, "add_from", {typed(type, source, Y.rows, Y.cols, source_ld, false), out(Y)});
    inner_.add_from(type, source, source_ld, Y);
  }
  index_t first_nonfinite(DType type, const void* A, index_t rows, index_t cols, index_t ld) override {
    const Access access(vault_, "first_nonfinite", {typed(type, A, rows, cols, ld, false)});
    return inner_.first_nonfinite(type, A, rows, cols, ld);
  }
  double max_abs_of(DType type, const void* A, index_t rows, index_t cols, index_t ld) override {
    const Access access(vault_, "max_abs_of", {typed(type, A, rows, cols, ld, false)});
    return inner_.max_abs_of(type, A, rows, cols, ld);
  }

  void fill(Mat<T> A, T value) override {
    const Access access(vault_, "fill", {out(A)});
    inner_.fill(A, value);
  }
  void set_identity(Mat<T> A) override {
    const Access access(vault_, "set_identity", {out(A)});
    inner_.set_identity(A);
  }
  void normals(Mat<T> A, std::uint64_t seed) override {
    const Access access(vault_, "normals", {out(A)});
    inner_.normals(A, seed);
  }
  void scale(T alpha, Mat<T> A) override {
    const Access access(vault_, "scale", {out(A)});
    inner_.scale(alpha, A);
  }
  void add(T alpha, Mat<const T> X, Mat<T> Y) override {
    const Access access(vault_, "add", {in(X), out(Y)});
    access.check(X.rows == Y.rows && X.cols == Y.cols, "shapes differ");
    inner_.add(alpha, X, Y);
  }
  void scale_columns(Mat<T> A, const T* host_d) override {
    const Access access(vault_, "scale_columns", {out(A)});
    if (!A.empty()) access.host(host_d);
    inner_.scale_columns(A, host_d);
  }
  void scale_rows(Mat<T> A, const T* host_d) override {
    const Access access(vault_, "scale_rows", {out(A)});
    if (!A.empty()) access.host(host_d);
    inner_.scale_rows(A, host_d);
  }
  void square(Mat<T> A) override {
    const Access access(vault_, "square", {out(A)});
    inner_.square(A);
  }
  double max_abs(Mat<const T> A) override {
    const Access access(vault_, "max_abs", {in(A)});
    return inner_.max_abs(A);
  }
  double norm(Mat<const T> A) override {
    const Access access(vault_, "norm", {in(A)});
    return inner_.norm(A);
  }
  double dot(Mat<const T> A, Mat<const T> B) override {
    const Access access(vault_, "dot", {in(A), in(B)});
    access.check(A.rows == B.rows && A.cols == B.cols, "shapes differ");
    return inner_.dot(A, B);
  }
  void column_dots(Mat<const T> A, Mat<const T> B, double* host_out) override {
    const Access access(vault_, "column_dots", {in(A), in(B)});
    access.check(A.rows == B.rows && A.cols == B.cols, "shapes differ");
    if (A.cols > 0) access.host(host_out);
    inner_.column_dots(A, B, host_out);
  }
  void column_argmax(Mat<const T> A, index_t* host_row, T* host_value) override {
    const Access access(vault_, "column_argmax", {in(A)});
    if (A.cols > 0) access.host(host_row), access.host(host_value);
    inner_.column_argmax(A, host_row, host_value);
  }

  void multiply(Op op_a, Op op_b, T alpha, Mat<const T> A, Mat<const T> B, T beta, Mat<T> C) override {
    const Access access(vault_, "multiply", {in(A), in(B), out(C)});
    access.check(fits(op_a, op_b, A, B, C), "shapes do not fit");
    inner_.multiply(op_a, op_b, alpha, A, B, beta, C);
  }
  void multiply_there_and_back(Op op, Mat<const T> A, Mat<const T> X, Mat<T> Y, Mat<T> Z) override {
    const Access access(vault_, "multiply_there_and_back", {in(A), in(X), out(Y), out(Z)});
    access.check(fits(op, Op::none, A, X, Y) && fits(op == Op::none ? Op::transpose : Op::none, Op::none, A, Y, Z),
                 "shapes do not fit");
    inner_.multiply_there_and_back(op, A, X, Y, Z);
  }
  void multiply_batched(Op op_a, Op op_b, T alpha, Mat<const T> A, index_t stride_a, Mat<const T> B, index_t stride_b,
                        T beta, Mat<T> C, index_t stride_c, index_t batch) override {
    const Access access(
        vault_, "multiply_batched",
        {region(A, false, batch, stride_a), region(B, false, batch, stride_b), region(C, true, batch, stride_c)});
    access.check(fits(op_a, op_b, A, B, C), "shapes do not fit");
    inner_.multiply_batched(op_a, op_b, alpha, A, stride_a, B, stride_b, beta, C, stride_c, batch);
  }
  void accumulate_outer(Op op, T alpha, Mat<const T> A, T beta, Mat<T> C) override {
    const Access access(vault_, "accumulate_outer", {in(A), out(C)});
    access.check(C.rows == C.cols && C.rows == (op == Op::none ? A.rows : A.cols), "shapes do not fit");
    inner_.accumulate_outer(op, alpha, A, beta, C);
  }
  void multiply_reduced(Op op_b, DType type, const void* A, index_t lda, const void* B, index_t ldb, index_t k,
                        Mat<T> C) override {
    const index_t rows = op_b == Op::none ? k : C.cols, cols = op_b == Op::none ? C.cols : k;
    const Access access(vault_, "multiply_reduced",
                        {typed(type, A, C.rows, k, lda, false), typed(type, B, rows, cols, ldb, false), out(C)});
    inner_.multiply_reduced(op_b, type, A, lda, B, ldb, k, C);
  }
  void mirror_lower(Mat<T> C) override {
    const Access access(vault_, "mirror_lower", {out(C)});
    access.check(C.rows == C.cols, "not square");
    inner_.mirror_lower(C);
  }
  void apply_modes(Modes modes, Op op, Mat<T> A) override {
    const Access access(vault_, "apply_modes", {out(A)});
    inner_.apply_modes(modes, op, A);
  }

  void lq_factor(Mat<T> A) override {
    const Access access(vault_, "lq_factor", {out(A)});
    access.check(A.rows <= A.cols, "more rows than columns");
    inner_.lq_factor(A);
  }
  void qr_factor(Mat<T> A) override {
    const Access access(vault_, "qr_factor", {out(A)});
    access.check(A.rows >= A.cols, "more columns than rows");
    inner_.qr_factor(A);
  }
  void orthonormalize(Mat<T> A) override {
    const Access access(vault_, "orthonormalize", {out(A)});
    access.check(A.rows >= A.cols, "more columns than rows");
    inner_.orthonormalize(A);
  }
  index_t cholesky(Mat<T> A) override {
    const Access access(vault_, "cholesky", {out(A)});
    access.check(A.rows == A.cols, "not square");
    return inner_.cholesky(A);
  }
  void triangular_solve(Side side, Op op, Mat<const T> L, Mat<T> B) override {
    const Access access(vault_, "triangular_solve", {in(L), out(B)});
    access.check(L.rows == L.cols && L.rows == (side == Side::left ? B.rows : B.cols), "shapes do not fit");
    inner_.triangular_solve(side, op, L, B);
  }
  int determinant_sign(Mat<T> A) override {
    const Access access(vault_, "determinant_sign", {out(A)});
    access.check(A.rows == A.cols, "not square");
    return inner_.determinant_sign(A);
  }
  void eigen_symmetric(Mat<T> A, T* host_values, bool vectors) override {
    const Access access(vault_, "eigen_symmetric", {out(A)});
    access.check(A.rows == A.cols, "not square");
    if (!A.empty()) access.host(host_values);
    inner_.eigen_symmetric(A, host_values, vectors);
  }
  void eigen_symmetric_largest(Mat<T> A, index_t count, T* host_values, Mat<T> V) override {
    const Access access(vault_, "eigen_symmetric_largest", {out(A), out(V)});
    access.check(A.rows == A.cols && V.rows == A.rows && V.cols == count && count <= A.rows, "shapes do not fit");
    if (count > 0) access.host(host_values);
    inner_.eigen_symmetric_largest(A, count, host_values, V);
  }
  void eigen_symmetric_leading(Mat<T> A, index_t count, T* host_values, Mat<T> V) override {
    const Access access(vault_, "eigen_symmetric_leading", {out(A), out(V)});
    access.check(A.rows == A.cols && V.rows == A.rows && V.cols == count && count <= A.rows, "shapes do not fit");
    if (!A.empty()) access.host(host_values);
    inner_.eigen_symmetric_leading(A, count, host_values, V);
  }
  void eigenvalues_batched(Mat<T> A, index_t stride, index_t batch, T* host_values) override {
    const Access access(vault_, "eigenvalues_batched", {region(A, true, batch, stride)});
    access.check(A.rows == A.cols, "not square");
    if (!A.empty() && batch > 0) access.host(host_values);
    inner_.eigenvalues_batched(A, stride, batch, host_values);
  }
  void eigenvalues_hermitian_batched(Mat<T> A, Mat<T> B, index_t stride, index_t batch, T* host_values) override {
    const Access access(vault_, "eigenvalues_hermitian_batched",
                        {region(A, true, batch, stride), region(B, true, batch, stride)});
    access.check(A.rows == A.cols && B.rows == A.rows && B.cols == A.cols, "shapes do not fit");
    if (!A.empty() && batch > 0) access.host(host_values);
    inner_.eigenvalues_hermitian_batched(A, B, stride, batch, host_values);
  }
  void svd_thin(Mat<T> A, T* host_s, Mat<T> U, Mat<T> Vt) override {
    const Access access(vault_, "svd_thin", {out(A), out(U), out(Vt)});
    const index_t k = std::min(A.rows, A.cols);
    access.check((U.empty() && Vt.empty()) || (U.rows == A.rows && U.cols == k && Vt.rows == k && Vt.cols == A.cols),
                 "shapes do not fit");
    if (!A.empty()) access.host(host_s);
    inner_.svd_thin(A, host_s, U, Vt);
  }

 private:
  static bool fits(Op op_a, Op op_b, Mat<const T> A, Mat<const T> B, Mat<T> C) {
    const index_t m = op_a == Op::none ? A.rows : A.cols, k = op_a == Op::none ? A.cols : A.rows;
    const index_t l = op_b == Op::none ? B.rows : B.cols, n = op_b == Op::none ? B.cols : B.rows;
    return m == C.rows && k == l && n == C.cols;
  }

  Vault& vault_;
  LinAlg<T>& inner_;
};

}  // namespace brockett::test
