// Training targets: the buffers, states and formulas that the kernels of multibox_target.cuh,
// target_assignment.cuh and mining.cuh share. The targets of R-CNN (sampling.cuh) share the IoU.
#pragma once
#include "box.cuh"
#include "warp.cuh"

namespace cvops {

struct TargetShape {
  int num_images, num_anchors, num_truths, label_width, num_classes;
};

struct TargetOptions {
  float overlap_threshold, ignore_label, mining_ratio, mining_threshold;
  float variance_x, variance_y, variance_width, variance_height;
};

// Number of positive anchors, and of candidates for mining.
struct alignas(8) AnchorCounts {
  int positive, candidates;
};

// Scratch memory of the kernels. The anchors of an image are divided into `num_splits` splits.
struct TargetBuffers {
  int* states;           // (B, row_length): see kScored
  uint64* keys;          // (B, num_splits, G): the best pair_key of each truth per split
  AnchorCounts* counts;  // (B, num_splits)
  int* num_valid;        // (B): number of truths before the first row of class -1
  int num_splits;
  // With mining only:
  int* wanted;                     // (B): negatives to mine; 0 if none or all candidates
  uint64* bounds;                  // (B): candidates with a lower mining_key are negatives
  uint32* scores;                  // (B, row_length): approximate scores
  uint32 *bins, *finished_blocks;  // (B, kDigitBins); (B): finished blocks of refine
};

// Length of a row of `states` and `scores`: each row is aligned to 16 bytes.
CVOPS_HD int64 row_length(int num_anchors) { return ((int64)num_anchors + 3) / 4 * 4; }

// Mining score of an anchor that is no candidate, of a candidate without a score, and of a NaN
// probability. Other scores are the bits of a probability.
constexpr uint32 kNoCandidate = 0x3fffffff, kUnscored = kNoCandidate - 1;
constexpr uint32 kUnordered = kNoCandidate - 2;

// The state of an anchor is one of these:
//
// - the index of the truth that the anchor matches, if their IoU makes it positive;
// - kScored + the mining score of another anchor;
// - ~truth (negative) if the assignment gave the anchor to that truth.
constexpr int kScored = kNoCandidate + 1;

// Number of negatives to mine.
CVOPS_HD int mining_count(int num_positive, int num_anchors, float ratio) {
  float wanted = (float)num_positive * ratio;
  int limit = num_anchors - num_positive;
  if (!(wanted >= 1)) return 0;
  return wanted < 2147483648.0f && (int)wanted < limit ? (int)wanted : limit;
}

// Order of the candidates: ascending scores, ties by ascending anchor.
CVOPS_HD uint64 mining_key(uint32 score, int anchor) {
  return (uint64)score << 32 | (uint32)anchor;
}

constexpr int kDigitBins = 2048;  // bins of the histogram of a digit of the scores

// The area without a clamp: negative if one axis is inverted, positive if both are.
CVOPS_HD SizedBox signed_size(Box b) { return {b, signed_area(b)}; }

// Row k of the labels of an image: class, left, top, right, bottom.
CVOPS_HD SizedBox truth_at(const float* label, int64 k, int label_width) {
  const float* row = label + k * label_width;
  return signed_size({row[1], row[2], row[3], row[4]});
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

// An anchor is assigned to a truth only if their IoU is greater.
constexpr float kMinIou = 1e-6f;

// Key of a pair for the maximum per truth: the greater IoU, then the lower anchor. 0 means none.
CVOPS_HD uint64 pair_key(float iou, int anchor) {
  return iou > kMinIou ? (uint64)bits_of(iou) << 32 | (uint32)~anchor : 0;
}

CVOPS_HD int anchor_of(uint64 key) { return (int)~(uint32)key; }

}  // namespace cvops

#ifdef __CUDACC__
namespace cvops {

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

// Union of the bounding boxes of a warp.
__device__ __forceinline__ Box warp_bounds(Box b) {
  return {-warp_max(-b.x1), -warp_max(-b.y1), warp_max(b.x2), warp_max(b.y2)};
}

__device__ __forceinline__ void clear_bins(uint32* bins) {
  for (int i = threadIdx.x; i < kDigitBins; i += blockDim.x) bins[i] = 0;
}

}  // namespace cvops
#endif
