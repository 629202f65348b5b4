// Backend memory with an owner.
#pragma once

#include <memory>
#include <utility>

#include "linalg/linalg.hpp"

namespace brockett::linalg {

/// A rows x cols column-major matrix that frees itself. Contents start undefined.
template <class T>
class Buffer {
 public:
  Buffer() = default;
  Buffer(LinAlg<T>& la, index_t rows, index_t cols)
      : la_(&la),
        mat_(static_cast<T*>(la.allocate(sizeof(T) * static_cast<std::size_t>(rows) * static_cast<std::size_t>(cols))),
             rows, cols, rows > 0 ? rows : 1) {}
  ~Buffer() { release(); }
  Buffer(Buffer&& o) noexcept : la_(o.la_), mat_(std::exchange(o.mat_, {})) {}
  Buffer& operator=(Buffer&& o) noexcept {
    if (this != &o) {
      release();
      la_ = o.la_;
      mat_ = std::exchange(o.mat_, {});
    }
    return *this;
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  Mat<T> mat() const { return mat_; }
  operator Mat<T>() const { return mat_; }              // NOLINT: implicit on purpose
  operator Mat<const T>() const { return mat_; }        // NOLINT: implicit on purpose
  T* data() const { return mat_.data; }
  index_t rows() const { return mat_.rows; }
  index_t cols() const { return mat_.cols; }

 private:
  void release() noexcept {
    if (mat_.data) la_->deallocate(mat_.data);
    mat_ = {};
  }
  LinAlg<T>* la_ = nullptr;
  Mat<T> mat_;
};

}  // namespace brockett::linalg
