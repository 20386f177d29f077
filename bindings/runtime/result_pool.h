// Memory of large results on the CPU. The pool keeps freed blocks for later results: the system
// clears the pages of new memory, which can take longer than an op. Thread-safe.
#pragma once
#include <memory>

#include "common.cuh"

namespace cvops {

// Memory that begins at a multiple of a huge page; null if there is none.
struct ResultBlock {
  void* memory = nullptr;
  int64 bytes = 0;
};

// Minimum size of a result that the pool serves.
constexpr int64 kMinPooled = 1 << 20;

// Returns a block of at least `bytes` bytes. It has no memory if the pool could not keep it, or if
// the system has none.
ResultBlock take_result(int64 bytes);

// Keeps a block of take_result() for later results. Beyond the size of the pool, the blocks that
// were given first are freed. The system may reclaim all but the last 16 MiB at any time.
void give_result(ResultBlock block);

// Number of bytes of the blocks that the pool keeps.
int64 kept_result_bytes();

// Maximum of that number: CVOPS_RESULT_POOL in MiB, else 256 MiB. 0 turns the pool off.
int64 result_pool_size();
void set_result_pool_size(int64 bytes);

// Frees the blocks that the pool keeps.
void release_results();

// Frees scratch memory: a block of the pool of results goes back to it.
struct FreeScratch {
  ResultBlock block;

  template <typename T>
  void operator()(T* memory) const {
    block.memory ? give_result(block) : delete[] memory;
  }
};

template <typename T>
using PooledScratch = std::unique_ptr<T[], FreeScratch>;

// Uninitialized scratch memory. Large arrays come from the pool of results: the allocator may give
// their pages back to the system, which clears them again in the next call.
template <typename T>
PooledScratch<T> pooled_scratch(int64 num) {
  // glibc gives back blocks of 128 KiB, and the end of the heap if smaller blocks leave as much.
  constexpr int64 kMinBytes = 1 << 14;
  const int64 bytes = num * (int64)sizeof(T);
  const ResultBlock block = bytes < kMinBytes ? ResultBlock{} : take_result(bytes);
  if (block.memory) return {static_cast<T*>(block.memory), FreeScratch{block}};
  return {new T[num], FreeScratch{}};
}

}  // namespace cvops
