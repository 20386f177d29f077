// One piece of scratch memory, carved into arrays. Made with no memory, it counts what it would
// take: the size of a workspace and its layout are then one text.
#pragma once
#include <cstddef>

#include "common.cuh"

namespace cvops {

class Workspace {
 public:
  explicit Workspace(void* memory = nullptr) : memory_(static_cast<char*>(memory)) {}

  // Room for `num` elements, aligned as the kernels' widest loads need it.
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
