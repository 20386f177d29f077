// Non-maximum suppression (NMS) of boxes in descending score order. A kept box suppresses each
// later box of its class that it overlaps too much. The first counts[b] boxes of batch row b take
// part.
//
// The textbook algorithm takes the boxes in order: it keeps a box that no kept box suppresses. It
// is sequential. The matrix of all pairs would need N^2 bits. These kernels therefore process
// chunks of kNmsChunk boxes, with one launch per chunk:
//
//   boxes in score order
//   | chunk 0 | chunk 1 | chunk 2 |  ...
//
//   launch 0:  overlap mask of chunk 0                                     -> resolve chunk 0
//   launch 1:  overlap mask of chunk 1 | kept(0) against undecided boxes   -> resolve chunk 1
//   launch 2:  overlap mask of chunk 2 | kept(1) against undecided boxes   -> resolve chunk 2
//
// - Some blocks compute the overlap mask of the chunk: one bit per pair of boxes.
// - The other blocks compare the kept boxes of the previous chunk with all undecided boxes.
// - The last block to finish resolves the chunk in rounds. It keeps a box if all its suppressors
//   are suppressed. It suppresses a box if one of its suppressors is kept. Each round resolves at
//   least the first undecided box; a few rounds resolve most chunks.
//
// The mask needs memory for one chunk, independent of N. Only kept boxes cost comparisons with
// later boxes. The result does not depend on the schedule, and no block and no host waits for
// another one.
//
// Large inputs use two more steps. `order` sorts the boxes by class and Morton code. The boxes of
// one block are then close together, so one bounds test skips most kept boxes. All boxes of a class
// are adjacent in `order`. One launch of nms_classes resolves the small classes, one block each.
// The chunks, which run one after another, resolve the rest. If `order` is null, blocks take boxes
// in score order.
#pragma once
#include "nms/chunk.cuh"
#include "nms/last_block.cuh"
#include "nms/per_class.cuh"
#include "nms/rule.cuh"
#include "nms/spatial_order.cuh"
#include "sort_key.cuh"

CVOPS_KERNEL nms_spatial_keys(cvops::uint64* keys, const float* boxes, const int* classes,
                              const int* counts, int num, int by_class);
CVOPS_KERNEL nms_classes(cvops::NmsBuffers nms, const cvops::uint64* order, int num,
                         cvops::NmsRule rule);
CVOPS_KERNEL nms_chunk(cvops::NmsBuffers nms, cvops::NmsChunk buffers, const cvops::uint64* order,
                       int num, int first, int chunk, int splits, cvops::NmsRule rule);

#ifdef __CUDACC__
// Spatial keys, by which the boxes are sorted: keys (B, N); only the first counts[b] are valid. A
// key holds the class (if `by_class`), the Morton code of the center, and the index. The grid of
// cells uses the bits of floats: its resolution doubles where coordinates halve. boxes (B, N, 4),
// classes (B, N). Grid (B, tiles of 256).
extern "C" __global__ void __launch_bounds__(256)
    nms_spatial_keys(unsigned long long* __restrict__ keys, const float* __restrict__ boxes,
                     const int* __restrict__ classes, const int* __restrict__ counts, int num,
                     int by_class) {
  using namespace cvops;
  wait_for_earlier_launches();
  const int i = blockIdx.y * blockDim.x + threadIdx.x, batch = blockIdx.x;
  if (i >= counts[batch]) return;
  const int64 at = (int64)batch * num + i;
  const Box b = load_box(boxes, at);
  const uint32 x = ascending_bits(b.x1 + b.x2) >> 12, y = ascending_bits(b.y1 + b.y2) >> 12;
  uint64 cell = spread_bits(x) << 1 | spread_bits(y);  // 40 bits
  if (by_class) cell = (uint64)(classes[at] & 0xfff) << 28 | cell >> 12;
  keys[at] = cell << kSpatialIndexBits | i;
}

// Resolves the classes with at most kNmsThreads boxes. Classes with equal key bits count as one
// class. For rules with `by_class` only. boxes (B, N, 4), areas and classes (B, N) in score order;
// order (B, N): sorted keys of nms_spatial_keys; counts (B).
//
// removed (B, ceil(N / 32)): one bit per resolved box; 0 before. kept (B, ceil(N / 64)): one bit
// per kept box; 0 before. progress (B, 2): finished blocks, 0 before and after; undecided boxes,
// all of them before. kept_before (B, ceil(N / 64) + 1): number of kept boxes before each word of
// `kept`, then the total. It is written only if all boxes are resolved.
//
// Grid (B, tiles of kNmsTile), kNmsThreads threads. A block takes the groups that begin in its
// tile. All of them but the last also end in the tile: the block resolves them together, then the
// last one.
extern "C" __global__ void __launch_bounds__(512, 2)
    nms_classes(const cvops::NmsBuffers nms, const unsigned long long* __restrict__ order, int num,
                const cvops::NmsRule rule) {
  using namespace cvops;
  wait_for_earlier_launches();
  const int batch = blockIdx.x, t = threadIdx.x, begin = blockIdx.y * kNmsTile;
  const int64 at = (int64)batch * num;
  const NmsRow row = {nms.boxes + 4 * at, nms.areas + at, nms.classes + at, order + at,
                      nms.counts[batch]};
  const int tiles = max(1, (int)ceil_div(row.count, kNmsTile));
  if (blockIdx.y >= tiles) return;
  uint32* const suppressed = nms.suppressed + batch * ceil_div(num, 32);
  uint64* const kept = nms.kept + batch * ceil_div(num, 64);
  int* const kept_before = nms.kept_before + batch * (ceil_div(num, 64) + 1);
  int* const progress = nms.progress + 2 * batch;
  const int end = min(begin + kNmsTile, row.count), i = begin + t;
  int resolved = 0;
  if (begin < end) {
    const bool in_tile = i < end;
    const uint32 own = in_tile ? spatial_class(row.order[i]) : 0;
    // Number of leading boxes that continue the previous group, and start of the last group.
    const bool continues = begin > 0 && in_tile && own == spatial_class(row.order[begin - 1]);
    const int first = begin + __syncthreads_count(continues);
    const uint32 last_group = spatial_class(row.order[end - 1]);
    const int last = end - __syncthreads_count(in_tile && own == last_group);
    const int next = last + 1 + t;
    const bool belongs = next < row.count && spatial_class(row.order[next]) == last_group;
    const int size = 1 + __syncthreads_count(belongs);  // size of the last group if it begins in
                                                        // this tile
#pragma unroll 1
    for (int run = first; run < end;) {
      const int num_boxes = run < last ? last - run : size;
      if (num_boxes <= kNmsThreads) {
        nms_resolve_classes(suppressed, kept, row, run, num_boxes, rule);
        resolved += num_boxes;
      }
      run = run < last ? last : end;
    }
  }
  if (t == 0 && resolved) atomicAdd(&progress[1], -resolved);
  if (!is_last_block(&progress[0], tiles) || __ldcg(&progress[1])) return;
  popcount_prefix_sum(kept_before, (int)ceil_div(num, 64), 0,
                      [&](int w) { return __ldcg(kept + w); });
}

// One chunk, which begins at `first`. boxes (B, N, 4), areas and classes (B, N) in score order;
// order (B, N): sorted keys of nms_spatial_keys, or null; counts (B).
//
// removed (B, ceil(N / 32)): one bit per box that is suppressed or resolved by nms_classes. All
// bits are 0 before the first launch. A chunk sets no bits of its own boxes. kept (B, ceil(N /
// 64)): one bit per kept box, 0 before the first launch. kept_before (B, ceil(N / 64) + 1): number
// of kept boxes before each word that has boxes, and the total as the last element. progress (B,
// 2): finished blocks, 0 before and after; boxes left for the chunks. If none are left, the kernel
// returns. list (B, chunk), list_counts (B): kept boxes of the chunk. mask (B, chunk / 32, chunk),
// words (B, chunk, 8): see nms_overlap_mask.
//
// Grid (B, blocks), kNmsThreads threads. nms_mask_blocks(chunk) blocks compute the overlap mask. In
// all chunks but the first, each tile of kNmsTile boxes has `splits` more blocks. The tiles cover
// all boxes, or without `order` the boxes from `first` on. With fewer blocks, each takes several
// tiles.
extern "C" __global__ void __launch_bounds__(512, 2)
    nms_chunk(const cvops::NmsBuffers nms, const cvops::NmsChunk buffers,
              const unsigned long long* __restrict__ order, int num, int first, int chunk,
              int splits, const cvops::NmsRule rule) {
  using namespace cvops;
  wait_for_earlier_launches();
  const int batch = blockIdx.x;
  const int64 at = (int64)batch * num;
  const NmsRow row = {nms.boxes + 4 * at, nms.areas + at, nms.classes + at,
                      order ? order + at : nullptr, nms.counts[batch]};
  int* const progress = nms.progress + 2 * batch;
  if (row.count > 0 ? first >= row.count || progress[1] == 0 : first > 0) return;
  uint32* const suppressed = nms.suppressed + batch * ceil_div(num, 32);
  uint64* const kept = nms.kept + batch * ceil_div(num, 64);
  int* const kept_before = nms.kept_before + batch * (ceil_div(num, 64) + 1);
  int *const list = buffers.list + (int64)batch * chunk, *const list_count =
                                                             buffers.list_counts + batch;
  uint32* const mask = buffers.mask + (int64)batch * (chunk / 32) * chunk;
  unsigned char* const words = buffers.words + (int64)batch * chunk * 8;
  const int index = blockIdx.y, pairs = nms_mask_blocks(chunk);
  if (index < pairs) {
    nms_overlap_mask(mask, words, row, suppressed, first, chunk, index, rule);
  } else {
    const int begin = row.order ? 0 : first, tiles = (gridDim.y - pairs) / splits;
    for (int tile = (index - pairs) / splits; tile * kNmsTile < row.count - begin; tile += tiles) {
      nms_suppress(suppressed, row, list, *list_count, first, begin + tile * kNmsTile,
                   (index - pairs) % splits, splits, rule);
      __syncthreads();
    }
  }
  if (!is_last_block(&progress[0], gridDim.y)) return;
  nms_resolve_chunk(kept, kept_before, list, list_count, suppressed, mask, words, row.count, num,
                    first, chunk);
}
#endif
