// multibox_target: training targets of the anchors of a detector. The matrix of IoUs (anchors by
// ground truths) is never stored. One pass over all pairs keeps the maximum of each row and column.
//
//   multibox_target_match    all pairs: the state of each anchor, the best anchor of each truth
//   multibox_target_assign   bipartite assignment: one anchor per truth, the best pair first
//   multibox_target_score    mining only: approximate background probability of each candidate
//   multibox_target_refine   mining only: exact probability near the limit, then the limit itself
//   multibox_target_write    the outputs
//
// `states` has one row per image and one int per anchor. The value is one of these:
//
// - the index of the truth that the anchor matches, if their IoU makes it positive;
// - kScored + the mining score of another anchor;
// - ~truth (negative) if the assignment gave the anchor to that truth.
//
// The scratch memory per anchor and image is 8 bytes with mining, 4 bytes without.
#pragma once
#include "box.cuh"
#include "mining.cuh"

namespace cvops {

struct TargetShape {
  int num_images, num_anchors, num_truths, label_width, num_classes;
};

struct TargetOptions {
  float overlap_threshold, ignore_label, mining_ratio, mining_threshold;
  float variance_x, variance_y, variance_width, variance_height;
};

constexpr int kTargetThreads = CVOPS_STEP(128, 32);  // threads per block of multibox_target_match
constexpr int kTruthChunk = kTargetThreads;          // truths in its shared memory
// Maximum number of truths whose keys multibox_target_assign holds in shared memory.
constexpr int kSharedKeys = CVOPS_STEP(512, 8);
constexpr int kScoreThreads = CVOPS_STEP(256, 64);   // threads per block of multibox_target_score
constexpr int kRefineThreads = CVOPS_STEP(512, 64);  // threads per block of multibox_target_refine

// Number of positive anchors, and of candidates for mining.
struct alignas(8) AnchorCounts {
  int positive, candidates;
};

// Scratch memory of the kernels. The anchors of an image are divided into `num_splits` splits.
struct TargetBuffers {
  int* states;           // (B, row_length): see the head of this file
  uint64* keys;          // (B, num_splits, G): the best pair_key of each truth per split
  AnchorCounts* counts;  // (B, num_splits)
  int* num_valid;        // (B): number of truths before the first row of class -1
  int num_splits;
  // With mining only:
  int* wanted;                     // (B): negatives to mine; 0 if none or all candidates
  uint64* bounds;                  // (B): candidates with a lower mining_key are negatives
  uint32* scores;                  // (B, row_length)
  uint32 *bins, *finished_blocks;  // (B, kDigitBins); (B): finished blocks of refine
};

// An anchor is assigned to a truth only if their IoU is greater.
constexpr float kMinIou = 1e-6f;

// Length of a row of `states` and `scores`: each row is aligned to 16 bytes.
CVOPS_HD int64 row_length(int num_anchors) { return ((int64)num_anchors + 3) / 4 * 4; }

// The area without a clamp: negative if one axis is inverted, positive if both are.
CVOPS_HD SizedBox signed_size(Box b) { return {b, signed_area(b)}; }

// Row k of the labels of an image: class, left, top, right, bottom.
CVOPS_HD SizedBox truth_at(const float* label, int64 k, int label_width) {
  const float* row = label + k * label_width;
  return signed_size({row[1], row[2], row[3], row[4]});
}

// Intersection and union of an anchor and a truth.
struct TargetPair {
  float overlap, all;
};

CVOPS_HD TargetPair target_pair(SizedBox anchor, SizedBox truth) {
  float overlap = intersection(anchor.box, truth.box);
  return {overlap, anchor.area + truth.area - overlap};
}

// IoU; 0 if it is negative or NaN. The operator gives the same result for these values.
CVOPS_HD float target_iou(SizedBox anchor, SizedBox truth) {
  TargetPair pair = target_pair(anchor, truth);
  return pair.overlap > 0 && pair.all > 0 ? pair.overlap / pair.all : 0.0f;
}

// Bounding box extended by b. A box with NaN, which overlaps nothing, does not extend it.
CVOPS_HD Box extended(Box bounds, Box b) {
  return {smaller(b.x1, bounds.x1), smaller(b.y1, bounds.y1), larger(b.x2, bounds.x2),
          larger(b.y2, bounds.y2)};
}

constexpr Box kEmptyBounds = {3e38f, 3e38f, -3e38f, -3e38f};

// False if a box within the bounds cannot overlap b.
CVOPS_HD bool may_overlap(Box bounds, Box b) {
  return bounds.x1 < b.x2 && b.x1 < bounds.x2 && bounds.y1 < b.y2 && b.y1 < bounds.y2;
}

// Key of a pair for the maximum per truth: the greater IoU, then the lower anchor. 0 means none.
CVOPS_HD uint64 pair_key(float iou, int anchor) {
  return iou > kMinIou ? (uint64)bits_of(iou) << 32 | (uint32)~anchor : 0;
}

CVOPS_HD int anchor_of(uint64 key) { return (int)~(uint32)key; }

CVOPS_HD bool is_positive(float best, int which, const TargetOptions& options) {
  return which < 0 || (options.overlap_threshold > 0 && best > options.overlap_threshold);
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
CVOPS_KERNEL multibox_target_assign(cvops::TargetBuffers buffers, const float* anchor,
                                    const float* label, cvops::TargetShape shape,
                                    cvops::TargetOptions options);
CVOPS_KERNEL multibox_target_score(cvops::uint32* scores, cvops::uint32* bins, const int* states,
                                   const float* cls_pred, const int* wanted,
                                   cvops::TargetShape shape);
CVOPS_KERNEL multibox_target_refine(cvops::TargetBuffers buffers, const float* cls_pred,
                                    cvops::TargetShape shape, int splits);
CVOPS_KERNEL multibox_target_write(float* loc_target, float* loc_mask, float* cls_target,
                                   const float* anchor, const float* label,
                                   cvops::TargetBuffers buffers, cvops::TargetShape shape,
                                   cvops::TargetOptions options);

#ifdef __CUDACC__
namespace cvops {

// Union of the bounding boxes of a warp.
__device__ __forceinline__ Box warp_bounds(Box b) {
  return {-warp_max(-b.x1), -warp_max(-b.y1), warp_max(b.x2), warp_max(b.y2)};
}

// target_iou with an early return for boxes that do not touch. fminf can return a number for NaN,
// but the area is then NaN and both functions return 0.
__device__ __forceinline__ float quick_iou(SizedBox anchor, SizedBox truth) {
  const Box a = anchor.box, b = truth.box;
  const float width = fminf(a.x2, b.x2) - fmaxf(a.x1, b.x1);
  const float height = fminf(a.y2, b.y2) - fmaxf(a.y1, b.y1);
  if (!(width > 0 && height > 0)) return 0;
  const float overlap = width * height, all = anchor.area + truth.area - overlap;
  return all > 0 ? overlap / all : 0.0f;
}

// True if a better pair wants the same anchor as truth k. Of equal pairs, the lower truth is
// better.
__device__ __forceinline__ bool is_beaten(const uint64* keys, int num, int k) {
  const uint64 own = keys[k];
  for (int other = 0; other < num; ++other) {
    const uint64 key = keys[other];
    if ((uint32)key == (uint32)own && (key > own || (key == own && other < k))) return true;
  }
  return false;
}

// Key of the best unassigned anchor for a truth. The warp takes split `split` of `splits`: each
// `splits`-th group of 32 anchors.
__device__ __forceinline__ uint64 best_free_anchor(const float* anchor, const int* states,
                                                   int num_anchors, SizedBox truth, int split,
                                                   int splits) {
  constexpr int kAtOnce = 4;  // anchors per thread whose loads overlap
  uint64 best = 0;
  for (int64 begin = 32 * split + lane_id(); begin < num_anchors; begin += 32 * kAtOnce * splits) {
    Box boxes[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int64 a = begin + 32 * i * splits;
      boxes[i] = load_box(anchor, a < num_anchors ? a : begin);
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int64 a = begin + 32 * i * splits;
      const uint64 key = pair_key(quick_iou(signed_size(boxes[i]), truth), (int)a);
      if (key > best && a < num_anchors && states[a] >= 0) best = key;
    }
  }
  return warp_max(best);
}

}  // namespace cvops

// All pairs of anchors and truths. A thread takes four adjacent anchors, so lower lanes have lower
// anchors. The tiles of an image are divided among `num_splits` splits. Each split has one key per
// truth and counts its positive anchors and its candidates for mining. The first row of class -1
// ends the truths of an image; num_valid is their number.
extern "C" __global__ void __launch_bounds__(cvops::kTargetThreads)
    multibox_target_match(const cvops::TargetBuffers buffers, const float* __restrict__ anchor,
                          const float* __restrict__ label, const cvops::TargetShape shape,
                          const cvops::TargetOptions options) {
  using namespace cvops;
  int* const states = buffers.states;
  const int num_splits = buffers.num_splits;
  constexpr int kWarps = kTargetThreads / 32;
  __shared__ float4 boxes[kTruthChunk];
  __shared__ float areas[kTruthChunk];
  __shared__ uint64 best_keys[kWarps][kTruthChunk];
  __shared__ uint32 positives[kWarps], candidates[kWarps];
  __shared__ int end;
  const int64 row = row_length(shape.num_anchors);
  const int warp = threadIdx.x / 32;
  const float least = min_relevant_iou(options);
  for (int64 image = blockIdx.y; image < shape.num_images; image += gridDim.y) {
    const float* truths = label + image * shape.num_truths * shape.label_width;
    for (int split = blockIdx.x; split < num_splits; split += gridDim.x) {
      uint64* top_keys = buffers.keys + (image * num_splits + split) * shape.num_truths;
      uint32 num_positive = 0, num_candidates = 0;
      for (int64 tile = split; tile * 4 * kTargetThreads < row; tile += num_splits) {
        const int64 first = 4 * (tile * kTargetThreads + threadIdx.x);
        SizedBox mine[4];
        Box bounds = kEmptyBounds;  // bounds of the anchors of the warp, mostly adjacent
        float best_iou[4];
        int with[4] = {0, 0, 0, 0};
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const bool exists = first + i < shape.num_anchors;
          mine[i] = exists ? signed_size(load_box(anchor, first + i)) : SizedBox{};
          if (exists) bounds = extended(bounds, mine[i].box);
          best_iou[i] = float_of(bits_of(least) - 1);  // next lower float
        }
        bounds = warp_bounds(bounds);
        int begin = 0, count;
        do {
          count = min(shape.num_truths - begin, kTruthChunk);
          __syncthreads();
          if (threadIdx.x == 0) end = count;
          __syncthreads();
          if (const int k = threadIdx.x; k < count) {
            const SizedBox truth = truth_at(truths, begin + k, shape.label_width);
            boxes[k] = make_float4(truth.box.x1, truth.box.y1, truth.box.x2, truth.box.y2);
            areas[k] = truth.area;
            if (truths[(int64)(begin + k) * shape.label_width] == -1) atomicMin(&end, k);
            for (int w = 0; w < kWarps; ++w) best_keys[w][k] = 0;
          }
          __syncthreads();
          count = end;
          for (int group = 0; group < count; group += 32) {
            const int own = group + lane_id();
            bool may_touch = false;
            if (own < count) {
              const float4 b = boxes[own];
              may_touch = may_overlap(bounds, {b.x, b.y, b.z, b.w});
            }
            for (unsigned rest = __ballot_sync(kWarp, may_touch); rest; rest &= rest - 1) {
              const int k = group + __ffs(rest) - 1;
              const float4 b = boxes[k];
              const SizedBox truth = {{b.x, b.y, b.z, b.w}, areas[k]};
              float iou[4];
#pragma unroll
              for (int i = 0; i < 4; ++i) iou[i] = quick_iou(mine[i], truth);
              const float top = fmaxf(fmaxf(iou[0], iou[1]), fmaxf(iou[2], iou[3]));
              if (top >= least) {
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                  with[i] = iou[i] > best_iou[i] ? begin + k : with[i];
                  best_iou[i] = fmaxf(iou[i], best_iou[i]);
                }
              }
              const uint32 top_of_warp = warp_max(bits_of(top));
              if (top_of_warp <= bits_of(kMinIou)) continue;
              const unsigned lanes = __ballot_sync(kWarp, bits_of(top) == top_of_warp);
              if (lane_id() == __ffs(lanes) - 1) {
                const int at = iou[0] == top ? 0 : iou[1] == top ? 1 : iou[2] == top ? 2 : 3;
                best_keys[warp][k] = pair_key(top, (int)first + at);
              }
            }
          }
          __syncthreads();
          if (const int k = threadIdx.x; k < count) {
            uint64 key = tile == split ? 0 : top_keys[begin + k];
            for (int w = 0; w < kWarps; ++w) {
              if (best_keys[w][k] > key) key = best_keys[w][k];
            }
            top_keys[begin + k] = key;
          }
          begin += count;
        } while (count == kTruthChunk && begin < shape.num_truths);
        if (tile == 0 && threadIdx.x == 0) buffers.num_valid[image] = begin;
        int state[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const bool exists = first + i < shape.num_anchors;
          const bool positive = is_positive(best_iou[i], 0, options);
          const bool candidate = exists && !positive && best_iou[i] < options.mining_threshold;
          state[i] = positive ? with[i] : kScored + (int)(candidate ? kUnscored : kNoCandidate);
          num_positive += positive;
          num_candidates += candidate;
        }
        if (first < row) {
          // The compiler would split a plain store.
          __stcg(reinterpret_cast<int4*>(states + image * row + first),
                 make_int4(state[0], state[1], state[2], state[3]));
        }
      }
      num_positive = warp_sum(num_positive);
      num_candidates = warp_sum(num_candidates);
      if (lane_id() == 0) {
        positives[warp] = num_positive;
        candidates[warp] = num_candidates;
      }
      __syncthreads();
      if (threadIdx.x == 0) {
        AnchorCounts sum = {0, 0};
        for (int w = 0; w < kWarps; ++w) {
          sum.positive += (int)positives[w];
          sum.candidates += (int)candidates[w];
        }
        buffers.counts[image * num_splits + split] = sum;
      }
    }
  }
}

// Bipartite assignment, one block per image. MXNet repeatedly takes the best pair of a free truth
// and a free anchor. One round here assigns all pairs that MXNet takes before the first conflict. A
// conflict is a truth whose best anchor goes to a better pair. Truths in conflict then search
// another anchor. Conflicts are rare, and rounds few, unless many truths are equal.
//
// With mining, the kernel also writes the number of negatives to mine (`wanted`), or in `bounds`
// that all candidates or none are negatives. It clears the counters of the next kernels.
extern "C" __global__ void __launch_bounds__(1024, 1)
    multibox_target_assign(const cvops::TargetBuffers buffers, const float* __restrict__ anchor,
                           const float* __restrict__ label, const cvops::TargetShape shape,
                           const cvops::TargetOptions options) {
  using namespace cvops;
  int* const states = buffers.states;
  const int num_splits = buffers.num_splits;
  __shared__ uint64 shared_keys[kSharedKeys];
  __shared__ int searching[kSharedKeys];
  __shared__ uint64 best_beaten;
  __shared__ int num_searching, num_positive, num_candidates;
  const int warp = threadIdx.x / 32, warps = blockDim.x / 32;
  for (int64 image = blockIdx.x; image < shape.num_images; image += gridDim.x) {
    const int num = buffers.num_valid[image];
    const float* truths = label + image * shape.num_truths * shape.label_width;
    int* row_states = states + image * row_length(shape.num_anchors);
    uint64* split_keys = buffers.keys + image * num_splits * shape.num_truths;
    uint64* best_keys = num <= kSharedKeys ? shared_keys : split_keys;
    __syncthreads();
    if (num <= kSharedKeys) {
      for (int k = threadIdx.x; k < num; k += blockDim.x) best_keys[k] = split_keys[k];
    }
    if (threadIdx.x == 0) {
      best_beaten = 0;
      num_positive = num_candidates = 0;
    }
    __syncthreads();
    for (int split = 1 + warp; split < num_splits; split += warps) {
      for (int k = lane_id(); k < num; k += 32) {
        const uint64 key = split_keys[(int64)split * shape.num_truths + k];
        if (key) atomicMax(&best_keys[k], key);
      }
    }
    if (options.mining_ratio > 0) {
      for (int i = threadIdx.x; i < num_splits; i += blockDim.x) {
        const AnchorCounts count = buffers.counts[image * num_splits + i];
        if (count.positive) atomicAdd(&num_positive, count.positive);
        if (count.candidates) atomicAdd(&num_candidates, count.candidates);
      }
      clear_bins(buffers.bins + image * kDigitBins);
    }
    __syncthreads();
    bool has_free = false;
    for (int k = threadIdx.x; k < num; k += blockDim.x) has_free |= best_keys[k] != 0;
    while (__syncthreads_or(has_free)) {
      for (int k = threadIdx.x; k < num; k += blockDim.x) {
        if (best_keys[k] && is_beaten(best_keys, num, k)) atomicMax(&best_beaten, best_keys[k]);
      }
      __syncthreads();
      for (int k = threadIdx.x; k < num; k += blockDim.x) {
        const uint64 key = best_keys[k];
        if (key && key >= best_beaten && !is_beaten(best_keys, num, k)) {
          const int state = row_states[anchor_of(key)];
          if (state >= kScored) atomicAdd(&num_positive, 1);
          if (state == kScored + (int)kUnscored) atomicAdd(&num_candidates, -1);
          row_states[anchor_of(key)] = ~k;
        }
      }
      __syncthreads();
      if (threadIdx.x == 0) best_beaten = 0;
      has_free = false;
      for (int begin = 0; begin < num; begin += kSharedKeys) {
        if (threadIdx.x == 0) num_searching = 0;
        __syncthreads();
        for (int k = begin + threadIdx.x; k < min(num, begin + kSharedKeys); k += blockDim.x) {
          const int owner = best_keys[k] ? row_states[anchor_of(best_keys[k])] : ~k;
          if (owner < 0) {
            best_keys[k] = 0;
            if (owner != ~k) searching[atomicAdd(&num_searching, 1)] = k;
          } else {
            has_free = true;
          }
        }
        __syncthreads();
        // The warps are divided evenly among the searching truths.
        const int splits = max(1, warps / max(1, num_searching));
        for (int task = warp; task < splits * num_searching; task += warps) {
          const int k = searching[task / splits];
          const uint64 key =
              best_free_anchor(anchor, row_states, shape.num_anchors,
                               truth_at(truths, k, shape.label_width), task % splits, splits);
          if (lane_id() == 0 && key) atomicMax(&best_keys[k], key);
          has_free |= key != 0;
        }
        __syncthreads();
      }
    }
    if (options.mining_ratio > 0 && threadIdx.x == 0) {
      const int count = mining_count(num_positive, shape.num_anchors, options.mining_ratio);
      const bool some = count > 0 && count < num_candidates;
      buffers.wanted[image] = some ? count : 0;
      buffers.bounds[image] = count > 0 ? mining_key(kNoCandidate, 0) : 0;
      buffers.finished_blocks[image] = 0;
    }
  }
}

// Approximate scores and the histogram of their leading digits. cls_pred (images, classes,
// anchors).
extern "C" __global__ void __launch_bounds__(cvops::kScoreThreads)
    multibox_target_score(unsigned int* __restrict__ scores, unsigned int* __restrict__ bins,
                          const int* __restrict__ states, const float* __restrict__ cls_pred,
                          const int* __restrict__ wanted, const cvops::TargetShape shape) {
  using namespace cvops;
  __shared__ uint32 own_bins[kDigitBins];
  const int num = shape.num_anchors;
  for (int64 image = blockIdx.y; image < shape.num_images; image += gridDim.y) {
    if (wanted[image] == 0) continue;
    const int64 row = image * row_length(num);
    const float* logits = cls_pred + image * shape.num_classes * num;
    clear_bins(own_bins);
    __syncthreads();
    for (int64 begin = (int64)blockIdx.x * 4 * blockDim.x; begin < num;
         begin += (int64)gridDim.x * 4 * blockDim.x) {
      if (num % 4 == 0) {
        score_tile(scores + row, own_bins, states + row, logits, shape.num_classes,
                   FourAnchors<true>(begin, num));
      } else {
        score_tile(scores + row, own_bins, states + row, logits, shape.num_classes,
                   FourAnchors<false>(begin, num));
      }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < kDigitBins; i += blockDim.x) {
      if (own_bins[i]) atomicAdd(&bins[image * kDigitBins + i], own_bins[i]);
    }
    __syncthreads();
  }
}

// Exact scores of the candidates near the limit. An image has `splits` splits. Each block computes
// the undecided range itself, which is faster than to wait for another block. The last block to
// finish computes the bound: candidates with a lower mining_key are negatives.
extern "C" __global__ void __launch_bounds__(cvops::kRefineThreads)
    multibox_target_refine(const cvops::TargetBuffers buffers, const float* __restrict__ cls_pred,
                           const cvops::TargetShape shape, const int splits) {
  using namespace cvops;
  int* const states = buffers.states;
  const int* const wanted = buffers.wanted;
  const uint32* const scores = buffers.scores;
  constexpr int kTile = 4 * kRefineThreads;
  __shared__ uint32 own_bins[kDigitBins];
  __shared__ int listed[2 * kTile];
  __shared__ int num_listed;
  __shared__ bool is_last;
  __shared__ UndecidedRange undecided;  // in shared memory to save registers
  const int num = shape.num_anchors, per_split = ((num - 1) / (4 * splits) + 1) * 4;
  for (int64 image = blockIdx.y; image < shape.num_images; image += gridDim.y) {
    if (wanted[image] == 0) continue;
    const int64 row = image * row_length(num);
    const float* logits = cls_pred + image * shape.num_classes * num;
    const UndecidedRange found =
        find_undecided(own_bins, buffers.bins + image * kDigitBins, scores + row, num,
                       shape.num_classes, (uint32)wanted[image]);
    if (threadIdx.x == 0) undecided = found;
    for (int split = blockIdx.x; split < splits; split += gridDim.x) {
      if (threadIdx.x == 0) num_listed = 0;
      __syncthreads();
      const int end = min((split + 1) * per_split, num);
      for (int begin = split * per_split; begin < end; begin += kTile) {
        const int first = begin + 4 * (int)threadIdx.x;
        uint4 four = make_uint4(kNoCandidate, kNoCandidate, kNoCandidate, kNoCandidate);
        if (first < end) four = *reinterpret_cast<const uint4*>(scores + row + first);
        const uint32 score[4] = {four.x, four.y, four.z, four.w};
        int count = 0, position = 0;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          if (first + i >= end) continue;
          if (undecided.is_certain(score[i])) {
            states[row + first + i] = kScored + (int)undecided.lowest;
          } else {
            count += score[i] <= undecided.last;
          }
        }
        if (count) {
          position = atomicAdd(&num_listed, count);
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            if (first + i < end && !undecided.is_certain(score[i]) && score[i] <= undecided.last) {
              listed[position++] = first + i;
            }
          }
        }
        if (__syncthreads_or(position > kTile || begin + kTile >= end)) {
          for (int i = threadIdx.x; i < num_listed; i += blockDim.x) {
            const int a = listed[i];
            const float background = background_of(logits + a, shape.num_classes, num);
            states[row + a] = kScored + (int)mining_score(background);
          }
          __syncthreads();
          if (threadIdx.x == 0) num_listed = 0;
          __syncthreads();
        }
      }
      __threadfence();
      __syncthreads();
      if (threadIdx.x == 0)
        is_last = atomicAdd(&buffers.finished_blocks[image], 1u) == (unsigned)splits - 1;
      __syncthreads();
      if (!is_last) continue;
      __threadfence();
      const uint64 bound = radix_select_key(own_bins, states + row, num, undecided.lowest,
                                            undecided.highest, (uint32)wanted[image]);
      if (threadIdx.x == 0) buffers.bounds[image] = bound;
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
      if (buffers.num_valid[image] == 0) {
      } else if (state < kScored) {
        const int64 truth = state < 0 ? ~state : state;
        const Offsets offsets =
            encode(load_box(anchor, a), truth_at(truths, truth, shape.label_width).box, options);
        target = make_float4(offsets.x, offsets.y, offsets.width, offsets.height);
        mask = make_float4(1, 1, 1, 1);
        cls = truths[truth * shape.label_width] + 1;
      } else if (!(options.mining_ratio > 0) ||
                 mining_key((uint32)(state - kScored), (int)a) < buffers.bounds[image]) {
        cls = 0;
      }
      reinterpret_cast<float4*>(loc_target)[image * num + a] = target;
      reinterpret_cast<float4*>(loc_mask)[image * num + a] = mask;
      cls_target[image * num + a] = cls;
    }
  }
}
#endif
