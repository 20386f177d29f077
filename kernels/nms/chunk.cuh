// The three steps of a chunk: its overlap mask, the comparison of kept boxes with later tiles, and
// the resolution of the chunk by one block.
#pragma once
#include "nms/candidate.cuh"
#include "nms/last_block.cuh"

#ifdef __CUDACC__
namespace cvops {

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
  const float pixel = nms_pixel(rule);
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
    const uint32 bits = suppressors(before + own, classes + own / 4, num_before, box, rule, pixel);
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
  const float pixel = nms_pixel(rule);
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
      is_near = may_reach(box, bounds, pixel);
    }
    const int at = warp_append(&num_near, is_near);
    if (is_near) kept[at] = box;
    __syncthreads();
    const int num = num_near;
    for (int n = half; survives && n < num; n += 8) {
      if (!any_may_suppress<2>(kept + n, mine, pixel)) continue;
#pragma unroll 1
      for (int i = n; survives && i < min(n + 8, num); i += 2)
        survives = !suppresses(kept[i], mine, rule);
    }
  }
  if (is_undecided && !survives) atomicOr(&suppressed[j / 32], 1u << (j % 32));
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

}  // namespace cvops
#endif
