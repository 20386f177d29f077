// The suppression among few boxes by one block, in its shared memory.
#pragma once
#include "nms/best_keys.cuh"
#include "nms/candidate.cuh"

namespace cvops {

// Maximum number of boxes. A block compares their pairs in the time of about two launches.
constexpr int kNmsBlock = CVOPS_STEP(416, 40);

// Threads for `num` boxes: four for each box, at most a full block.
CVOPS_HD int nms_block_threads(int num) {
  const int threads = 128 * ((num + 31) / 32);
  return threads < 1024 ? threads : 1024;
}

}  // namespace cvops

#ifdef __CUDACC__
namespace cvops {

struct NmsBlock {
  static constexpr int kWords = (kNmsBlock + 31) / 32;
  Candidate boxes[kNmsBlock + 4];  // in score order; a group of four may extend beyond the last
  int4 classes[8 * kWords];        // those of the boxes
  uint32 mask[kWords][kNmsBlock];  // bit k of mask[w][j]: box 32 w + k suppresses box j
  uint32 undecided[kWords], kept[kWords];

  // Sets box i in score order.
  __device__ __forceinline__ void set(int i, const SizedBox& box, int of_class,
                                      const NmsRule& rule) {
    boxes[i] = nms_candidate(box, of_class, rule);
    reinterpret_cast<int*>(classes)[i] = boxes[i].of_class;
  }

  // Finds which of `count` boxes are kept. All threads call it after a barrier.
  __device__ __forceinline__ void suppress(int count, const NmsRule& rule) {
    const int t = threadIdx.x, lane = lane_id(), warp = t / 32;
    const int words = (int)ceil_div(count, 32), warps = blockDim.x / 32;
    const float pixel = nms_pixel(rule);
    // A warp takes a pair of words: 32 boxes, and 32 boxes before them.
    for (int pair = warp; pair < words * (words + 1) / 2; pair += warps) {
      int word = pair, of = 0;  // word <= of
      while (word > of) word -= ++of;
      const int j = 32 * of + lane, num_before = min(32, j - 32 * word);
      if (j >= count) continue;
      mask[word][j] = num_before > 0 ? suppressors(boxes + 32 * word, classes + 8 * word,
                                                   num_before, boxes[j], rule, pixel)
                                     : 0;
    }
    // Rounds: a box is kept if all its suppressors are suppressed, and suppressed if one of them is
    // kept.
    bool is_undecided = t < count;
    const uint32 here = __ballot_sync(kWarp, is_undecided);
    if (warp < kWords && lane == 0) undecided[warp] = here, kept[warp] = 0;
    while (__syncthreads_or(is_undecided)) {
      uint32 by_kept = 0, by_undecided = 0;
      for (int w = 0; is_undecided && w <= warp; ++w) {
        by_kept |= mask[w][t] & kept[w];
        by_undecided |= mask[w][t] & undecided[w];
      }
      __syncthreads();  // all threads have read the words
      const bool now_kept = is_undecided && !by_kept && !by_undecided;
      is_undecided = is_undecided && !by_kept && by_undecided;
      const uint32 kept_here = __ballot_sync(kWarp, now_kept);
      const uint32 undecided_here = __ballot_sync(kWarp, is_undecided);
      if (warp < words && lane == 0) kept[warp] |= kept_here, undecided[warp] = undecided_here;
    }
  }

  // True if box i of `count` is kept.
  __device__ __forceinline__ bool is_kept(int i, int count) const {
    return i < count && kept[i / 32] >> (i % 32) & 1;
  }

  // Bits of the kept boxes 64 w to 64 w + 63, one of which exists.
  __device__ __forceinline__ uint64 kept_word(int w) const {
    return kept[2 * w] | (2 * w + 1 < kWords ? (uint64)kept[2 * w + 1] << 32 : 0);
  }

  // Output row of box i: see output_row().
  __device__ __forceinline__ OutputRow output_row(int i, int count) const {
    if (i >= count) return {i, false};
    int before = 0, all_kept = 0;
    for (int w = 0; w < ceil_div(count, 32); ++w) {
      const int here = __popc(kept[w]);
      all_kept += here;
      if (w < i / 32) before += here;
    }
    const uint32 bits = kept[i / 32];
    before += __popc(bits & ((1u << (i % 32)) - 1));
    return cvops::output_row(i, bits >> (i % 32) & 1, before, all_kept);
  }
};

// Shared memory of a block that first finds the keys of its boxes.
union NmsBlockMemory {
  BestKeys<sort_tile_of(kNmsBlock)> keys;
  NmsBlock nms;
};

}  // namespace cvops
#endif
