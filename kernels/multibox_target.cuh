// multibox_target: training targets of the anchors of a detector.
//
// The textbook algorithm computes the IoU of each anchor with each ground truth (truth) of an
// image. Then:
//
//   match    each anchor takes the truth with the highest IoU; it is positive above a threshold
//   assign   each truth takes one anchor, the best pair first; these anchors are positive too
//   mine     of the other anchors, those with the lowest probability of class 0 are negatives
//   write    offsets and class of the positive anchors, class 0 of the negatives
//
// The kernels never store the matrix of IoUs. One pass over all pairs keeps the maximum of each row
// and of each column. An int per anchor holds the result: its state (see target.cuh).
//
//   multibox_target_match     the state of each anchor, the best anchor of each truth
//   multibox_target_assign    bipartite assignment: target_assignment.cuh
//   multibox_target_score,
//   multibox_target_refine    with mining only: mining.cuh
//   multibox_target_write     the outputs
//
// The scratch memory per anchor and image is 8 bytes with mining, 4 bytes without.
#pragma once
#include "exp_log.cuh"
#include "target.cuh"

namespace cvops {

constexpr int kTargetThreads = CVOPS_STEP(128, 32);  // threads per block of multibox_target_match
constexpr int kTruthChunk = kTargetThreads;          // truths in its shared memory

// `truth` < 0 if the anchor is assigned to a truth.
CVOPS_HD bool is_positive(float iou, int truth, const TargetOptions& options) {
  return truth < 0 || (options.overlap_threshold > 0 && iou > options.overlap_threshold);
}

// The lowest IoU that changes the result: the anchor is then positive or no candidate.
CVOPS_HD float min_relevant_iou(const TargetOptions& options) {
  const float never = float_of(0x7f800000);
  const float overlap = options.overlap_threshold > 0 ? options.overlap_threshold : never;
  return options.mining_ratio > 0 ? smaller(options.mining_threshold, overlap) : overlap;
}

// Regression target: x, y, width and height of a truth relative to an anchor.
struct Offsets {
  float x, y, width, height;
};

CVOPS_HD Offsets encode(Box anchor, Box truth, const TargetOptions& options) {
  float width = anchor.x2 - anchor.x1, height = anchor.y2 - anchor.y1;
  float x = (anchor.x1 + anchor.x2) * 0.5f, y = (anchor.y1 + anchor.y2) * 0.5f;
  float truth_width = truth.x2 - truth.x1, truth_height = truth.y2 - truth.y1;
  float truth_x = (truth.x1 + truth.x2) * 0.5f, truth_y = (truth.y1 + truth.y2) * 0.5f;
  return {(truth_x - x) / width / options.variance_x, (truth_y - y) / height / options.variance_y,
          log_of(truth_width / width) / options.variance_width,
          log_of(truth_height / height) / options.variance_height};
}

}  // namespace cvops

CVOPS_KERNEL multibox_target_match(cvops::TargetBuffers buffers, const float* anchor,
                                   const float* label, cvops::TargetShape shape,
                                   cvops::TargetOptions options);
CVOPS_KERNEL multibox_target_write(float* loc_target, float* loc_mask, float* cls_target,
                                   const float* anchor, const float* label,
                                   cvops::TargetBuffers buffers, cvops::TargetShape shape,
                                   cvops::TargetOptions options);

#ifdef __CUDACC__
namespace cvops {

// Four adjacent anchors of a thread, and their matches. Lower lanes have lower anchors.
struct FourMatches {
  int64 first;  // index of the first anchor
  int count;    // at most 4; 0 or less beyond the last anchor
  SizedBox boxes[4];
  float iou[4];  // the highest so far
  int truth[4];  // its truth
};

// Loads four anchors without a match. An IoU below `least` is no match.
__device__ __forceinline__ FourMatches load_anchors(const float* anchor, int64 first,
                                                    int num_anchors, float least) {
  FourMatches own = {first, (int)min(num_anchors - first, 4ll)};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (i < own.count) own.boxes[i] = signed_size(load_box(anchor, first + i));
    own.iou[i] = float_of(bits_of(least) - 1);  // next lower float
  }
  return own;
}

// Bounding box of the anchors of the warp, which are mostly close together.
__device__ __forceinline__ Box bounds_of_warp(const FourMatches& own) {
  Box bounds = kEmptyBounds;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (i < own.count) bounds = extended(bounds, own.boxes[i].box);
  }
  return warp_bounds(bounds);
}

// Truths in shared memory, and the best pair_key of each with the anchors of each warp of a tile.
struct TruthChunk {
  static constexpr int kWarps = kTargetThreads / 32;
  float4 boxes[kTruthChunk];
  float areas[kTruthChunk];
  uint64 best_keys[kWarps][kTruthChunk];
  int count;

  __device__ SizedBox truth(int k) const {
    const float4 b = boxes[k];
    return {{b.x, b.y, b.z, b.w}, areas[k]};
  }
};

// Loads up to kTruthChunk truths from number `begin` on, and returns their number. A row of class
// -1 ends the truths.
__device__ __forceinline__ int load_truths(TruthChunk& chunk, const float* truths, int begin,
                                           const TargetShape& shape) {
  const int count = min(shape.num_truths - begin, kTruthChunk);
  __syncthreads();
  if (threadIdx.x == 0) chunk.count = count;
  __syncthreads();
  if (const int k = threadIdx.x; k < count) {
    const SizedBox truth = truth_at(truths, begin + k, shape.label_width);
    chunk.boxes[k] = make_float4(truth.box.x1, truth.box.y1, truth.box.x2, truth.box.y2);
    chunk.areas[k] = truth.area;
    if (truths[(int64)(begin + k) * shape.label_width] == -1) atomicMin(&chunk.count, k);
    for (int w = 0; w < TruthChunk::kWarps; ++w) chunk.best_keys[w][k] = 0;
  }
  __syncthreads();
  return chunk.count;
}

// Compares four anchors per thread with truth k of the chunk, which is truth number `truth` of the
// image.
__device__ __forceinline__ void match_truth(FourMatches& own, TruthChunk& chunk, int k, int truth,
                                            float least) {
  const SizedBox box = chunk.truth(k);
  float iou[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) iou[i] = quick_iou(own.boxes[i], box);
  const float top = fmaxf(fmaxf(iou[0], iou[1]), fmaxf(iou[2], iou[3]));
  if (top >= least) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      own.truth[i] = iou[i] > own.iou[i] ? truth : own.truth[i];
      own.iou[i] = fmaxf(iou[i], own.iou[i]);
    }
  }
  const uint32 top_of_warp = warp_max(bits_of(top));
  if (top_of_warp <= bits_of(kMinIou)) return;
  const unsigned lanes = __ballot_sync(kWarp, bits_of(top) == top_of_warp);
  if (lane_id() == __ffs(lanes) - 1) {
    const int at = iou[0] == top ? 0 : iou[1] == top ? 1 : iou[2] == top ? 2 : 3;
    chunk.best_keys[threadIdx.x / 32][k] = pair_key(top, (int)own.first + at);
  }
}

// Compares four anchors per thread with the chunk: `count` truths from number `begin` on. A warp
// skips the truths that do not touch the bounds of its anchors.
__device__ __forceinline__ void match_chunk(FourMatches& own, Box bounds, TruthChunk& chunk,
                                            int begin, int count, float least) {
  for (int group = 0; group < count; group += 32) {
    const int k = group + lane_id();
    const bool may_touch = k < count && may_overlap(bounds, chunk.truth(k).box);
    for (unsigned rest = __ballot_sync(kWarp, may_touch); rest; rest &= rest - 1) {
      const int next = group + __ffs(rest) - 1;
      match_truth(own, chunk, next, begin + next, least);
    }
  }
}

// Maximum of the keys of the chunk and of the previous tiles, into `keys`. In the first tile,
// `keys` are uninitialized.
__device__ __forceinline__ void merge_keys(uint64* keys, const TruthChunk& chunk, int count,
                                           bool is_first) {
  __syncthreads();
  if (const int k = threadIdx.x; k < count) {
    uint64 key = is_first ? 0 : keys[k];
    for (int w = 0; w < TruthChunk::kWarps; ++w) {
      if (chunk.best_keys[w][k] > key) key = chunk.best_keys[w][k];
    }
    keys[k] = key;
  }
}

// Stores the states of four anchors in the row of the image, and counts them.
__device__ __forceinline__ void store_states(int* row, AnchorCounts& counts, const FourMatches& own,
                                             const TargetOptions& options) {
  int state[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const bool positive = is_positive(own.iou[i], 0, options);
    const bool candidate = i < own.count && !positive && own.iou[i] < options.mining_threshold;
    state[i] = positive ? own.truth[i] : kScored + (int)(candidate ? kUnscored : kNoCandidate);
    counts.positive += positive;
    counts.candidates += candidate;
  }
  if (own.count > 0) {
    // The compiler would split a plain store.
    __stcg(reinterpret_cast<int4*>(row + own.first),
           make_int4(state[0], state[1], state[2], state[3]));
  }
}

// Stores the sum of the counts of all threads.
__device__ __forceinline__ void store_counts(AnchorCounts* out, AnchorCounts own) {
  constexpr int kWarps = kTargetThreads / 32;
  __shared__ AnchorCounts of_warp[kWarps];
  const AnchorCounts sum_of_warp = {warp_sum(own.positive), warp_sum(own.candidates)};
  if (lane_id() == 0) of_warp[threadIdx.x / 32] = sum_of_warp;
  __syncthreads();
  if (threadIdx.x == 0) {
    AnchorCounts sum = {0, 0};
    for (int w = 0; w < kWarps; ++w) {
      sum.positive += of_warp[w].positive;
      sum.candidates += of_warp[w].candidates;
    }
    *out = sum;
  }
}

}  // namespace cvops

// All pairs of anchors and truths. A tile has four anchors per thread. The tiles of an image are
// divided among `num_splits` splits. Each split has one key per truth, and counts of its positive
// anchors and its candidates for mining. The first row of class -1 ends the truths of an image;
// num_valid is their number. The 7 blocks per multiprocessor keep ptxas from spills for sm_120.
extern "C" __global__ void __launch_bounds__(cvops::kTargetThreads, 7)
    multibox_target_match(const cvops::TargetBuffers buffers, const float* __restrict__ anchor,
                          const float* __restrict__ label, const cvops::TargetShape shape,
                          const cvops::TargetOptions options) {
  using namespace cvops;
  wait_for_earlier_launches();
  __shared__ TruthChunk chunk;
  const int64 row = row_length(shape.num_anchors);
  const int num_splits = buffers.num_splits;
  const float least = min_relevant_iou(options);
  for (int64 image = blockIdx.y; image < shape.num_images; image += gridDim.y) {
    const float* truths = label + image * shape.num_truths * shape.label_width;
    for (int split = blockIdx.x; split < num_splits; split += gridDim.x) {
      uint64* keys = buffers.keys + (image * num_splits + split) * shape.num_truths;
      AnchorCounts counts = {0, 0};
      for (int64 tile = split; tile * 4 * kTargetThreads < row; tile += num_splits) {
        const int64 first = 4 * (tile * kTargetThreads + threadIdx.x);
        FourMatches own = load_anchors(anchor, first, shape.num_anchors, least);
        const Box bounds = bounds_of_warp(own);
        int begin = 0, count;
        do {
          count = load_truths(chunk, truths, begin, shape);
          match_chunk(own, bounds, chunk, begin, count, least);
          merge_keys(keys + begin, chunk, count, tile == split);
          begin += count;
        } while (count == kTruthChunk && begin < shape.num_truths);
        if (tile == 0 && threadIdx.x == 0) buffers.num_valid[image] = begin;
        store_states(buffers.states + image * row, counts, own, options);
      }
      store_counts(buffers.counts + image * num_splits + split, counts);
    }
  }
}

// loc_target and loc_mask (images, anchors, 4), cls_target (images, anchors). `bounds` is read with
// mining only.
extern "C" __global__ void __launch_bounds__(256)
    multibox_target_write(float* __restrict__ loc_target, float* __restrict__ loc_mask,
                          float* __restrict__ cls_target, const float* __restrict__ anchor,
                          const float* __restrict__ label, const cvops::TargetBuffers buffers,
                          const cvops::TargetShape shape, const cvops::TargetOptions options) {
  using namespace cvops;
  wait_for_earlier_launches();
  const int num = shape.num_anchors;
  for (int64 image = blockIdx.y; image < shape.num_images; image += gridDim.y) {
    const int* row = buffers.states + image * row_length(num);
    const float* truths = label + image * shape.num_truths * shape.label_width;
    for (int64 begin = blockIdx.x * (int64)blockDim.x; begin < num;
         begin += (int64)gridDim.x * blockDim.x) {
      const int a = (int)begin + (int)threadIdx.x;
      if (a >= num) break;
      float4 target = make_float4(0, 0, 0, 0), mask = target;
      float cls = options.ignore_label;
      const int state = row[a];
      if (buffers.num_valid[image] > 0) {
        if (state < kScored) {
          const int64 truth = state < 0 ? ~state : state;
          const Box box = truth_at(truths, truth, shape.label_width).box;
          const Offsets offsets = encode(load_box(anchor, a), box, options);
          target = make_float4(offsets.x, offsets.y, offsets.width, offsets.height);
          mask = make_float4(1, 1, 1, 1);
          cls = truths[truth * shape.label_width] + 1;
        } else if (!(options.mining_ratio > 0) ||
                   mining_key((uint32)(state - kScored), a) < buffers.bounds[image]) {
          cls = 0;
        }
      }
      reinterpret_cast<float4*>(loc_target)[image * num + a] = target;
      reinterpret_cast<float4*>(loc_mask)[image * num + a] = mask;
      cls_target[image * num + a] = cls;
    }
  }
}
#endif
