// Suppression of boxes of which the buffers have bounds only: rotated boxes, and boxes of doubles.
// See nms.cuh for the chunks.
//
// The buffers have the bounds of the boxes in `boxes`, with the areas of the boxes themselves. An
// overlap of bounds is never smaller than that of the boxes, so the cheap tests of
// nms/candidate.cuh hold. A block lists the pairs that pass them in shared memory. Then its threads
// apply the rule to the listed pairs: all lanes of a warp do the same work, and the many registers
// of an IoU are not needed at the same time as those of the tests. `suppresses(Exact, Exact, rule)`
// is the rule.
//
//   launches per chunk: kept(previous) against undecided boxes -> overlap mask -> resolve
#pragma once
#include "nms/chunk.cuh"

#ifdef __CUDACC__
namespace cvops {

__device__ __forceinline__ NmsRow nms_row(const NmsBuffers& nms, const uint64* order, int batch,
                                          int num) {
  const int64 at = (int64)batch * num;
  return {nms.boxes + 4 * at, nms.areas + at, nms.classes + at, order ? order + at : nullptr,
          nms.counts[batch]};
}

// True if the cheap tests leave it open whether a box suppresses another one.
__device__ __forceinline__ bool nms_is_near(const Candidate& kept, const Candidate& other) {
  return kept.of_class == other.of_class && may_suppress(kept, other, 0);
}

// Compares the kept boxes of the previous chunk with the undecided boxes from `first` on, and sets
// the bits in nms.suppressed of the suppressed ones. Grid (B, tiles, chunk / kNmsTile), kNmsTile
// threads. A block compares kNmsTile kept boxes with as many others.
template <typename Exact>
__device__ __forceinline__ void nms_suppress_exactly(const NmsBuffers& nms,
                                                     const Exact* __restrict__ exact,
                                                     const NmsChunk& buffers,
                                                     const uint64* __restrict__ order, int num,
                                                     int first, int chunk, const NmsRule& rule) {
  constexpr int kStep = 8;  // kept boxes between two looks at the list of pairs
  __shared__ Candidate kept[kNmsTile], own[kNmsTile];
  __shared__ int kept_index[kNmsTile], own_index[kNmsTile];
  __shared__ unsigned short pairs[2 * kStep * kNmsTile];  // kept box, own box
  __shared__ uint32 suppressed_bits[kNmsTile / 32];
  __shared__ Bounds warp_bounds[kNmsTile / 32];
  __shared__ int num_near, num_pairs;
  const int batch = blockIdx.x, t = threadIdx.x, k = kNmsTile * blockIdx.z + t;
  const int begin = (order ? 0 : first) + blockIdx.y * kNmsTile;
  const int num_kept = buffers.list_counts[batch];
  uint32* const suppressed = nms.suppressed + batch * ceil_div(num, 32);
  exact += (int64)batch * num;
  bool survives;
  {
    const NmsRow row = nms_row(nms, order, batch, num);
    if (first >= row.count || begin >= row.count || k - t >= num_kept) return;
    const int i = begin + t, j = i < row.count ? order ? spatial_index(row.order[i]) : i : 0;
    survives = i < row.count && j >= first && !is_suppressed(suppressed, j);
    Bounds bounds = empty_bounds();
    own_index[t] = survives ? j : -1;
    if (survives) {
      own[t] = row.candidate(j, rule);
      bounds = extended(bounds, own[t], rule);
    }
    if (t < kNmsTile / 32) suppressed_bits[t] = 0;
    if (t == 0) num_near = num_pairs = 0;
    bounds = bounds_of_tile(bounds, warp_bounds);
    const int from = k < num_kept ? buffers.list[(int64)batch * chunk + k] : 0;
    const Candidate box = row.candidate(from, rule);
    const bool is_near = k < num_kept && may_reach(box, bounds, 0);
    const int at = warp_append(&num_near, is_near);
    if (is_near) kept[at] = box, kept_index[at] = from;
  }
  __syncthreads();
  for (int n = 0; n < num_near; n += kStep) {
    for (int m = n; m < min(n + kStep, num_near); ++m) {
      const bool is_pair = survives && nms_is_near(kept[m], own[t]);
      const int to = warp_append(&num_pairs, is_pair);
      if (is_pair) pairs[to] = (unsigned short)(m << 8 | t);
    }
    __syncthreads();
    const int listed = num_pairs;
    __syncthreads();  // all threads have read it
    if (listed <= kStep * kNmsTile && n + kStep < num_near) continue;
    for (int p = t; p < listed; p += kNmsTile) {
      const int later = pairs[p] & 255;
      if (suppresses(exact[kept_index[pairs[p] >> 8]], exact[own_index[later]], rule)) {
        atomicOr(&suppressed_bits[later / 32], 1u << (later % 32));
      }
    }
    if (t == 0) num_pairs = 0;
    __syncthreads();
    survives = survives && !(suppressed_bits[t / 32] >> (t % 32) & 1);
  }
  const int j = own_index[t];
  if (j >= 0 && !survives) atomicOr(&suppressed[j / 32], 1u << (j % 32));
}

// Overlap mask of the chunk that begins at `first`: see nms_overlap_mask. A block takes 256 boxes
// and 64 later boxes. Grid (B, nms_mask_blocks(chunk)), 256 threads.
template <typename Exact>
__device__ __forceinline__ void nms_mask_exactly(const NmsBuffers& nms,
                                                 const Exact* __restrict__ exact,
                                                 const NmsChunk& buffers, int num, int first,
                                                 int chunk, const NmsRule& rule) {
  constexpr int kBefore = 256, kLater = 64, kWords = kBefore / 32;
  __shared__ Candidate before[kBefore];
  __shared__ unsigned short pairs[kBefore * kLater];  // box, later box
  __shared__ uint32 bits[kWords * kLater];
  __shared__ int num_pairs;
  const int batch = blockIdx.x, t = threadIdx.x;
  const NmsRow row = nms_row(nms, nullptr, batch, num);
  int index = blockIdx.y, column = 0;  // index of 256 boxes
  while (index >= 2 * (column + 1) * (column + 2)) ++column;
  index -= 2 * column * (column + 1);
  const int group = index / 4, count = min(row.count - first, chunk);
  const int first_later = kBefore * column + kLater * (index % 4), first_before = kBefore * group;
  if (first_later >= count) return;
  exact += (int64)batch * num + first;
  const uint32* const suppressed = nms.suppressed + batch * ceil_div(num, 32);
  if (t == 0) num_pairs = 0;
  for (int w = t; w < kWords * kLater; w += kBefore) bits[w] = 0;
  if (first_before + t < count) before[t] = row.candidate(first + first_before + t, rule);
  __syncthreads();
  {
    const int later = t % kLater, j = first_later + later;
    Candidate mine = {};
    const bool takes_part = j < count && !is_suppressed(suppressed, first + j);
    if (takes_part) mine = row.candidate(first + j, rule);
    const int begin = t / kLater * kLater, end = min(kBefore, j - first_before);
    for (int k = begin; k < begin + kLater; ++k) {
      const bool is_pair = takes_part && k < end && nms_is_near(before[k], mine);
      const int to = warp_append(&num_pairs, is_pair);
      if (is_pair) pairs[to] = (unsigned short)(k << 6 | later);
    }
  }
  __syncthreads();
  for (int p = t; p < num_pairs; p += kBefore) {
    const int k = pairs[p] >> 6, later = pairs[p] & 63;
    if (suppresses(exact[first_before + k], exact[first_later + later], rule)) {
      atomicOr(&bits[k / 32 * kLater + later], 1u << (k % 32));
    }
  }
  __syncthreads();
  uint32* const mask = buffers.mask + (int64)batch * (chunk / 32) * chunk;
  for (int w = t; w < kWords * kLater; w += kBefore) {
    const int word = kWords * group + w / kLater;
    if (bits[w]) mask[word * chunk + first_later + w % kLater] = bits[w];
  }
  if (t < kLater && first_later + t < count) {
    uint32 found = 0;
    for (int w = 0; w < kWords; ++w) found |= (uint32)(bits[w * kLater + t] != 0) << w;
    unsigned char* const words = buffers.words + 8 * ((int64)batch * chunk + first_later + t);
    words[group] = (unsigned char)found;
    // All eight bytes are read at once. One block clears the bytes that no block writes.
    for (int other = column + 1; group == 0 && other < 8; ++other) words[other] = 0;
  }
}

}  // namespace cvops
#endif
