// Shared memory starts as junk, as on a GPU: a kernel that relies on zeros must fail here.
#pragma once

#include <cstddef>

namespace emulator {

// `extern __shared__` memory of one block: an allocation of its own and of the exact size, so that
// AddressSanitizer sees a step beyond. Aligned to 16 bytes, which is all that CUDA promises.
class DynamicShared {
 public:
  explicit DynamicShared(std::size_t bytes);
  ~DynamicShared();
  DynamicShared(const DynamicShared&) = delete;
  DynamicShared& operator=(const DynamicShared&) = delete;

  void* data() const { return data_; }

 private:
  void* data_;
};

// The bytes of the `__shared__` variables that a kernel's own text declares. Those of the device
// functions that it calls are not counted.
std::size_t static_shared(const void* kernel);

// The thread-local storage of one library for one OS thread. In a module that is its `__shared__`
// variables, and a few of the emulator's.
struct ThreadLocals {
  char* begin = nullptr;
  std::size_t bytes = 0;

  // The calling thread's, in the library that has the thread-local variable at `address`.
  static ThreadLocals around(const void* address);
  void fill_with_junk() const;
};

}  // namespace emulator
