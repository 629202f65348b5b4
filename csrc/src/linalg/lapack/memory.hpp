// Host memory aligned to cache lines, and the workspaces made of it.
#pragma once

#include <cstddef>
#include <memory>

#include "brockett/matrix_view.hpp"

namespace brockett::linalg::lapack {

/// `bytes` of memory aligned to 64; null for 0. OutOfMemory names the size.
void* allocate_aligned(std::size_t bytes);
void free_aligned(void* p) noexcept;

/// Workspace of `count` elements, contents undefined; OutOfMemory also where the size in bytes overflows.
template <class T>
class Scratch {
 public:
  explicit Scratch(index_t count);
  T* data() { return p_.get(); }
  T& operator[](index_t i) { return p_.get()[i]; }
  index_t size() const { return size_; }

 private:
  struct Free {
    void operator()(T* p) const noexcept { free_aligned(p); }
  };
  index_t size_;
  std::unique_ptr<T, Free> p_;
};

[[noreturn]] void throw_out_of_memory(index_t count, std::size_t size_of_element);

template <class T>
Scratch<T>::Scratch(index_t count) : size_(count) {
  std::size_t bytes = 0;
  if (count < 0 || __builtin_mul_overflow(static_cast<std::size_t>(count), sizeof(T), &bytes)) {
    throw_out_of_memory(count, sizeof(T));
  }
  p_.reset(static_cast<T*>(allocate_aligned(bytes)));
}

}  // namespace brockett::linalg::lapack
