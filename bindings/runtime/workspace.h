// One piece of scratch memory, divided into arrays. Without memory, it counts the bytes. The same
// code therefore gives the size and the layout.
#pragma once
#include <cstddef>

#include "common.cuh"

namespace cvops {

class Workspace {
 public:
  explicit Workspace(void* memory = nullptr) : memory_(static_cast<char*>(memory)) {}

  // Allocates `num` elements, aligned for the widest loads of the kernels.
  template <typename T>
  T* take(int64 num) {
    char* here = memory_ ? memory_ + size_ : nullptr;
    size_ += ceil_div(num * (int64)sizeof(T), 256) * 256;
    return reinterpret_cast<T*>(here);
  }

  int64 size() const { return size_; }

 private:
  char* memory_;
  int64 size_ = 0;
};

}  // namespace cvops
