// Shared memory, filled with junk: a kernel that reads it before it writes gives a wrong result.
#pragma once

#include <cstddef>

namespace emulator {

// The `extern __shared__` memory of one block. It is one allocation of the exact size, so that
// AddressSanitizer detects an access beyond it. Its alignment is 16 bytes, as CUDA guarantees.
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

// Returns the bytes of the `__shared__` variables of a kernel, without those of the device
// functions that it calls.
std::size_t static_shared(const void* kernel);

// The thread-local storage of one library for one OS thread. In a module it has the `__shared__`
// variables and a few variables of the emulator.
struct ThreadLocals {
  char* begin = nullptr;
  std::size_t bytes = 0;

  // Returns the storage of the calling thread in the library with the variable at `address`.
  static ThreadLocals around(const void* address);
  void fill_with_junk() const;
};

}  // namespace emulator
