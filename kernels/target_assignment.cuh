// Bipartite assignment of anchors to ground truths (truths): a step of multibox_target.
//
// The textbook algorithm, which is MXNet's:
//
//   while a truth and an anchor are free and their IoU is above kMinIou:
//     of these pairs, assign the one with the highest IoU
//
// It needs one pass over all pairs per truth. The kernel keeps the best pair of each truth with a
// free anchor. A truth is in conflict if another one has a better pair with the same anchor. A
// round assigns all pairs without a conflict that are at least as good as the best pair in
// conflict: the textbook algorithm takes them before that one. Truths in conflict then search
// another anchor. Conflicts are rare, and rounds few, unless many truths are equal.
#pragma once
#include "target.cuh"

namespace cvops {

// Maximum number of truths whose keys multibox_target_assign holds in shared memory.
constexpr int kSharedKeys = CVOPS_STEP(512, 8);

}  // namespace cvops

CVOPS_KERNEL multibox_target_assign(cvops::TargetBuffers buffers, const float* anchor,
                                    const float* label, cvops::TargetShape shape,
                                    cvops::TargetOptions options);

#ifdef __CUDACC__
namespace cvops {

// The truths of an image, its anchors, and the progress of the assignment.
struct Assignment {
  uint64* keys;  // per truth: the best pair_key with a free anchor; 0 if it has none or is assigned
  int num_truths;
  int* states;  // of the anchors
  const float *anchor, *label;
  int num_anchors, label_width;
};

// Computes the best key of each truth over all splits. `split_keys` (num_splits, stride); `keys`
// can be its first row.
__device__ __forceinline__ void gather_keys(uint64* keys, const uint64* split_keys, int num_splits,
                                            int stride, int num) {
  const int warp = threadIdx.x / 32, warps = blockDim.x / 32;
  if (keys != split_keys) {
    for (int k = threadIdx.x; k < num; k += blockDim.x) keys[k] = split_keys[k];
  }
  __syncthreads();
  for (int split = 1 + warp; split < num_splits; split += warps) {
    for (int k = lane_id(); k < num; k += 32) {
      const uint64 key = split_keys[(int64)split * stride + k];
      if (key) atomicMax(&keys[k], key);
    }
  }
}

// Adds the counts of the splits to `sum`, which is in shared memory.
__device__ __forceinline__ void add_counts(AnchorCounts& sum, const AnchorCounts* counts,
                                           int num_splits) {
  for (int i = threadIdx.x; i < num_splits; i += blockDim.x) {
    const AnchorCounts count = counts[i];
    if (count.positive) atomicAdd(&sum.positive, count.positive);
    if (count.candidates) atomicAdd(&sum.candidates, count.candidates);
  }
}

// True if a better pair has the same anchor as truth k. The lower truth is the better one of equal
// pairs.
__device__ __forceinline__ bool is_beaten(const uint64* keys, int num, int k) {
  const uint64 own = keys[k];
  for (int other = 0; other < num; ++other) {
    const uint64 key = keys[other];
    if ((uint32)key == (uint32)own && (key > own || (key == own && other < k))) return true;
  }
  return false;
}

// Computes the highest key of a truth in conflict; 0 if there is none.
__device__ __forceinline__ void find_conflict(uint64& best_conflict, const uint64* keys, int num) {
  for (int k = threadIdx.x; k < num; k += blockDim.x) {
    if (keys[k] && is_beaten(keys, num, k)) atomicMax(&best_conflict, keys[k]);
  }
}

// Assigns the pairs without a conflict that are at least as good as the best conflict. `counts`
// follows the states of their anchors.
__device__ __forceinline__ void assign_pairs(const Assignment& a, uint64 best_conflict,
                                             AnchorCounts& counts) {
  for (int k = threadIdx.x; k < a.num_truths; k += blockDim.x) {
    const uint64 key = a.keys[k];
    if (key && key >= best_conflict && !is_beaten(a.keys, a.num_truths, k)) {
      const int state = a.states[anchor_of(key)];
      if (state >= kScored) atomicAdd(&counts.positive, 1);
      if (state == kScored + (int)kUnscored) atomicAdd(&counts.candidates, -1);
      a.states[anchor_of(key)] = ~k;
    }
  }
}

// Key of the best unassigned anchor for a truth. The warp takes split `split` of `splits`: each
// `splits`-th group of 32 anchors.
__device__ __forceinline__ uint64 best_free_anchor(const Assignment& a, SizedBox truth, int split,
                                                   int splits) {
  constexpr int kAtOnce = 4;  // anchors per thread whose loads overlap
  uint64 best = 0;
  for (int64 begin = 32 * split + lane_id(); begin < a.num_anchors;
       begin += 32 * kAtOnce * splits) {
    Box boxes[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int64 at = begin + 32 * i * splits;
      boxes[i] = load_box(a.anchor, at < a.num_anchors ? at : begin);
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int64 at = begin + 32 * i * splits;
      const uint64 key = pair_key(quick_iou(signed_size(boxes[i]), truth), (int)at);
      if (key > best && at < a.num_anchors && a.states[at] >= 0) best = key;
    }
  }
  return warp_max(best);
}

// Clears the keys of the truths whose anchor is assigned now. Those that another truth has beaten
// search another anchor. Returns true in at least one thread if a truth still has a key.
__device__ __forceinline__ bool update_keys(const Assignment& a) {
  __shared__ int searching[kSharedKeys];  // truths
  __shared__ int num_searching;
  const int warp = threadIdx.x / 32, warps = blockDim.x / 32, num = a.num_truths;
  bool has_key = false;
  for (int begin = 0; begin < num; begin += kSharedKeys) {
    if (threadIdx.x == 0) num_searching = 0;
    __syncthreads();
    for (int k = begin + threadIdx.x; k < min(num, begin + kSharedKeys); k += blockDim.x) {
      const int owner = a.keys[k] ? a.states[anchor_of(a.keys[k])] : ~k;
      if (owner < 0) {
        a.keys[k] = 0;
        if (owner != ~k) searching[atomicAdd(&num_searching, 1)] = k;
      } else {
        has_key = true;
      }
    }
    __syncthreads();
    // The warps are divided evenly among the searching truths.
    const int splits = max(1, warps / max(1, num_searching));
    for (int task = warp; task < splits * num_searching; task += warps) {
      const int k = searching[task / splits];
      const SizedBox truth = truth_at(a.label, k, a.label_width);
      const uint64 key = best_free_anchor(a, truth, task % splits, splits);
      if (lane_id() == 0 && key) atomicMax(&a.keys[k], key);
      has_key |= key != 0;
    }
    __syncthreads();
  }
  return has_key;
}

// Writes the number of negatives to mine, or that all candidates or none are negatives.
__device__ __forceinline__ void write_quota(const TargetBuffers& buffers, int64 image,
                                            AnchorCounts counts, int num_anchors, float ratio) {
  const int count = mining_count(counts.positive, num_anchors, ratio);
  const bool some = count > 0 && count < counts.candidates;
  buffers.wanted[image] = some ? count : 0;
  buffers.bounds[image] = count > 0 ? mining_key(kNoCandidate, 0) : 0;
}

}  // namespace cvops

// One block per image. With mining, the kernel also writes `wanted` and `bounds`, and clears the
// counters of the next kernels.
extern "C" __global__ void __launch_bounds__(1024, 1)
    multibox_target_assign(const cvops::TargetBuffers buffers, const float* __restrict__ anchor,
                           const float* __restrict__ label, const cvops::TargetShape shape,
                           const cvops::TargetOptions options) {
  using namespace cvops;
  wait_for_earlier_launches();
  __shared__ uint64 shared_keys[kSharedKeys];
  __shared__ uint64 best_conflict;
  __shared__ AnchorCounts counts;
  const int num_splits = buffers.num_splits;
  const bool mining = options.mining_ratio > 0;
  for (int64 image = blockIdx.x; image < shape.num_images; image += gridDim.x) {
    const int num = buffers.num_valid[image];
    uint64* split_keys = buffers.keys + image * num_splits * shape.num_truths;
    const Assignment a = {num <= kSharedKeys ? shared_keys : split_keys,
                          num,
                          buffers.states + image * row_length(shape.num_anchors),
                          anchor,
                          label + image * shape.num_truths * shape.label_width,
                          shape.num_anchors,
                          shape.label_width};
    __syncthreads();  // the previous image no longer uses the shared memory
    if (threadIdx.x == 0) best_conflict = 0, counts = {0, 0};
    gather_keys(a.keys, split_keys, num_splits, shape.num_truths, num);
    if (mining) {
      add_counts(counts, buffers.counts + image * num_splits, num_splits);
      clear_bins(buffers.bins + image * kDigitBins);
    }
    __syncthreads();
    bool has_key = false;
    for (int k = threadIdx.x; k < num; k += blockDim.x) has_key |= a.keys[k] != 0;
    while (__syncthreads_or(has_key)) {
      find_conflict(best_conflict, a.keys, num);
      __syncthreads();
      assign_pairs(a, best_conflict, counts);
      __syncthreads();
      if (threadIdx.x == 0) best_conflict = 0;
      has_key = update_keys(a);
    }
    if (mining && threadIdx.x == 0) {
      write_quota(buffers, image, counts, shape.num_anchors, options.mining_ratio);
      buffers.finished_blocks[image] = 0;
    }
  }
}
#endif
