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
#include "nms_rule.cuh"
#include "sort_key.cuh"
#include "warp.cuh"

namespace cvops {

constexpr int kNmsChunk = 2048;  // maximum number of boxes; a multiple of 256
constexpr int kNmsTile = 256;    // boxes per block that are compared with kept boxes
constexpr int kNmsThreads = 512;
// Bits of the index and of the class in a spatial key.
constexpr int kSpatialIndexBits = 24, kSpatialClassBits = 12;

// Buffers of one chunk. See nms_chunk.
struct NmsChunk {
  int *list, *list_counts;  // (B, chunk), (B): kept boxes of the chunk
  uint32* mask;             // (B, chunk / 32, chunk): one bit per suppressor of each box
  unsigned char* words;     // (B, chunk, 8): one bit per nonzero word of the mask
};

// Number of blocks per batch row that compute the overlap mask of a chunk. Each block takes 256
// boxes and 64 later boxes.
CVOPS_HD int nms_mask_blocks(int chunk) {
  int groups = (chunk + 255) / 256;
  return 2 * groups * (groups + 1);
}

}  // namespace cvops

CVOPS_KERNEL nms_spatial_keys(cvops::uint64* keys, const float* boxes, const int* classes,
                              const int* counts, int num, int by_class);
CVOPS_KERNEL nms_classes(cvops::NmsBuffers nms, const cvops::uint64* order, int num,
                         cvops::NmsRule rule);
CVOPS_KERNEL nms_chunk(cvops::NmsBuffers nms, cvops::NmsChunk buffers, const cvops::uint64* order,
                       int num, int first, int chunk, int splits, cvops::NmsRule rule);

#ifdef __CUDACC__
namespace cvops {

// A box during suppression. If the overlap of two boxes is below the sum of their `min_overlap`,
// neither suppresses the other.
struct alignas(16) Candidate {
  Box box;
  float area, min_overlap;
  int of_class;
};

// True if boxes that do not touch cannot suppress each other.
__device__ __forceinline__ bool nms_needs_overlap(const NmsRule& rule) {
  return rule.threshold > 1e-30f;
}

// Half of a lower bound of the overlap: iou > t implies overlap > t / (1 + t) * (sum of areas). The
// factor 0.9999 covers the rounding errors; 1e-36 covers those of numbers near 0. The result is NaN
// if boxes that do not touch can suppress each other. Every comparison then passes.
__device__ __forceinline__ float nms_min_overlap(float area, const NmsRule& rule) {
  const float t = rule.threshold;
  return nms_needs_overlap(rule) ? t / (1 + t) * 0.9999f * area - 1e-36f
                                 : __uint_as_float(0x7fffffff);
}

// One batch row.
struct NmsRow {
  const float *boxes, *areas;
  const int* classes;
  const uint64* order;
  int count;

  __device__ __forceinline__ Candidate candidate(int i, const NmsRule& rule) const {
    const float area = areas[i];
    return {load_box(boxes, i), area, nms_min_overlap(area, rule), rule.by_class ? classes[i] : 0};
  }
};

// False if suppresses() is certainly false. A NaN can only enlarge the overlap here: fminf and
// fmaxf return the number.
__device__ __forceinline__ bool may_suppress(const Candidate& kept, const Candidate& other) {
  const float width = fminf(kept.box.x2, other.box.x2) - fmaxf(kept.box.x1, other.box.x1);
  const float height = fminf(kept.box.y2, other.box.y2) - fmaxf(kept.box.y1, other.box.y1);
  return !(width * fmaxf(height, 0.0f) < kept.min_overlap + other.min_overlap);
}

// may_suppress() of any of four kept boxes at distance kStep, with one branch.
template <int kStep>
__device__ __forceinline__ bool any_may_suppress(const Candidate* kept, const Candidate& other) {
  bool any = false;
#pragma unroll
  for (int k = 0; k < 4; ++k) any |= may_suppress(kept[kStep * k], other);
  return any;
}

__device__ __forceinline__ bool suppresses(const Candidate& kept, const Candidate& other,
                                           const NmsRule& rule) {
  return kept.of_class == other.of_class &&
         suppresses(SizedBox{kept.box, kept.area}, SizedBox{other.box, other.area}, rule);
}

// Racy read on purpose: other blocks may set bits. A missed bit costs comparisons only.
__device__ __forceinline__ bool is_suppressed(const uint32* suppressed, int i) {
  return __ldcv(suppressed + i / 32) >> (i % 32) & 1;
}

// Inserts a 0 after each of the 20 lowest bits of x.
__device__ __forceinline__ uint64 spread_bits(uint32 x) {
  uint64 y = x & 0xfffff;
  y = (y | y << 16) & 0x0000ffff0000ffff;
  y = (y | y << 8) & 0x00ff00ff00ff00ff;
  y = (y | y << 4) & 0x0f0f0f0f0f0f0f0f;
  y = (y | y << 2) & 0x3333333333333333;
  return (y | y << 1) & 0x5555555555555555;
}

// Bits whose unsigned order is the order of the floats.
__device__ __forceinline__ uint32 ascending_bits(float x) {
  const uint32 bits = bits_of(x);
  return bits >> 31 ? ~bits : bits | 0x80000000u;
}

__device__ __forceinline__ int spatial_index(uint64 order) {
  return (int)(order & ((1u << kSpatialIndexBits) - 1));
}

// Equal for all boxes of a class. Several classes can have the same value.
__device__ __forceinline__ uint32 spatial_class(uint64 order) {
  return (uint32)(order >> (64 - kSpatialClassBits));
}

// Bounding box and class range of the boxes of a block. It can be larger than necessary.
struct Bounds {
  Box box;
  int lowest, highest;  // range of classes
};

__device__ __forceinline__ float nms_infinity() { return __uint_as_float(0x7f800000); }  // infinity

__device__ __forceinline__ Bounds empty_bounds() {
  const float infinity = nms_infinity();
  return {{infinity, infinity, -infinity, -infinity}, 0x7fffffff, -0x7fffffff - 1};
}

// Bounds extended by one box. A box with NaN extends them to infinity. So does every box if boxes
// that do not touch can suppress each other.
__device__ __forceinline__ Bounds extended(const Bounds& bounds, const Candidate& c,
                                           const NmsRule& rule) {
  const Box b = c.box;
  const bool ordered = b.x1 == b.x1 && b.y1 == b.y1 && b.x2 == b.x2 && b.y2 == b.y2;
  const bool near = ordered && nms_needs_overlap(rule);
  const float infinity = nms_infinity();
  return {
      {near ? fminf(bounds.box.x1, b.x1) : -infinity, near ? fminf(bounds.box.y1, b.y1) : -infinity,
       near ? fmaxf(bounds.box.x2, b.x2) : infinity, near ? fmaxf(bounds.box.y2, b.y2) : infinity},
      min(bounds.lowest, c.of_class),
      max(bounds.highest, c.of_class)};
}

// False if `kept` certainly suppresses no box within the bounds. Comparisons with NaN pass.
__device__ __forceinline__ bool may_reach(const Candidate& kept, const Bounds& bounds) {
  const Box b = kept.box;
  return !(b.x1 > bounds.box.x2 || b.x2 < bounds.box.x1 || b.y1 > bounds.box.y2 ||
           b.y2 < bounds.box.y1) &&
         kept.of_class >= bounds.lowest && kept.of_class <= bounds.highest;
}

// Union of the bounds of the first kNmsTile threads, returned to all threads. `shared` has one
// element per warp.
__device__ __forceinline__ Bounds bounds_of_tile(Bounds bounds, Bounds* shared) {
  for (int d = 16; d > 0; d /= 2) {
    bounds.box.x1 = fminf(bounds.box.x1, __shfl_xor_sync(kWarp, bounds.box.x1, d));
    bounds.box.y1 = fminf(bounds.box.y1, __shfl_xor_sync(kWarp, bounds.box.y1, d));
    bounds.box.x2 = fmaxf(bounds.box.x2, __shfl_xor_sync(kWarp, bounds.box.x2, d));
    bounds.box.y2 = fmaxf(bounds.box.y2, __shfl_xor_sync(kWarp, bounds.box.y2, d));
    bounds.lowest = min(bounds.lowest, __shfl_xor_sync(kWarp, bounds.lowest, d));
    bounds.highest = max(bounds.highest, __shfl_xor_sync(kWarp, bounds.highest, d));
  }
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = bounds;
  __syncthreads();
  for (int w = 0; w < kNmsTile / 32; ++w) {
    const Bounds& other = shared[w];
    bounds.box = {fminf(bounds.box.x1, other.box.x1), fminf(bounds.box.y1, other.box.y1),
                  fmaxf(bounds.box.x2, other.box.x2), fmaxf(bounds.box.y2, other.box.y2)};
    bounds.lowest = min(bounds.lowest, other.lowest);
    bounds.highest = max(bounds.highest, other.highest);
  }
  return bounds;
}

// Overlap mask of the chunk that begins at `first`. mask (chunk / 32, chunk): bit k of mask[w, j]
// is set if box 32 w + k precedes box j and suppresses it. Only nonzero words are written. words
// (chunk, 8): bit w % 8 of words[j, w / 8] is set if mask[w, j] is nonzero. Bits of a suppressed
// box j can be missing. `index` is the number of the block, below nms_mask_blocks().
__device__ __forceinline__ void nms_overlap_mask(uint32* mask, unsigned char* words,
                                                 const NmsRow& row, const uint32* suppressed,
                                                 int first, int chunk, int index,
                                                 const NmsRule& rule) {
  __shared__ Candidate before[256];
  __shared__ int4 classes[64];
  __shared__ uint32 found[64];
  int column = 0;  // index of 256 boxes
  while (index >= 2 * (column + 1) * (column + 2)) ++column;
  index -= 2 * column * (column + 1);
  const int t = threadIdx.x, group = index / 4;
  const int first_box = 256 * column + 64 * (index % 4), first_before = 256 * group;
  const int count = min(row.count - first, chunk);
  if (first_box >= count) return;
  const int j = first_box + t % 64, own = t / 64 * 32, word = 8 * group + t / 64;
  const int num_before = min(32, j - 32 * word);  // boxes of the word that precede box j
  Candidate box = {};
  bool takes_part = j < count && num_before > 0;
  if (takes_part) {  // all loads start together
    box = row.candidate(first + j, rule);
    takes_part = !is_suppressed(suppressed, first + j);
  }
  if (t < 256 && first_before + t < count) {
    before[t] = row.candidate(first + first_before + t, rule);
    reinterpret_cast<int*>(classes)[t] = before[t].of_class;
  }
  if (t < 64) found[t] = 0;
  __syncthreads();
  if (takes_part) {
    uint32 bits = 0;
    if (rule.by_class) {
      uint32 same = 0;
#pragma unroll
      for (int k = 0; k < 8; ++k) {
        const int4 four = classes[own / 4 + k];
        same |= ((uint32)(four.x == box.of_class) | (uint32)(four.y == box.of_class) << 1 |
                 (uint32)(four.z == box.of_class) << 2 | (uint32)(four.w == box.of_class) << 3)
                << 4 * k;
      }
      same &= ~0u >> (32 - num_before);
      for (; same; same &= same - 1) {
        const int k = __ffs(same) - 1;
        const Candidate& other = before[own + k];
        if (may_suppress(other, box) && suppresses(other, box, rule)) bits |= 1u << k;
      }
    } else {
      for (int k = 0; k < num_before; k += 4) {
        if (!any_may_suppress<1>(before + own + k, box)) continue;
#pragma unroll 1
        for (int i = k; i < min(k + 4, num_before); ++i) {
          if (suppresses(before[own + i], box, rule)) bits |= 1u << i;
        }
      }
    }
    if (bits) {
      mask[word * chunk + j] = bits;
      atomicOr(&found[t % 64], 1u << (t / 64));
    }
  }
  __syncthreads();
  if (t < 64 && first_box + t < count) {
    unsigned char* own_words = words + 8 * (first_box + t);
    own_words[group] = found[t];
    // All eight bytes are read at once. One block per 64 boxes clears the bytes that no block
    // writes.
    for (int later = column + 1; group == 0 && later < 8; ++later) own_words[later] = 0;
  }
}

// Compares split `split` of `splits` of `list` (num_kept boxes) with the tile of boxes at `begin`.
// It sets the bits in `suppressed` of the suppressed boxes. Boxes before `first` are skipped.
__device__ __forceinline__ void nms_suppress(uint32* suppressed, const NmsRow& row, const int* list,
                                             int num_kept, int first, int begin, int split,
                                             int splits, const NmsRule& rule) {
  __shared__ Candidate kept[kNmsThreads + 8];  // a group of four may extend beyond the last box
  __shared__ Bounds warp_bounds[kNmsThreads / 32];
  __shared__ int num_near;
  // Two threads per box; each takes every second kept box.
  const int t = threadIdx.x, half = t / kNmsTile;
  const int i = begin + t % kNmsTile;
  const int j = i < row.count ? row.order ? spatial_index(row.order[i]) : i : 0;
  const bool is_undecided = i < row.count && j >= first && !is_suppressed(suppressed, j);
  Candidate mine = {};
  Bounds bounds = empty_bounds();
  if (is_undecided) {
    mine = row.candidate(j, rule);
    bounds = extended(bounds, mine, rule);
  }
  bounds = bounds_of_tile(bounds, warp_bounds);
  bool survives = is_undecided;
  const int each = (int)ceil_div(num_kept, splits), end = min(num_kept, (split + 1) * each);
  for (int k = split * each; k < end; k += kNmsThreads) {
    if (!__syncthreads_or(survives)) break;
    if (t == 0) num_near = 0;
    __syncthreads();
    Candidate box = {};
    bool is_near = k + t < end;
    if (is_near) {
      box = row.candidate(list[k + t], rule);
      is_near = may_reach(box, bounds);
    }
    const int at = warp_append(&num_near, is_near);
    if (is_near) kept[at] = box;
    __syncthreads();
    const int num = num_near;
    for (int n = half; survives && n < num; n += 8) {
      if (!any_may_suppress<2>(kept + n, mine)) continue;
#pragma unroll 1
      for (int i = n; survives && i < min(n + 8, num); i += 2)
        survives = !suppresses(kept[i], mine, rule);
    }
  }
  if (is_undecided && !survives) atomicOr(&suppressed[j / 32], 1u << (j % 32));
}

// Exclusive prefix sum of popcounts of `num` words, starting at `sum`, into before (num + 1). The
// last element, which is also returned, is the total. word_at(w) returns word w. One block.
template <typename WordAt>
__device__ __forceinline__ int popcount_prefix_sum(int* before, int num, int sum,
                                                   const WordAt& word_at) {
  constexpr int kWarps = kNmsThreads / 32;
  __shared__ int warp_sums[kWarps];
  const int t = threadIdx.x, warp = t / 32;
  for (int first = 0; first < num; first += kNmsThreads) {
    const int w = first + t, own = w < num ? __popcll(word_at(w)) : 0;
    const int up_to = warp_prefix_sum(own);
    if (lane_id() == 31) warp_sums[warp] = up_to;
    __syncthreads();
    int mine = sum + up_to - own;
    for (int other = 0; other < kWarps; ++other) {
      if (other < warp) mine += warp_sums[other];
      sum += warp_sums[other];
    }
    if (w < num) before[w] = mine;
    __syncthreads();  // all threads have read warp_sums
  }
  if (threadIdx.x == 0) before[num] = sum;
  return sum;
}

// True in the last of `blocks` blocks that call it (threadfence reduction). That block sees all
// writes of the other blocks. `*through`, the block counter, is 0 before and after.
__device__ __forceinline__ bool is_last_block(int* block_counter, int blocks) {
  __shared__ bool is_last;
  __syncthreads();
  if (threadIdx.x == 0) {  // the barriers extend these fences to the whole block
    __threadfence();
    is_last = atomicAdd(block_counter, 1) == blocks - 1;
    if (is_last) *block_counter = 0;
    __threadfence();
  }
  __syncthreads();
  return is_last;
}

// Resolves the chunk that begins at `first`. One block.
__device__ __forceinline__ void nms_resolve_chunk(uint64* kept, int* kept_before, int* list,
                                                  int* list_count, const uint32* suppressed,
                                                  const uint32* mask, const unsigned char* words,
                                                  int count, int num, int first, int chunk) {
  constexpr int kWords = kNmsChunk / 32, kWarps = kNmsThreads / 32, kMine = kWords / kWarps;
  __shared__ uint32 undecided[kWords], kept_words[kWords];
  __shared__ int num_kept;
  const int t = threadIdx.x, lane = lane_id(), warp = t / 32;
  count = min(count - first, chunk);
  if (t == 0) num_kept = 0;
  // Other blocks have written these words in this launch. __ldcg bypasses the stale L1 cache.
  for (int w = t; w < kWords; w += kNmsThreads) {
    const int here = 32 * w < count ? min(32, count - 32 * w) : 0;
    undecided[w] = here ? ~__ldcg(suppressed + first / 32 + w) & ~0u >> (32 - here) : 0;
    kept_words[w] = 0;
  }
  // A box checks one word of suppressors at a time. While a suppressor in that word is undecided,
  // suppressors with lower scores are irrelevant.
  uint64 words_left[kMine];  // words still to check
  uint32 pending[kMine];     // undecided suppressors in word `at`
  int at[kMine];
#pragma unroll
  for (int i = 0; i < kMine; ++i) {
    const int j = 32 * (warp + kWarps * i) + lane;
    words_left[i] = j < count ? __ldcg(reinterpret_cast<const uint64*>(words) + j) : 0;
    pending[i] = at[i] = 0;
  }
  bool has_undecided = true;
  while (__syncthreads_or(has_undecided)) {
    uint32 is_undecided = 0, suppressed_bits = 0;  // one bit per box of the thread
#pragma unroll
    for (int i = 0; i < kMine; ++i) is_undecided |= (undecided[warp + kWarps * i] >> lane & 1) << i;
    for (bool more = true; more;) {
      more = false;
#pragma unroll
      for (int i = 0; i < kMine; ++i) {
        if (!((is_undecided & ~suppressed_bits) >> i & 1)) continue;
        if (pending[i] & kept_words[at[i]]) {
          suppressed_bits |= 1u << i;
          continue;
        }
        pending[i] &= undecided[at[i]];
        if (pending[i] || !words_left[i]) continue;
        at[i] = __ffsll(words_left[i]) - 1;
        words_left[i] &= words_left[i] - 1;
        const int j = 32 * (warp + kWarps * i) + lane;
        pending[i] = __ldcg(mask + (at[i] * chunk + j));
        more = true;
      }
    }
    __syncthreads();  // all threads have read the shared words
    has_undecided = false;
#pragma unroll
    for (int i = 0; i < kMine; ++i) {
      const int word = warp + kWarps * i;
      const bool is_kept = (is_undecided & ~suppressed_bits) >> i & 1 && !pending[i];
      const uint32 now_kept = __ballot_sync(kWarp, is_kept);
      const uint32 now_suppressed = __ballot_sync(kWarp, suppressed_bits >> i & 1);
      const uint32 still_undecided = undecided[word] & ~(now_kept | now_suppressed);
      __syncwarp();
      if (lane == 0) {
        undecided[word] = still_undecided;
        kept_words[word] |= now_kept;
      }
      has_undecided = has_undecided || still_undecided;
    }
  }
  for (int word = warp; word < kWords; word += kWarps) {
    const bool is_kept = kept_words[word] >> lane & 1;
    const int at = warp_append(&num_kept, is_kept);
    if (is_kept) list[at] = first + 32 * word + lane;
  }
  const int begin = first / 64, end = (int)ceil_div(num, 64), here = min(chunk / 64, end - begin);
  const int before = first ? kept_before[begin] : 0;
  for (int w = t; w < here; w += kNmsThreads) {
    kept[begin + w] |= (uint64)kept_words[2 * w + 1] << 32 | kept_words[2 * w];
  }
  __syncthreads();
  if (t == 0) *list_count = num_kept;
  const int all = popcount_prefix_sum(kept_before + begin, here, before,
                                      [&](int w) { return kept[begin + w]; });
  if (t == 0) kept_before[end] = all;
}

// Resolves `size` boxes, at most kNmsThreads: the complete groups at order[begin], .... One block,
// one thread per box. Bit k of suppressors[w] is set if box 32 w + k suppresses the thread's box.
__device__ __forceinline__ void nms_resolve_classes(uint32* suppressed, uint64* kept,
                                                    const NmsRow& row, int begin, int size,
                                                    const NmsRule& rule) {
  constexpr int kWords = kNmsThreads / 32;
  __shared__ Candidate boxes[kNmsThreads];
  __shared__ int indices[kNmsThreads];
  __shared__ uint32 undecided[kWords], kept_words[kWords];
  const int t = threadIdx.x, warp = t / 32;
  bool is_undecided = t < size, is_kept = false;
  const int index = is_undecided ? spatial_index(row.order[begin + t]) : 0x7fffffff;
  Candidate mine = {};
  if (is_undecided) mine = row.candidate(index, rule);
  boxes[t] = mine;
  indices[t] = index;
  const uint32 here = __ballot_sync(kWarp, is_undecided);
  if (lane_id() == 0) undecided[warp] = here, kept_words[warp] = 0;
  __syncthreads();
  uint32 suppressors[kWords] = {};
#pragma unroll 1
  for (int w = 0; 32 * w < size; ++w) {
    uint32 bits = 0;
    for (int k = 32 * w; is_undecided && k < min(32 * w + 32, size); k += 4) {
      if (!any_may_suppress<1>(boxes + k, mine)) continue;
#pragma unroll 1
      for (int i = k; i < k + 4; ++i) {
        if (indices[i] < index && suppresses(boxes[i], mine, rule)) bits |= 1u << (i % 32);
      }
    }
#pragma unroll
    for (int v = 0; v < kWords; ++v) {  // constant indices keep the array in registers
      if (v == w) suppressors[v] = bits;
    }
  }
  while (__syncthreads_or(is_undecided)) {
    uint32 by_kept = 0, by_undecided = 0;
#pragma unroll
    for (int w = 0; w < kWords; ++w) {
      by_kept |= suppressors[w] & kept_words[w];
      by_undecided |= suppressors[w] & undecided[w];
    }
    __syncthreads();  // all threads have read the shared words
    const bool now_kept = is_undecided && !by_kept && !by_undecided;
    is_kept |= now_kept;
    is_undecided = is_undecided && !by_kept && by_undecided;
    const uint32 kept_here = __ballot_sync(kWarp, now_kept);
    const uint32 undecided_here = __ballot_sync(kWarp, is_undecided);
    if (lane_id() == 0) kept_words[warp] |= kept_here, undecided[warp] = undecided_here;
  }
  if (t < size) atomicOr(&suppressed[index / 32], 1u << (index % 32));
  if (is_kept) atomicOr(&kept[index / 64], 1ull << (index % 64));
}

}  // namespace cvops

// Spatial keys, by which the boxes are sorted: keys (B, N); only the first counts[b] are valid. A
// key holds the class (if `by_class`), the Morton code of the center, and the index. The grid of
// cells uses the bits of floats: its resolution doubles where coordinates halve. boxes (B, N, 4),
// classes (B, N). Grid (B, tiles of 256).
extern "C" __global__ void __launch_bounds__(256)
    nms_spatial_keys(unsigned long long* __restrict__ keys, const float* __restrict__ boxes,
                     const int* __restrict__ classes, const int* __restrict__ counts, int num,
                     int by_class) {
  using namespace cvops;
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
