// What box_nms and multibox_detection share: the order of the boxes, and their suppression.
#pragma once
#include <cstdint>
#include <vector>

#include "nms_rule.cuh"
#include "order.cuh"
#include "workspace.h"

struct CUstream_st;

namespace cvops {

// The boxes of one image are fewer: a grid has one row of blocks for each tile of them.
constexpr int64 kMostRows = 65535 * (int64)kCompactTile;

namespace cpu {

// Sorts keys whose indices ascend.
void sort_keys(std::vector<uint64>& keys);

// Boxes in the order of the sort, and which of them are kept.
struct SortedBoxes {
  std::vector<SizedBox> boxes;
  std::vector<int> classes;
  std::vector<uint8_t> kept;
};

// Sets `kept` of each item of a batch.
void suppress(std::vector<SortedBoxes>& batch, NmsRule rule);

}  // namespace cpu

namespace cuda {

// The scratch memory of sort and suppression for a batch of `batch` times `num` boxes.
struct NmsBuffers {
  uint64 *keys, *compact, *sorted, *other, *kept;
  uint32 *removed, *mask;
  int *tile_counts, *counts, *contest_counts, *classes, *kept_before, *list, *list_counts;
  float *boxes, *areas;
  int batch, num, tiles, chunk;

  NmsBuffers(Workspace& workspace, int64 batch, int64 num);
  // keys and tile_counts -> compact and counts.
  void drop_invalid(CUstream_st* stream);
  // compact and counts -> sorted.
  void sort(CUstream_st* stream);
  // boxes, areas, classes, removed, kept and contest_counts -> kept and kept_before. `keys` is
  // overwritten, `limit` the most boxes that may take part.
  void suppress(int limit, NmsRule rule, CUstream_st* stream);

 private:
  // The first counts[b] of `from`, in order: in `to`, or in `spare` if that comes back.
  uint64* sort(uint64* to, uint64* spare, const uint64* from, const int* counts, int most,
               CUstream_st* stream);
};

}  // namespace cuda

}  // namespace cvops
