#include <algorithm>

#include "launch.h"
#include "nms.cuh"
#include "nms.h"
#include "sort.cuh"

namespace cvops::cuda {
namespace {

// Boxes of a chunk.
constexpr int kChunk = CVOPS_STEP(kNmsChunk, 128);
static_assert(kChunk <= kNmsChunk && kChunk % 64 == 0, "see nms_chunk");
// Up to so many chunks, an order of the boxes takes longer than it saves.
constexpr int kChunksWithoutOrder = CVOPS_STEP(3, 2);
// Blocks share the kept boxes of a tile until there are so many blocks: two for each processor of
// a large GPU.
constexpr int kBlocks = CVOPS_STEP(264, 3), kMostParts = CVOPS_STEP(16, 2);

static_assert(kMostRows <= 1ll << kPlaceBits, "see nms_places");

}  // namespace

NmsBuffers::NmsBuffers(Workspace& workspace, int64 batch, int64 num, int64 limit)
    : batch((int)batch),
      num((int)num),
      most((int)std::min(num, limit)),
      tiles((int)ceil_div(num, kCompactTile)),
      chunk((int)std::min<int64>(kChunk, 64 * ceil_div(most, 64))) {
  const int64 all = batch * num, words = ceil_div(num, 64);
  for (uint64** keys : {&this->keys, &compact, &sorted, &other})
    *keys = workspace.take<uint64>(all);
  kept = workspace.take<uint64>(batch * words);
  removed = workspace.take<uint32>(batch * ceil_div(num, 32));
  mask = workspace.take<uint32>(batch * chunk * (chunk / 32));
  mask_words = workspace.take<unsigned char>(batch * chunk * 8);
  tile_counts = workspace.take<int>(batch * tiles);
  counts = workspace.take<int>(batch);
  contest_counts = workspace.take<int>(batch);
  progress = workspace.take<int>(2 * batch);
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
  const int tile = sort_tile_of(most);
  launch("sort_tiles", sort_tiles, dim3(batch, (unsigned)ceil_div(most, tile)), tile / kSortEach, 0,
         stream, to, from, counts, num, tile);
  for (int64 run = kSortTile; run < most; run *= kSortWays) {
    launch("sort_merge", sort_merge, dim3(batch, (unsigned)merge_blocks(most, run)),
           32 * kMergeWarps, 0, stream, spare, to, counts, num, run);
    std::swap(to, spare);
  }
  return to;
}

void NmsBuffers::sort(cudaStream_t stream) {
  if (sort(sorted, other, compact, counts, num, stream) == other) std::swap(sorted, other);
}

void NmsBuffers::suppress(NmsRule rule, cudaStream_t stream) {
  const uint64* order = nullptr;
  if (most > chunk * kChunksWithoutOrder) {
    const dim3 grid(batch, (unsigned)ceil_div(most, kNmsTile));
    launch("nms_places", nms_places, grid, kNmsTile, 0, stream, other, boxes, classes,
           contest_counts, num, rule.by_class);
    order = sort(keys, other, other, contest_counts, most, stream);
    if (rule.by_class) {
      launch("nms_classes", nms_classes, grid, kNmsThreads, 0, stream, removed, kept, kept_before,
             progress, boxes, areas, classes, order, contest_counts, num, rule);
    }
  }
  for (int first = 0; first < most; first += chunk) {
    const int pairs = nms_pair_blocks(chunk), others = order ? most : most - first;
    const int64 tiles = first ? std::min<int64>(ceil_div(others, kNmsTile), kMostGridRows - pairs) : 0;
    const int64 parts = tiles ? std::clamp<int64>(kBlocks / (batch * tiles), 1, kMostParts) : 1;
    const dim3 grid(batch, (unsigned)(pairs + tiles * parts));
    launch("nms_chunk", nms_chunk, grid, kNmsThreads, 0, stream, removed, kept, kept_before,
           progress, list, list_counts, mask, mask_words, boxes, areas, classes, order,
           contest_counts, num, first, chunk, parts, rule);
  }
}

}  // namespace cvops::cuda
