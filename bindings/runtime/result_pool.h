// Memory of large results on the CPU. The pool keeps freed blocks for later results: the system
// clears the pages of new memory, which can take longer than an op. Thread-safe.
#pragma once
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

}  // namespace cvops
