// What box_nms and multibox_detection share: the order of the boxes, and their suppression.
#pragma once
#include <cstdint>
#include <memory>

#include "nms_rule.cuh"
#include "order.cuh"
#include "parallel.h"
#include "workspace.h"

struct CUstream_st;

namespace cvops {

// The boxes of one image are fewer: a grid has one row of blocks for each tile of them.
constexpr int64 kMostRows = 65535 * (int64)kCompactTile;

namespace cpu {

// Scratch memory, as it comes.
template <typename T>
std::unique_ptr<T[]> scratch(int64 num) {
  return std::unique_ptr<T[]>(new T[num]);
}

// The least `most` of `num` keys, whose indices ascend, in ascending order: in one of the two
// arrays, both of which are used up.
const uint64* sort_keys(uint64* keys, uint64* other, int64 num, int64 most);

// Sets which of `num` boxes, in the order of the sort, are kept. `classes` is not read if the rule
// does not go by them.
void suppress(uint8_t* kept, const SizedBox* boxes, const int* classes, int num, NmsRule rule,
              int threads);

// Calls body(b, threads) for each image of a batch; it may use as many threads. `cost` is a guess
// at the nanoseconds of one. Images that are fewer than the threads come one after the other.
template <typename Body>
void for_each_image(int64 batch, double cost, const Body& body) {
  const int threads = num_threads();
  if (batch >= threads) return parallel_for(batch, cost, [&](int64 b) { body(b, 1); });
  for (int64 b = 0; b < batch; ++b) body(b, threads);
}

}  // namespace cpu

namespace cuda {

// The scratch memory of sort and suppression for a batch of `batch` times `num` boxes, of each of
// which `limit` take part at most.
struct NmsBuffers {
  uint64 *keys, *compact, *sorted, *other, *kept;
  uint32 *removed, *mask;
  unsigned char* mask_words;
  int *tile_counts, *counts, *contest_counts, *progress, *classes, *kept_before, *list,
      *list_counts;
  float *boxes, *areas;
  int batch, num, most, tiles, chunk;

  NmsBuffers(Workspace& workspace, int64 batch, int64 num, int64 limit);
  // keys and tile_counts -> compact and counts.
  void drop_invalid(CUstream_st* stream);
  // compact and counts -> sorted.
  void sort(CUstream_st* stream);
  // boxes, areas, classes, removed, kept and contest_counts -> kept and kept_before. `keys` and
  // `other` are overwritten.
  void suppress(NmsRule rule, CUstream_st* stream);

 private:
  // The first counts[b] of `from`, in order: in `to`, or in `spare` if that comes back.
  uint64* sort(uint64* to, uint64* spare, const uint64* from, const int* counts, int most,
               CUstream_st* stream);
};

}  // namespace cuda

}  // namespace cvops
