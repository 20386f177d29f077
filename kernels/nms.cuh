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
constexpr int kPlaceBits = 24, kGroupBits = 12;

// Buffers of one chunk. See nms_chunk.
struct NmsChunk {
  int *list, *list_counts;  // (B, chunk), (B): kept boxes of the chunk
  uint32* mask;             // (B, chunk / 32, chunk): one bit per suppressor of each box
  unsigned char* words;     // (B, chunk, 8): one bit per nonzero word of the mask
};

// Number of blocks per batch row that compute the overlap mask of a chunk. Each block takes 256
// boxes and 64 later boxes.
CVOPS_HD int nms_pair_blocks(int chunk) {
  int groups = (chunk + 255) / 256;
  return 2 * groups * (groups + 1);
}

}  // namespace cvops

CVOPS_KERNEL nms_places(cvops::uint64* keys, const float* boxes, const int* classes,
                        const int* counts, int num, int by_class);
CVOPS_KERNEL nms_classes(cvops::NmsBuffers nms, const cvops::uint64* order, int num,
                         cvops::NmsRule rule);
CVOPS_KERNEL nms_chunk(cvops::NmsBuffers nms, cvops::NmsChunk buffers, const cvops::uint64* order,
                       int num, int first, int chunk, int parts, cvops::NmsRule rule);

#ifdef __CUDACC__
namespace cvops {

// A box during suppression. If the overlap of two boxes is below the sum of their `share`, neither
// suppresses the other.
struct alignas(16) Contestant {
  Box box;
  float area, share;
  int of_class;
};

// True if boxes that do not touch cannot suppress each other.
__device__ __forceinline__ bool nms_needs_overlap(const NmsRule& rule) {
  return rule.threshold > 1e-30f;
}

// Half of a lower bound of the overlap: iou > t implies overlap > t / (1 + t) * (sum of areas). The
// factor 0.9999 covers the rounding errors; 1e-36 covers those of numbers near 0. The result is NaN
// if boxes that do not touch can suppress each other. Every comparison then passes.
__device__ __forceinline__ float nms_share(float area, const NmsRule& rule) {
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

  __device__ __forceinline__ Contestant contestant(int i, const NmsRule& rule) const {
    const float area = areas[i];
    return {load_box(boxes, i), area, nms_share(area, rule), rule.by_class ? classes[i] : 0};
  }
};

// False if suppresses() is certainly false. A NaN can only enlarge the overlap here: fminf and
// fmaxf return the number.
__device__ __forceinline__ bool may_suppress(const Contestant& kept, const Contestant& other) {
  const float width = fminf(kept.box.x2, other.box.x2) - fmaxf(kept.box.x1, other.box.x1);
  const float height = fminf(kept.box.y2, other.box.y2) - fmaxf(kept.box.y1, other.box.y1);
  return !(width * fmaxf(height, 0.0f) < kept.share + other.share);
}

// may_suppress() of any of four kept boxes at distance kStep, with one branch.
template <int kStep>
__device__ __forceinline__ bool any_may_suppress(const Contestant* kept, const Contestant& other) {
  bool any = false;
#pragma unroll
  for (int k = 0; k < 4; ++k) any |= may_suppress(kept[kStep * k], other);
  return any;
}

__device__ __forceinline__ bool suppresses(const Contestant& kept, const Contestant& other,
                                           const NmsRule& rule) {
  return kept.of_class == other.of_class &&
         suppresses(SizedBox{kept.box, kept.area}, SizedBox{other.box, other.area}, rule);
}

// Racy read on purpose: other blocks may set bits. A missed bit costs comparisons only.
__device__ __forceinline__ bool nms_is_removed(const uint32* removed, int i) {
  return __ldcv(removed + i / 32) >> (i % 32) & 1;
}

// Inserts a 0 after each of the 20 lowest bits of x.
__device__ __forceinline__ uint64 spaced(uint32 x) {
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

__device__ __forceinline__ int place_of(uint64 order) {
  return (int)(order & ((1u << kPlaceBits) - 1));
}

// Equal for all boxes of a class. Several classes can have the same value.
__device__ __forceinline__ uint32 group_of(uint64 order) {
  return (uint32)(order >> (64 - kGroupBits));
}

// Bounding box and class range of the boxes of a block. It can be larger than necessary.
struct Hull {
  Box box;
  int lowest, highest;  // range of classes
};

__device__ __forceinline__ float nms_far() { return __uint_as_float(0x7f800000); }  // infinity

__device__ __forceinline__ Hull empty_hull() {
  const float far = nms_far();
  return {{far, far, -far, -far}, 0x7fffffff, -0x7fffffff - 1};
}

// Bounds extended by one box. A box with NaN extends them to infinity. So does every box if boxes
// that do not touch can suppress each other.
__device__ __forceinline__ Hull hull_with(const Hull& hull, const Contestant& c,
                                          const NmsRule& rule) {
  const Box b = c.box;
  const bool ordered = b.x1 == b.x1 && b.y1 == b.y1 && b.x2 == b.x2 && b.y2 == b.y2;
  const bool near = ordered && nms_needs_overlap(rule);
  const float far = nms_far();
  return {{near ? fminf(hull.box.x1, b.x1) : -far, near ? fminf(hull.box.y1, b.y1) : -far,
           near ? fmaxf(hull.box.x2, b.x2) : far, near ? fmaxf(hull.box.y2, b.y2) : far},
          min(hull.lowest, c.of_class),
          max(hull.highest, c.of_class)};
}

// False if `kept` certainly suppresses no box within the bounds. Comparisons with NaN pass.
__device__ __forceinline__ bool may_reach(const Contestant& kept, const Hull& hull) {
  const Box b = kept.box;
  return !(b.x1 > hull.box.x2 || b.x2 < hull.box.x1 || b.y1 > hull.box.y2 || b.y2 < hull.box.y1) &&
         kept.of_class >= hull.lowest && kept.of_class <= hull.highest;
}

// Union of the bounds of the first kNmsTile threads, returned to all threads. `shared` has one
// element per warp.
__device__ __forceinline__ Hull hull_of_tile(Hull hull, Hull* shared) {
  for (int d = 16; d > 0; d /= 2) {
    hull.box.x1 = fminf(hull.box.x1, __shfl_xor_sync(kWarp, hull.box.x1, d));
    hull.box.y1 = fminf(hull.box.y1, __shfl_xor_sync(kWarp, hull.box.y1, d));
    hull.box.x2 = fmaxf(hull.box.x2, __shfl_xor_sync(kWarp, hull.box.x2, d));
    hull.box.y2 = fmaxf(hull.box.y2, __shfl_xor_sync(kWarp, hull.box.y2, d));
    hull.lowest = min(hull.lowest, __shfl_xor_sync(kWarp, hull.lowest, d));
    hull.highest = max(hull.highest, __shfl_xor_sync(kWarp, hull.highest, d));
  }
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = hull;
  __syncthreads();
  for (int w = 0; w < kNmsTile / 32; ++w) {
    const Hull& other = shared[w];
    hull.box = {fminf(hull.box.x1, other.box.x1), fminf(hull.box.y1, other.box.y1),
                fmaxf(hull.box.x2, other.box.x2), fmaxf(hull.box.y2, other.box.y2)};
    hull.lowest = min(hull.lowest, other.lowest);
    hull.highest = max(hull.highest, other.highest);
  }
  return hull;
}

// Overlap mask of the chunk that begins at `first`. mask (chunk / 32, chunk): bit k of mask[w, j]
// is set if box 32 w + k precedes box j and suppresses it. Only nonzero words are written. words
// (chunk, 8): bit w % 8 of words[j, w / 8] is set if mask[w, j] is nonzero. Bits of a suppressed
// box j can be missing. `index` is the number of the block, below nms_pair_blocks().
__device__ __forceinline__ void nms_find_pairs(uint32* mask, unsigned char* words,
                                               const NmsRow& row, const uint32* removed, int first,
                                               int chunk, int index, const NmsRule& rule) {
  __shared__ Contestant before[256];
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
  const int most = min(32, j - 32 * word);  // boxes of the word that precede box j
  Contestant box = {};
  bool takes_part = j < count && most > 0;
  if (takes_part) {  // all loads start together
    box = row.contestant(first + j, rule);
    takes_part = !nms_is_removed(removed, first + j);
  }
  if (t < 256 && first_before + t < count) {
    before[t] = row.contestant(first + first_before + t, rule);
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
      same &= ~0u >> (32 - most);
      for (; same; same &= same - 1) {
        const int k = __ffs(same) - 1;
        const Contestant& other = before[own + k];
        if (may_suppress(other, box) && suppresses(other, box, rule)) bits |= 1u << k;
      }
    } else {
      for (int k = 0; k < most; k += 4) {
        if (!any_may_suppress<1>(before + own + k, box)) continue;
#pragma unroll 1
        for (int i = k; i < min(k + 4, most); ++i) {
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

// Compares split `part` of `parts` of `list` (num_kept boxes) with the tile of boxes at `begin`. It
// sets the bits in `removed` of the suppressed boxes. Boxes before `first` are skipped.
__device__ __forceinline__ void nms_suppress(uint32* removed, const NmsRow& row, const int* list,
                                             int num_kept, int first, int begin, int part,
                                             int parts, const NmsRule& rule) {
  __shared__ Contestant kept[kNmsThreads + 8];  // a group of four may extend beyond the last box
  __shared__ Hull hulls[kNmsThreads / 32];
  __shared__ int num_near;
  // Two threads per box; each takes every second kept box.
  const int t = threadIdx.x, half = t / kNmsTile;
  const int i = begin + t % kNmsTile;
  const int j = i < row.count ? row.order ? place_of(row.order[i]) : i : 0;
  const bool is_open = i < row.count && j >= first && !nms_is_removed(removed, j);
  Contestant mine = {};
  Hull hull = empty_hull();
  if (is_open) {
    mine = row.contestant(j, rule);
    hull = hull_with(hull, mine, rule);
  }
  hull = hull_of_tile(hull, hulls);
  bool lives = is_open;
  const int each = (int)ceil_div(num_kept, parts), end = min(num_kept, (part + 1) * each);
  for (int k = part * each; k < end; k += kNmsThreads) {
    if (!__syncthreads_or(lives)) break;
    if (t == 0) num_near = 0;
    __syncthreads();
    Contestant box = {};
    bool is_near = k + t < end;
    if (is_near) {
      box = row.contestant(list[k + t], rule);
      is_near = may_reach(box, hull);
    }
    const int at = warp_append(&num_near, is_near);
    if (is_near) kept[at] = box;
    __syncthreads();
    const int num = num_near;
    for (int n = half; lives && n < num; n += 8) {
      if (!any_may_suppress<2>(kept + n, mine)) continue;
#pragma unroll 1
      for (int i = n; lives && i < min(n + 8, num); i += 2)
        lives = !suppresses(kept[i], mine, rule);
    }
  }
  if (is_open && !lives) atomicOr(&removed[j / 32], 1u << (j % 32));
}

// Exclusive prefix sum of popcounts of `num` words, starting at `sum`, into before (num + 1). The
// last element, which is also returned, is the total. word_at(w) returns word w. One block.
template <typename WordAt>
__device__ __forceinline__ int nms_count(int* before, int num, int sum, const WordAt& word_at) {
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
__device__ __forceinline__ bool nms_ends_last(int* through, int blocks) {
  __shared__ bool is_last;
  __syncthreads();
  if (threadIdx.x == 0) {  // the barriers extend these fences to the whole block
    __threadfence();
    is_last = atomicAdd(through, 1) == blocks - 1;
    if (is_last) *through = 0;
    __threadfence();
  }
  __syncthreads();
  return is_last;
}

// Resolves the chunk that begins at `first`. One block.
__device__ __forceinline__ void nms_settle(uint64* kept, int* kept_before, int* list,
                                           int* list_count, const uint32* removed,
                                           const uint32* mask, const unsigned char* words,
                                           int count, int num, int first, int chunk) {
  constexpr int kWords = kNmsChunk / 32, kWarps = kNmsThreads / 32, kMine = kWords / kWarps;
  __shared__ uint32 open[kWords], taken[kWords];
  __shared__ int num_taken;
  const int t = threadIdx.x, lane = lane_id(), warp = t / 32;
  count = min(count - first, chunk);
  if (t == 0) num_taken = 0;
  // Other blocks have written these words in this launch. __ldcg bypasses the stale L1 cache.
  for (int w = t; w < kWords; w += kNmsThreads) {
    const int here = 32 * w < count ? min(32, count - 32 * w) : 0;
    open[w] = here ? ~__ldcg(removed + first / 32 + w) & ~0u >> (32 - here) : 0;
    taken[w] = 0;
  }
  // A box checks one word of suppressors at a time. While a suppressor in that word is undecided,
  // suppressors with lower scores are irrelevant.
  uint64 rest[kMine];       // words still to check
  uint32 waits_for[kMine];  // undecided suppressors in word `at`
  int at[kMine];
#pragma unroll
  for (int i = 0; i < kMine; ++i) {
    const int j = 32 * (warp + kWarps * i) + lane;
    rest[i] = j < count ? __ldcg(reinterpret_cast<const uint64*>(words) + j) : 0;
    waits_for[i] = at[i] = 0;
  }
  bool waits = true;
  while (__syncthreads_or(waits)) {
    uint32 is_open = 0, is_gone = 0;  // one bit per box of the thread
#pragma unroll
    for (int i = 0; i < kMine; ++i) is_open |= (open[warp + kWarps * i] >> lane & 1) << i;
    for (bool more = true; more;) {
      more = false;
#pragma unroll
      for (int i = 0; i < kMine; ++i) {
        if (!((is_open & ~is_gone) >> i & 1)) continue;
        if (waits_for[i] & taken[at[i]]) {
          is_gone |= 1u << i;
          continue;
        }
        waits_for[i] &= open[at[i]];
        if (waits_for[i] || !rest[i]) continue;
        at[i] = __ffsll(rest[i]) - 1;
        rest[i] &= rest[i] - 1;
        const int j = 32 * (warp + kWarps * i) + lane;
        waits_for[i] = __ldcg(mask + (at[i] * chunk + j));
        more = true;
      }
    }
    __syncthreads();  // all threads have read the shared words
    waits = false;
#pragma unroll
    for (int i = 0; i < kMine; ++i) {
      const int word = warp + kWarps * i;
      const bool is_kept = (is_open & ~is_gone) >> i & 1 && !waits_for[i];
      const uint32 now_kept = __ballot_sync(kWarp, is_kept);
      const uint32 now_gone = __ballot_sync(kWarp, is_gone >> i & 1);
      const uint32 still = open[word] & ~(now_kept | now_gone);
      __syncwarp();
      if (lane == 0) {
        open[word] = still;
        taken[word] |= now_kept;
      }
      waits = waits || still;
    }
  }
  for (int word = warp; word < kWords; word += kWarps) {
    const bool is_taken = taken[word] >> lane & 1;
    const int at = warp_append(&num_taken, is_taken);
    if (is_taken) list[at] = first + 32 * word + lane;
  }
  const int begin = first / 64, end = (int)ceil_div(num, 64), here = min(chunk / 64, end - begin);
  const int before = first ? kept_before[begin] : 0;
  for (int w = t; w < here; w += kNmsThreads) {
    kept[begin + w] |= (uint64)taken[2 * w + 1] << 32 | taken[2 * w];
  }
  __syncthreads();
  if (t == 0) *list_count = num_taken;
  const int all =
      nms_count(kept_before + begin, here, before, [&](int w) { return kept[begin + w]; });
  if (t == 0) kept_before[end] = all;
}

// Resolves `size` boxes, at most kNmsThreads: the complete groups at order[begin], .... One block,
// one thread per box. Bit k of suppressors[w] is set if box 32 w + k suppresses the thread's box.
__device__ __forceinline__ void nms_decide(uint32* removed, uint64* kept, const NmsRow& row,
                                           int begin, int size, const NmsRule& rule) {
  constexpr int kWords = kNmsThreads / 32;
  __shared__ Contestant boxes[kNmsThreads];
  __shared__ int places[kNmsThreads];
  __shared__ uint32 open[kWords], taken[kWords];
  const int t = threadIdx.x, warp = t / 32;
  bool is_open = t < size, is_kept = false;
  const int place = is_open ? place_of(row.order[begin + t]) : 0x7fffffff;
  Contestant mine = {};
  if (is_open) mine = row.contestant(place, rule);
  boxes[t] = mine;
  places[t] = place;
  const uint32 here = __ballot_sync(kWarp, is_open);
  if (lane_id() == 0) open[warp] = here, taken[warp] = 0;
  __syncthreads();
  uint32 suppressors[kWords] = {};
#pragma unroll 1
  for (int w = 0; 32 * w < size; ++w) {
    uint32 bits = 0;
    for (int k = 32 * w; is_open && k < min(32 * w + 32, size); k += 4) {
      if (!any_may_suppress<1>(boxes + k, mine)) continue;
#pragma unroll 1
      for (int i = k; i < k + 4; ++i) {
        if (places[i] < place && suppresses(boxes[i], mine, rule)) bits |= 1u << (i % 32);
      }
    }
#pragma unroll
    for (int v = 0; v < kWords; ++v) {  // constant indices keep the array in registers
      if (v == w) suppressors[v] = bits;
    }
  }
  while (__syncthreads_or(is_open)) {
    uint32 by_taken = 0, by_open = 0;
#pragma unroll
    for (int w = 0; w < kWords; ++w) {
      by_taken |= suppressors[w] & taken[w];
      by_open |= suppressors[w] & open[w];
    }
    __syncthreads();  // all threads have read the shared words
    const bool now_kept = is_open && !by_taken && !by_open;
    is_kept |= now_kept;
    is_open = is_open && !by_taken && by_open;
    const uint32 kept_here = __ballot_sync(kWarp, now_kept);
    const uint32 open_here = __ballot_sync(kWarp, is_open);
    if (lane_id() == 0) taken[warp] |= kept_here, open[warp] = open_here;
  }
  if (t < size) atomicOr(&removed[place / 32], 1u << (place % 32));
  if (is_kept) atomicOr(&kept[place / 64], 1ull << (place % 64));
}

}  // namespace cvops

// Spatial keys, by which the boxes are sorted: keys (B, N); only the first counts[b] are valid. A
// key holds the class (if `by_class`), the Morton code of the center, and the index. The grid of
// cells uses the bits of floats: its resolution doubles where coordinates halve. boxes (B, N, 4),
// classes (B, N). Grid (B, tiles of 256).
extern "C" __global__ void __launch_bounds__(256)
    nms_places(unsigned long long* __restrict__ keys, const float* __restrict__ boxes,
               const int* __restrict__ classes, const int* __restrict__ counts, int num,
               int by_class) {
  using namespace cvops;
  const int i = blockIdx.y * blockDim.x + threadIdx.x, batch = blockIdx.x;
  if (i >= counts[batch]) return;
  const int64 at = (int64)batch * num + i;
  const Box b = load_box(boxes, at);
  const uint32 x = ascending_bits(b.x1 + b.x2) >> 12, y = ascending_bits(b.y1 + b.y2) >> 12;
  uint64 cell = spaced(x) << 1 | spaced(y);  // 40 bits
  if (by_class) cell = (uint64)(classes[at] & 0xfff) << 28 | cell >> 12;
  keys[at] = cell << kPlaceBits | i;
}

// Resolves the classes with at most kNmsThreads boxes. Classes with equal key bits count as one
// class. For rules with `by_class` only. boxes (B, N, 4), areas and classes (B, N) in score order;
// order (B, N): sorted keys of nms_places; counts (B).
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
  uint32* const removed = nms.removed + batch * ceil_div(num, 32);
  uint64* const kept = nms.kept + batch * ceil_div(num, 64);
  int* const kept_before = nms.kept_before + batch * (ceil_div(num, 64) + 1);
  int* const progress = nms.progress + 2 * batch;
  const int end = min(begin + kNmsTile, row.count), i = begin + t;
  int decided = 0;
  if (begin < end) {
    const bool in_tile = i < end;
    const uint32 own = in_tile ? group_of(row.order[i]) : 0;
    // Number of leading boxes that continue the previous group, and start of the last group.
    const bool continues = begin > 0 && in_tile && own == group_of(row.order[begin - 1]);
    const int first = begin + __syncthreads_count(continues);
    const uint32 last_group = group_of(row.order[end - 1]);
    const int last = end - __syncthreads_count(in_tile && own == last_group);
    const int next = last + 1 + t;
    const bool belongs = next < row.count && group_of(row.order[next]) == last_group;
    const int size = 1 + __syncthreads_count(belongs);  // size of the last group if it begins in
                                                        // this tile
#pragma unroll 1
    for (int run = first; run < end;) {
      const int num_boxes = run < last ? last - run : size;
      if (num_boxes <= kNmsThreads) {
        nms_decide(removed, kept, row, run, num_boxes, rule);
        decided += num_boxes;
      }
      run = run < last ? last : end;
    }
  }
  if (t == 0 && decided) atomicAdd(&progress[1], -decided);
  if (!nms_ends_last(&progress[0], tiles) || __ldcg(&progress[1])) return;
  nms_count(kept_before, (int)ceil_div(num, 64), 0, [&](int w) { return __ldcg(kept + w); });
}

// One chunk, which begins at `first`. boxes (B, N, 4), areas and classes (B, N) in score order;
// order (B, N): sorted keys of nms_places, or null; counts (B).
//
// removed (B, ceil(N / 32)): one bit per box that is suppressed or resolved by nms_classes. All
// bits are 0 before the first launch. A chunk sets no bits of its own boxes. kept (B, ceil(N /
// 64)): one bit per kept box, 0 before the first launch. kept_before (B, ceil(N / 64) + 1): number
// of kept boxes before each word that has boxes, and the total as the last element. progress (B,
// 2): finished blocks, 0 before and after; boxes left for the chunks. If none are left, the kernel
// returns. list (B, chunk), list_counts (B): kept boxes of the chunk. mask (B, chunk / 32, chunk),
// words (B, chunk, 8): see nms_find_pairs.
//
// Grid (B, blocks), kNmsThreads threads. nms_pair_blocks(chunk) blocks compute the overlap mask. In
// all chunks but the first, each tile of kNmsTile boxes has `parts` more blocks. The tiles cover
// all boxes, or without `order` the boxes from `first` on. With fewer blocks, each takes several
// tiles.
extern "C" __global__ void __launch_bounds__(512, 2)
    nms_chunk(const cvops::NmsBuffers nms, const cvops::NmsChunk buffers,
              const unsigned long long* __restrict__ order, int num, int first, int chunk,
              int parts, const cvops::NmsRule rule) {
  using namespace cvops;
  const int batch = blockIdx.x;
  const int64 at = (int64)batch * num;
  const NmsRow row = {nms.boxes + 4 * at, nms.areas + at, nms.classes + at,
                      order ? order + at : nullptr, nms.counts[batch]};
  int* const progress = nms.progress + 2 * batch;
  if (row.count > 0 ? first >= row.count || progress[1] == 0 : first > 0) return;
  uint32* const removed = nms.removed + batch * ceil_div(num, 32);
  uint64* const kept = nms.kept + batch * ceil_div(num, 64);
  int* const kept_before = nms.kept_before + batch * (ceil_div(num, 64) + 1);
  int *const list = buffers.list + (int64)batch * chunk, *const list_count =
                                                             buffers.list_counts + batch;
  uint32* const mask = buffers.mask + (int64)batch * (chunk / 32) * chunk;
  unsigned char* const words = buffers.words + (int64)batch * chunk * 8;
  const int index = blockIdx.y, pairs = nms_pair_blocks(chunk);
  if (index < pairs) {
    nms_find_pairs(mask, words, row, removed, first, chunk, index, rule);
  } else {
    const int begin = row.order ? 0 : first, tiles = (gridDim.y - pairs) / parts;
    for (int tile = (index - pairs) / parts; tile * kNmsTile < row.count - begin; tile += tiles) {
      nms_suppress(removed, row, list, *list_count, first, begin + tile * kNmsTile,
                   (index - pairs) % parts, parts, rule);
      __syncthreads();
    }
  }
  if (!nms_ends_last(&progress[0], gridDim.y)) return;
  nms_settle(kept, kept_before, list, list_count, removed, mask, words, row.count, num, first,
             chunk);
}
#endif
