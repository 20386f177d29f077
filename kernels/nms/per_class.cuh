// The resolution of small classes, by one block each.
#pragma once
#include "nms/candidate.cuh"

#ifdef __CUDACC__
namespace cvops {

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
  const float pixel = nms_pixel(rule);
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
      if (!any_may_suppress<1>(boxes + k, mine, pixel)) continue;
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
#endif
