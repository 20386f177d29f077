// rcnn_target: training targets of proposals.
//
// - rcnn_target_match compares all candidates (the proposals, then the ground truths) with all
//   ground truths (truths), and writes a key for each candidate.
// - sort_* sort the keys of each image: the positives, the negatives, then the other boxes.
// - rcnn_target_write writes the samples, which are the first keys of both sides.
#pragma once
#include "sampling.cuh"

namespace cvops {

// rois (B, n, 4), cls_target and matches (B, n), box_target and box_mask (B, n, 4).
struct RcnnOutputs {
  float *rois, *cls_target, *matches, *box_target, *box_mask;
};

// proposals (B, N, 4), labels (B, M, label_width), noise (B, N + M).
struct RcnnInputs {
  const float *proposals, *labels, *noise;
};

// A key has the side in its highest bit, 0 for positives, then the noise_rank, then the index of
// the box. Keys of boxes that are no candidates have a rank above all others.
constexpr int kRcnnIndexBits = 31;

CVOPS_HD uint64 rcnn_key(bool positive, uint32 rank, int index) {
  return (uint64)!positive << 63 | (uint64)rank << kRcnnIndexBits | (uint32)index;
}

CVOPS_HD uint64 first_negative_key() { return rcnn_key(false, 0, 0); }
CVOPS_HD uint64 first_other_key() { return rcnn_key(false, 0xffffffff, 0); }
CVOPS_HD int box_of_key(uint64 key) { return (int)(key & ((1u << kRcnnIndexBits) - 1)); }

// Boxes without a positive width and height are no candidates. NaN fails both comparisons.
CVOPS_HD bool is_candidate(Box b) { return b.x2 > b.x1 && b.y2 > b.y1; }

// Numbers of boxes of an image: positives, candidates, proposals.
struct RcnnCounts {
  int positives, candidates, proposals;
};

// Position of sample `row` in the sorted keys of an image; -1 without any box. Positives come
// first. The negatives follow, again and again if they are few. Without a negative the positives
// fill all rows, and without a candidate the proposals do.
CVOPS_HD int sample_position(int row, RcnnCounts counts, const SampleOptions& options) {
  if (counts.candidates == 0) return counts.proposals > 0 ? row % counts.proposals : -1;
  const int negatives = counts.candidates - counts.positives;
  if (negatives == 0) return row % counts.positives;
  const int positives =
      counts.positives < options.most_positive ? counts.positives : options.most_positive;
  return row < positives ? row : counts.positives + (row - positives) % negatives;
}

// The results of one sample.
struct RcnnSample {
  Box roi;
  float cls_target, match;
  Box box_target, box_mask;
};

// Sample of a box; `truth` is the index of its ground truth, or -1 for a negative.
CVOPS_HD RcnnSample rcnn_sample(Box roi, int truth, const float* label, int label_width,
                                const SampleOptions& options) {
  if (truth < 0) return {roi, 0, -1, {0, 0, 0, 0}, {0, 0, 0, 0}};
  const Box box = truth_at(label, truth, label_width).box;
  return {roi,
          label[(int64)truth * label_width] + 1,
          (float)truth,
          encode_box(roi, box, options.scale),
          {1, 1, 1, 1}};
}

CVOPS_HD void store_sample(const RcnnOutputs& out, int64 row, const RcnnSample& sample) {
  store_box(out.rois, row, sample.roi);
  out.cls_target[row] = sample.cls_target;
  out.matches[row] = sample.match;
  store_box(out.box_target, row, sample.box_target);
  store_box(out.box_mask, row, sample.box_mask);
}

}  // namespace cvops

CVOPS_KERNEL rcnn_target_match(cvops::uint64* keys, int* truth, int* counts, cvops::RcnnInputs in,
                               cvops::SampleShape shape, cvops::SampleOptions options);
CVOPS_KERNEL rcnn_target_write(cvops::RcnnOutputs out, cvops::RcnnInputs in,
                               const cvops::uint64* keys, const int* truth,
                               cvops::SampleShape shape, cvops::SampleOptions options);

#ifdef __CUDACC__
namespace cvops {

// Box i of an image: a proposal or a ground truth.
__device__ __forceinline__ Box box_of(const RcnnInputs& in, const float* label, int64 image,
                                      int64 i, const SampleShape& shape) {
  if (i < shape.num_boxes) return load_box(in.proposals, image * shape.num_boxes + i);
  return truth_at(label, i - shape.num_boxes, shape.label_width).box;
}

// Number of sorted keys below `key`.
__device__ __forceinline__ int keys_below(const uint64* keys, int num, uint64 key) {
  int first = 0;
  for (int end = num; first < end;) {
    const int middle = first + (end - first) / 2;
    if (keys[middle] < key) {
      first = middle + 1;
    } else {
      end = middle;
    }
  }
  return first;
}

}  // namespace cvops

// keys and truth (B, N + M): the key and the best ground truth of each box; counts (B): N + M. A
// block has kMatchEach * kSampleThreads boxes. Grid (tiles, images).
extern "C" __global__ void __launch_bounds__(cvops::kSampleThreads, 7)
    rcnn_target_match(unsigned long long* __restrict__ keys, int* __restrict__ truth,
                      int* __restrict__ counts, const cvops::RcnnInputs in,
                      const cvops::SampleShape shape, const cvops::SampleOptions options) {
  using namespace cvops;
  wait_for_earlier_launches();
  __shared__ TruthsInShared<kTruthsAtOnce> truths;
  const int num = shape.num_boxes + shape.num_truths;
  const int64 first = first_box();
  for (int64 image = blockIdx.y; image < shape.num_images; image += gridDim.y) {
    const float* label = in.labels + image * shape.num_truths * shape.label_width;
    ThreadMatches own;
    Box bounds = kEmptyBounds;
#pragma unroll
    for (int i = 0; i < kMatchEach; ++i) {
      const int64 a = first + 32 * i;
      own.boxes[i] = {{0, 0, 0, 0}, 0};
      if (a >= num) continue;
      own.boxes[i] = signed_size(box_of(in, label, image, a, shape));
      bounds = extended(bounds, own.boxes[i].box);
    }
    bounds = warp_bounds(bounds);
    int begin = 0, count;
    do {
      count = truths.load(label, begin, shape.num_truths, shape.label_width);
      match_truths(own, bounds, truths, begin, count, [](int, float) {});
      begin += count;
    } while (count == kTruthsAtOnce && begin < shape.num_truths);
#pragma unroll
    for (int i = 0; i < kMatchEach; ++i) {
      const int64 a = first + 32 * i;
      if (a >= num) break;
      const int64 row = image * num + a;
      const bool known = a < shape.num_boxes + begin && is_candidate(own.boxes[i].box);
      const uint32 rank = known ? noise_rank(in.noise[row]) : 0xffffffff;
      keys[row] = rcnn_key(known && is_positive(own.iou[i], options), rank, (int)a);
      truth[row] = own.truth[i];
    }
    if (blockIdx.x == 0 && threadIdx.x == 0) counts[image] = num;
  }
}

// The results, from the sorted keys. A thread has one sample. Grid (tiles, images).
extern "C" __global__ void __launch_bounds__(128, 8)
    rcnn_target_write(const cvops::RcnnOutputs out, const cvops::RcnnInputs in,
                      const unsigned long long* __restrict__ keys, const int* __restrict__ truth,
                      const cvops::SampleShape shape, const cvops::SampleOptions options) {
  using namespace cvops;
  wait_for_earlier_launches();
  __shared__ RcnnCounts counts;
  const int num = shape.num_boxes + shape.num_truths;
  const int64 sample = (int64)blockIdx.x * blockDim.x + threadIdx.x;
  for (int64 image = blockIdx.y; image < shape.num_images; image += gridDim.y) {
    const float* label = in.labels + image * shape.num_truths * shape.label_width;
    const uint64* sorted = keys + image * num;
    __syncthreads();
    if (threadIdx.x == 0) {
      counts = {keys_below(sorted, num, first_negative_key()),
                keys_below(sorted, num, first_other_key()), shape.num_boxes};
    }
    __syncthreads();
    if (sample >= options.num) continue;
    const int position = sample_position((int)sample, counts, options);
    Box roi = {0, 0, 0, 0};
    int match = -1;
    if (position >= 0) {
      const int box = box_of_key(sorted[position]);
      roi = box_of(in, label, image, box, shape);
      if (position < counts.positives) match = truth[image * num + box];
    }
    store_sample(out, image * options.num + sample,
                 rcnn_sample(roi, match, label, shape.label_width, options));
  }
}
#endif
