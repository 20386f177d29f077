// rpn_target: training targets of the anchors of a region proposal network.
//
// - rpn_target_clear writes the results of anchors that are no samples.
// - rpn_target_match compares all anchors with all ground truths (truths). It keeps the best truth
//   of each anchor, and the best IoU of each truth.
// - rpn_target_label finds the positives and the negatives. A tile of anchors lists those with the
//   least noise of both: no more can become samples.
// - rpn_target_sample selects the samples of an image among those of its tiles, and writes them.
//
// The scratch memory per anchor and image is 8 bytes, and 8 bytes for each entry of a list.
#pragma once
#include "radix_select.cuh"
#include "sampling.cuh"

namespace cvops {

constexpr int kRpnTile = CVOPS_STEP(4096, 1024);  // anchors per block of rpn_target_label

// cls_target (B, A), box_target and box_mask (B, A, 4).
struct RpnOutputs {
  float *cls_target, *box_target, *box_mask;
};

// anchors (A, 4), labels (B, M, label_width), noise (B, A).
struct RpnInputs {
  const float *anchors, *labels, *noise;
};

// Scratch memory of the kernels. An image has `tiles` lists of each side. Their unused entries are
// kNoKey.
struct RpnBuffers {
  float* iou;                               // (B, A): the highest IoU of each anchor
  int* truth;                               // (B, A): its truth, the lowest of equal ones
  uint32* best;                             // (B, M): the bits of the highest IoU of each truth
  uint64 *positives, *negatives;            // (B, tiles, list length)
  int tiles, most_positive, most_negative;  // lengths of the lists
};

// Order of the samples of a side: ascending noise, ties by ascending anchor.
CVOPS_HD uint64 rpn_key(float noise, int anchor) {
  return (uint64)noise_rank(noise) << 32 | (uint32)anchor;
}

}  // namespace cvops

CVOPS_KERNEL rpn_target_clear(cvops::RpnOutputs out, cvops::uint32* best, cvops::int64 num_anchors,
                              cvops::int64 num_truths);
CVOPS_KERNEL rpn_target_match(cvops::RpnBuffers buffers, const float* anchors, const float* labels,
                              cvops::SampleShape shape);
CVOPS_KERNEL rpn_target_label(cvops::RpnInputs in, cvops::RpnBuffers buffers,
                              cvops::SampleShape shape, cvops::SampleOptions options);
CVOPS_KERNEL rpn_target_sample(cvops::RpnOutputs out, cvops::RpnInputs in,
                               cvops::RpnBuffers buffers, cvops::SampleShape shape,
                               cvops::SampleOptions options);

#ifdef __CUDACC__
namespace cvops {

// Writes the `most` lowest keys of a tile to `list`, and kNoKey to the rest of it.
template <typename KeyAt>
__device__ __forceinline__ void list_lowest(uint64* list, int most, const KeyAt& key_at, int num,
                                            RadixSelect& shared) {
  __shared__ int count;
  if (most == 0) return;
  write_topk(list, &count, key_at, num, most, shared);
  __syncthreads();
  for (int i = count + (int)threadIdx.x; i < most; i += (int)blockDim.x) list[i] = kNoKey;
  __syncthreads();
}

}  // namespace cvops

// All results: no sample; best (B, M): 0. num_anchors and num_truths: those of all images.
extern "C" __global__ void __launch_bounds__(256)
    rpn_target_clear(const cvops::RpnOutputs out, unsigned int* __restrict__ best,
                     long long num_anchors, long long num_truths) {
  using namespace cvops;
  wait_for_earlier_launches();
  const int64 threads = (int64)gridDim.x * blockDim.x;
  const int64 me = (int64)blockIdx.x * blockDim.x + threadIdx.x;
  for (int64 i = me; i < num_truths; i += threads) best[i] = 0;
  for (int64 i = me; i < num_anchors; i += threads) {
    out.cls_target[i] = -1;
    store_box(out.box_target, i, {0, 0, 0, 0});
    store_box(out.box_mask, i, {0, 0, 0, 0});
  }
}

// iou, truth and best of `buffers`; best is 0 before. A block has kMatchEach * kSampleThreads
// anchors. Grid (tiles, images).
extern "C" __global__ void __launch_bounds__(cvops::kSampleThreads, 7)
    rpn_target_match(const cvops::RpnBuffers buffers, const float* __restrict__ anchors,
                     const float* __restrict__ labels, const cvops::SampleShape shape) {
  using namespace cvops;
  wait_for_earlier_launches();
  __shared__ TruthsInShared<kTruthsAtOnce> truths;
  const int num = shape.num_boxes;
  const int64 first = first_box();
  ThreadMatches own;
  Box bounds = kEmptyBounds;
#pragma unroll
  for (int i = 0; i < kMatchEach; ++i) {
    const int64 a = first + 32 * i;
    own.boxes[i] = a < num ? signed_size(load_box(anchors, a)) : SizedBox{{0, 0, 0, 0}, 0};
    if (a < num) bounds = extended(bounds, own.boxes[i].box);
  }
  bounds = warp_bounds(bounds);
  for (int64 image = blockIdx.y; image < shape.num_images; image += gridDim.y) {
    const float* label = labels + image * shape.num_truths * shape.label_width;
#pragma unroll
    for (int i = 0; i < kMatchEach; ++i) own.iou[i] = 0, own.truth[i] = 0;
    int begin = 0, count;
    do {
      count = truths.load(label, begin, shape.num_truths, shape.label_width);
      match_truths(own, bounds, truths, begin, count, [&](int k, float top) {
        const uint32 bits = warp_max(bits_of(top));
        if (lane_id() == 0 && bits) atomicMax(reinterpret_cast<uint32*>(&truths.best[k]), bits);
      });
      __syncthreads();
      for (int k = threadIdx.x; k < count; k += blockDim.x) {
        const uint32 bits = bits_of(truths.best[k]);
        if (bits) atomicMax(&buffers.best[image * shape.num_truths + begin + k], bits);
      }
      begin += count;
    } while (count == kTruthsAtOnce && begin < shape.num_truths);
#pragma unroll
    for (int i = 0; i < kMatchEach; ++i) {
      const int64 a = first + 32 * i;
      if (a >= num) break;
      buffers.iou[image * num + a] = own.iou[i];
      buffers.truth[image * num + a] = own.truth[i];
    }
  }
}

// positives and negatives of `buffers`: the lists of the tile. Grid (tiles, images), kTopkThreads
// threads.
extern "C" __global__ void __launch_bounds__(1024, 1)
    rpn_target_label(const cvops::RpnInputs in, const cvops::RpnBuffers buffers,
                     const cvops::SampleShape shape, const cvops::SampleOptions options) {
  using namespace cvops;
  wait_for_earlier_launches();
  constexpr int kEach = kRpnTile / kTopkThreads, kTruths = CVOPS_STEP(128, 8);
  constexpr signed char kIgnored = 0, kPositive = 1, kNegative = 2;
  __shared__ TruthsInShared<kTruths> truths;
  __shared__ RadixSelect shared;
  __shared__ uint32 ranks[kRpnTile];
  __shared__ signed char states[kRpnTile];
  const int num = shape.num_boxes, begin = (int)blockIdx.x * kRpnTile;
  const int in_tile = min(num - begin, kRpnTile);
  for (int64 image = blockIdx.y; image < shape.num_images; image += gridDim.y) {
    const float* label = in.labels + image * shape.num_truths * shape.label_width;
    float iou[kEach];
    bool is_best[kEach];
#pragma unroll
    for (int k = 0; k < kEach; ++k) {
      const int i = k * kTopkThreads + (int)threadIdx.x;
      iou[k] = i < in_tile ? buffers.iou[image * num + begin + i] : 0.0f;
      is_best[k] = false;
    }
    for (int from = 0, count = kTruths; count == kTruths && from < shape.num_truths;) {
      count = truths.load(label, from, shape.num_truths, shape.label_width);
      for (int k = 0; k < count; ++k) {
        const float best = float_of(buffers.best[image * shape.num_truths + from + k]);
        if (!needs_best(best, options)) continue;
        const SizedBox box = truths.truth(k);
#pragma unroll
        for (int n = 0; n < kEach; ++n) {
          if (iou[n] < best) continue;
          const int64 a = begin + n * kTopkThreads + (int)threadIdx.x;
          is_best[n] |= quick_iou(signed_size(load_box(in.anchors, a)), box) == best;
        }
      }
      from += count;
    }
#pragma unroll
    for (int k = 0; k < kEach; ++k) {
      const int i = k * kTopkThreads + (int)threadIdx.x;
      if (i >= in_tile) break;
      ranks[i] = noise_rank(in.noise[image * num + begin + i]);
      states[i] = is_best[k] || is_positive(iou[k], options) ? kPositive
                  : iou[k] < options.negative_iou            ? kNegative
                                                             : kIgnored;
    }
    __syncthreads();
    const int64 tile = image * buffers.tiles + blockIdx.x;
    const auto key_of = [&](int i, signed char state) {
      return states[i] == state ? (uint64)ranks[i] << 32 | (uint32)(begin + i) : kNoKey;
    };
    list_lowest(
        buffers.positives + tile * buffers.most_positive, buffers.most_positive,
        [&](int i) { return key_of(i, kPositive); }, in_tile, shared);
    list_lowest(
        buffers.negatives + tile * buffers.most_negative, buffers.most_negative,
        [&](int i) { return key_of(i, kNegative); }, in_tile, shared);
    __syncthreads();
  }
}

// The results of the samples. Grid (images), kTopkThreads threads.
extern "C" __global__ void __launch_bounds__(1024, 1)
    rpn_target_sample(const cvops::RpnOutputs out, const cvops::RpnInputs in,
                      const cvops::RpnBuffers buffers, const cvops::SampleShape shape,
                      const cvops::SampleOptions options) {
  using namespace cvops;
  wait_for_earlier_launches();
  __shared__ RadixSelect shared;
  const int64 image = blockIdx.x, row = image * shape.num_boxes;
  const float* label = in.labels + image * shape.num_truths * shape.label_width;
  int num_positive = 0;
  if (buffers.most_positive > 0) {
    const int num = buffers.tiles * buffers.most_positive;
    const uint64* list = buffers.positives + image * num;
    const auto key_at = [&](int i) { return list[i]; };
    const uint64 bound = radix_select(key_at, num, options.most_positive, shared);
    num_positive = bound == kAllKeys ? shared.count : options.most_positive;
    __syncthreads();
    for (int i = threadIdx.x; i < num; i += kTopkThreads) {
      if (list[i] > bound) continue;
      const int64 a = index_of(list[i]), at = row + a;
      const SizedBox truth = truth_at(label, buffers.truth[at], shape.label_width);
      out.cls_target[at] = 1;
      store_box(out.box_target, at, encode_box(load_box(in.anchors, a), truth.box, options.scale));
      store_box(out.box_mask, at, {1, 1, 1, 1});
    }
  }
  const int num_negative = options.num - num_positive;
  if (num_negative > 0) {
    const int num = buffers.tiles * buffers.most_negative;
    const uint64* list = buffers.negatives + image * num;
    const auto key_at = [&](int i) { return list[i]; };
    const uint64 bound = radix_select(key_at, num, num_negative, shared);
    for (int i = threadIdx.x; i < num; i += kTopkThreads) {
      if (list[i] <= bound) out.cls_target[row + index_of(list[i])] = 0;
    }
  }
}
#endif
