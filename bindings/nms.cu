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
      chunk((int)std::min<int64>(kNmsChunk, 64 * ceil_div(num, 64))) {
  const int64 all = batch * num, words = ceil_div(num, 64);
  for (uint64** keys : {&this->keys, &compact, &sorted, &other})
    *keys = workspace.take<uint64>(all);
  kept = workspace.take<uint64>(batch * words);
  removed = workspace.take<uint32>(batch * ceil_div(num, 32));
  mask = workspace.take<uint32>(batch * chunk * (chunk / 32));
  tile_counts = workspace.take<int>(batch * tiles);
  counts = workspace.take<int>(batch);
  contest_counts = workspace.take<int>(batch);
  classes = workspace.take<int>(all);
  kept_before = workspace.take<int>(batch * (words + 1));
  list = workspace.take<int>(batch * chunk);
  list_counts = workspace.take<int>(batch);
  boxes = workspace.take<float>(4 * all);
  areas = workspace.take<float>(all);
}

void NmsBuffers::drop_invalid(cudaStream_t stream) {
  launch("sort_compact", sort_compact, dim3(batch, tiles), kCompactTile, 0, stream, compact, counts,
         keys, tile_counts, num);
}

uint64* NmsBuffers::sort(uint64* to, uint64* spare, const uint64* from, const int* counts, int most,
                         cudaStream_t stream) {
  int tile = 64;
  while (tile < std::min(most, kSortTile)) tile *= 2;
  launch("sort_tiles", sort_tiles, dim3(batch, (unsigned)ceil_div(most, tile)), tile / 2, 0, stream,
         to, from, counts, num, tile);
  for (int64 run = kSortTile; run < most; run *= 2) {
    launch("sort_merge", sort_merge, dim3(batch, (unsigned)ceil_div(most, kSortTile)),
           kSortTile / kSortItems, 0, stream, spare, to, counts, num, run);
    std::swap(to, spare);
  }
  return to;
}

void NmsBuffers::sort(cudaStream_t stream) {
  if (sort(sorted, other, compact, counts, num, stream) == other) std::swap(sorted, other);
}

void NmsBuffers::suppress(int limit, NmsRule rule, cudaStream_t stream) {
  const int most = std::min(num, limit);
  const int chunk = (int)std::min<int64>(this->chunk, 64 * ceil_div(most, 64));
  const uint64* order = nullptr;
  if (rule.by_class) {
    launch("nms_class_keys", nms_class_keys, dim3(batch, (unsigned)ceil_div(most, 256)), 256, 0,
           stream, other, classes, contest_counts, num);
    order = sort(keys, other, other, contest_counts, most, stream);
  }
  const dim3 pairs(batch, (unsigned)ceil_div(chunk, 128), (unsigned)ceil_div(chunk, 64));
  for (int first = 0; first < most; first += chunk) {
    const int left = most - first - chunk;
    launch("nms_mask", nms_mask, pairs, 256, 0, stream, mask, boxes, areas, classes, order, removed,
           contest_counts, num, first, chunk, rule);
    launch("nms_settle", nms_settle, batch, std::min(chunk, 1024), 0, stream, kept, kept_before,
           list, list_counts, order, removed, mask, contest_counts, num, first, chunk, left <= 0);
    if (left <= 0) break;
    launch("nms_suppress", nms_suppress, dim3(batch, (unsigned)ceil_div(left, 256)), 128, 0, stream,
           removed, boxes, areas, classes, order, list, list_counts, contest_counts, num,
           first + chunk, chunk, rule);
  }
}

}  // namespace cvops::cuda
