// Training targets of R-CNN: the options and the order of samples, which rpn_target and rcnn_target
// share, and the pass over all pairs of boxes and ground truths (truths), also of match_anchors.
#pragma once
#include "box_offsets.cuh"
#include "target.cuh"

namespace cvops {

// label_width: at least 5 (class, left, top, right, bottom). num_boxes: the anchors or proposals.
struct SampleShape {
  int num_images, num_boxes, num_truths, label_width;
};

// Samples of an image, positives among them at most, and the IoU thresholds of both sides.
struct SampleOptions {
  int num, most_positive;
  float positive_iou, negative_iou;
  EncodeScale scale;
};

// Order of samples: ascending noise. -0 equals 0. NaN comes after all numbers.
constexpr uint32 kNanNoise = 0xfffffffe;

CVOPS_HD uint32 noise_rank(float noise) {
  const uint32 bits = bits_of(noise + 0.0f);  // the addition turns -0 into 0
  return noise != noise ? kNanNoise : bits >> 31 ? ~bits : bits | 0x80000000u;
}

// Positive because of its best IoU.
CVOPS_HD bool is_positive(float iou, const SampleOptions& options) {
  return iou > 0 && iou >= options.positive_iou;
}

// True if a truth may have positives with an IoU below the threshold: `best` is its highest IoU.
CVOPS_HD bool needs_best(float best, const SampleOptions& options) {
  return best > 0 && !is_positive(best, options);
}

constexpr int kSampleThreads = CVOPS_STEP(128, 32);  // threads per block of a match
constexpr int kTruthsAtOnce = kSampleThreads;        // truths in its shared memory
constexpr int kMatchEach = 4;                        // boxes per thread

}  // namespace cvops

#ifdef __CUDACC__
namespace cvops {

// Some truths of an image in shared memory, and a float for each.
template <int kMost>
struct TruthsInShared {
  float4 boxes[kMost];
  float areas[kMost];
  float best[kMost];
  int count;

  __device__ SizedBox truth(int k) const {
    const float4 b = boxes[k];
    return {{b.x, b.y, b.z, b.w}, areas[k]};
  }

  // Loads up to kMost truths from number `begin` on, and returns their number. A row of class -1
  // ends the truths. All threads of the block call it.
  __device__ __forceinline__ int load(const float* label, int begin, int num_truths,
                                      int label_width) {
    const int most = min(num_truths - begin, kMost);
    __syncthreads();
    if (threadIdx.x == 0) count = most;
    __syncthreads();
    for (int k = threadIdx.x; k < most; k += blockDim.x) {
      const SizedBox truth = truth_at(label, begin + k, label_width);
      boxes[k] = make_float4(truth.box.x1, truth.box.y1, truth.box.x2, truth.box.y2);
      areas[k] = truth.area;
      best[k] = 0;
      if (label[(int64)(begin + k) * label_width] == -1) atomicMin(&count, k);
    }
    __syncthreads();
    return count;
  }

  // The same for all rows of `from` (num_truths, 4).
  __device__ __forceinline__ int load(const float* from, int begin, int num_truths) {
    const int most = min(num_truths - begin, kMost);
    __syncthreads();
    for (int k = threadIdx.x; k < most; k += blockDim.x) {
      const SizedBox truth = signed_size(load_box(from, begin + k));
      boxes[k] = make_float4(truth.box.x1, truth.box.y1, truth.box.x2, truth.box.y2);
      areas[k] = truth.area;
      best[k] = 0;
    }
    __syncthreads();
    return most;
  }
};

// Index of the first of the kMatchEach boxes of a thread; the others are 32 apart. The boxes of a
// warp are adjacent.
__device__ __forceinline__ int64 first_box() {
  const int warp = (int)threadIdx.x / 32;
  return ((int64)blockIdx.x * kSampleThreads + 32 * warp) * kMatchEach + (int)threadIdx.x % 32;
}

// kMatchEach boxes of a thread, and their best truths so far.
struct ThreadMatches {
  SizedBox boxes[kMatchEach];
  float iou[kMatchEach] = {};
  int truth[kMatchEach] = {};
};

// Compares the boxes of a warp, which are within `bounds`, with `count` truths from number `begin`
// on. on_top(k, top) gets the thread's highest IoU with each truth k that may overlap a box.
template <typename Truths, typename OnTop>
__device__ __forceinline__ void match_truths(ThreadMatches& own, Box bounds, const Truths& truths,
                                             int begin, int count, const OnTop& on_top) {
  for (int group = 0; group < count; group += 32) {
    const int k = group + lane_id();
    const bool may_touch = k < count && may_overlap(bounds, truths.truth(k).box);
    for (unsigned rest = __ballot_sync(kWarp, may_touch); rest; rest &= rest - 1) {
      const int next = group + __ffs(rest) - 1;
      const SizedBox box = truths.truth(next);
      float top = 0;
#pragma unroll
      for (int i = 0; i < kMatchEach; ++i) {
        const float found = quick_iou(own.boxes[i], box);
        own.truth[i] = found > own.iou[i] ? begin + next : own.truth[i];
        own.iou[i] = fmaxf(found, own.iou[i]);
        top = fmaxf(found, top);
      }
      on_top(next, top);
    }
  }
}

}  // namespace cvops
#endif
