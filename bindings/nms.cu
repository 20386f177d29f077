#include <algorithm>

#include "launch.h"
#include "nms.cuh"
#include "nms.h"
#include "sort.cuh"

namespace cvops::cuda {

NmsBuffers::NmsBuffers(Workspace& workspace, int64 batch, int64 num)
    : batch((int)batch),
      num((int)num),
      tiles((int)ceil_div(num, kCompactTile)),
      words((int)ceil_div(num, 64)) {
  constexpr int64 kMaskBytes = 64 << 20;  // at most, for the bits of one chunk of rows
  rows = 64 * (int)std::min<int64>(words, std::max<int64>(1, kMaskBytes / (batch * words * 512)));
  const int64 all = batch * num;
  for (uint64** keys : {&this->keys, &compact, &sorted, &other})
    *keys = workspace.take<uint64>(all);
  removed = workspace.take<uint64>(batch * words);
  kept = workspace.take<uint64>(batch * words);
  mask = workspace.take<uint64>(batch * rows * words);
  tile_counts = workspace.take<int>(batch * tiles);
  counts = workspace.take<int>(batch);
  classes = workspace.take<int>(all);
  kept_before = workspace.take<int>(batch * (words + 1));
  boxes = workspace.take<float>(4 * all);
  areas = workspace.take<float>(all);
}

void NmsBuffers::drop_invalid(cudaStream_t stream) {
  launch("sort_compact", sort_compact, dim3(batch, tiles), kCompactTile, 0, stream, compact, counts,
         keys, tile_counts, num);
}

void NmsBuffers::sort(cudaStream_t stream) {
  int tile = 64;
  while (tile < std::min(num, kSortTile)) tile *= 2;
  launch("sort_tiles", sort_tiles, dim3(batch, (unsigned)ceil_div(num, tile)), tile / 2, 0, stream,
         sorted, compact, counts, num, tile);
  for (int64 run = kSortTile; run < num; run *= 2) {
    launch("sort_merge", sort_merge, dim3(batch, (unsigned)ceil_div(num, kSortTile)),
           kSortTile / kSortItems, 0, stream, other, sorted, counts, num, run);
    std::swap(sorted, other);
  }
}

void NmsBuffers::suppress(int limit, NmsRule rule, cudaStream_t stream) {
  const dim3 grid(batch, (unsigned)ceil_div(words, 4), rows / 64);
  for (int first = 0; first < std::min(num, limit); first += rows) {
    launch("nms_mask", nms_mask, grid, 256, 0, stream, mask, boxes, areas, classes, removed, counts,
           num, limit, first, rows, rule);
    launch("nms_resolve", nms_resolve, batch, 512, 0, stream, kept, removed, kept_before, mask,
           counts, num, limit, first, rows);
  }
}

}  // namespace cvops::cuda
