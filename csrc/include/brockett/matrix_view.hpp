// Views of the caller's matrices, and the owning arrays that results come in.
#pragma once

#include <cstdint>
#include <memory>
#include <type_traits>

#include "brockett/export.hpp"

namespace brockett {

using index_t = std::int64_t;

/// Element types that samples may come in. Half types are exactly representable in float and are widened on the way in.
enum class DType { float16, bfloat16, float32, float64 };

/// Which index runs contiguously in memory.
enum class Order { row_major, column_major };

/// A rows x cols matrix in somebody else's memory, in the memory space of the Context it is used with.
///
/// `ld` is the distance in elements between neighbouring rows (row_major) or columns (column_major), at least
/// cols or rows. Nothing is owned; the memory must outlive the call.
template <class T>
struct MatrixView {
  T* data = nullptr;
  index_t rows = 0;
  index_t cols = 0;
  index_t ld = 0;
  Order order = Order::row_major;

  MatrixView() = default;
  MatrixView(T* data_, index_t rows_, index_t cols_, Order order_ = Order::row_major)
      : MatrixView(data_, rows_, cols_, order_ == Order::row_major ? cols_ : rows_, order_) {}
  MatrixView(T* data_, index_t rows_, index_t cols_, index_t ld_, Order order_)
      : data(data_), rows(rows_), cols(cols_), ld(ld_), order(order_) {}

  /// A view of non-const elements reads as a view of const ones.
  template <class U>
    requires std::is_same_v<const U, T>
  MatrixView(const MatrixView<U>& other)  // NOLINT: implicit on purpose
      : data(other.data), rows(other.rows), cols(other.cols), ld(other.ld), order(other.order) {}

  /// Element (i, j); host memory only.
  T& operator()(index_t i, index_t j) const { return data[order == Order::row_major ? i * ld + j : j * ld + i]; }
  /// The same memory read as the transpose; no data moves.
  MatrixView transposed() const {
    return {data, cols, rows, ld, order == Order::row_major ? Order::column_major : Order::row_major};
  }
  index_t size() const { return rows * cols; }
  bool empty() const { return rows == 0 || cols == 0; }
};

/// A rows x cols matrix that owns its memory (in the memory space of the Context that made it). Shared, not copied.
template <class T>
class Array {
 public:
  Array() = default;
  Array(std::shared_ptr<T> data, index_t rows, index_t cols, Order order)
      : data_(std::move(data)), rows_(rows), cols_(cols), order_(order) {}

  index_t rows() const { return rows_; }
  index_t cols() const { return cols_; }
  Order order() const { return order_; }
  T* data() const { return data_.get(); }
  bool empty() const { return rows_ == 0 || cols_ == 0; }
  MatrixView<T> view() const { return {data_.get(), rows_, cols_, order_}; }
  /// Element (i, j); host memory only.
  T& operator()(index_t i, index_t j) const { return view()(i, j); }
  /// Who keeps the memory alive: for handing it to another library without a copy.
  const std::shared_ptr<T>& owner() const { return data_; }
  /// The same memory read as the transpose; no data moves.
  Array transposed() const {
    return {data_, cols_, rows_, order_ == Order::row_major ? Order::column_major : Order::row_major};
  }

 private:
  std::shared_ptr<T> data_;
  index_t rows_ = 0;
  index_t cols_ = 0;
  Order order_ = Order::row_major;
};

}  // namespace brockett
