// match_anchors: the matched ground truth (truth) of each anchor, without the matrix of IoUs.
//
// - match_anchors_clear prepares the numbers of each truth.
// - match_anchors_match compares all anchors with all truths.
// - match_anchors_search finds the anchors that have the highest IoU of a truth.
// - match_anchors_assign matches the best anchor of each truth to that truth.
//
// The options decide about all but the second. They need 4 bytes of scratch memory per anchor and 8
// per truth of each image.
#pragma once
#include "sampling.cuh"

namespace cvops {

// Matches of anchors without a truth: the highest IoU is below both thresholds, or between them.
constexpr int kBelowLow = -1, kBetween = -2;

struct MatchShape {
  int num_images, num_anchors, num_truths;
  int anchor_sets;  // num_images, or 1 for the same anchors in all images
};

struct MatchOptions {
  float high, low;
  // Match each anchor that has the highest IoU of a truth: to the truth with its own highest IoU,
  // and (only the first such anchor) to that truth.
  bool allow_low_quality, match_best;
};

// The match of an anchor by its highest IoU alone.
CVOPS_HD int match_of(float iou, int truth, const MatchShape& shape, const MatchOptions& options) {
  if (iou < options.low || shape.num_truths == 0) return kBelowLow;
  return iou < options.high ? kBetween : truth;
}

// True if the anchors with the highest IoU of a truth, `best`, can change a match.
CVOPS_HD bool needs_search(float best, const MatchOptions& options) {
  return best > 0 && (options.match_best || (options.allow_low_quality && best < options.high));
}

// Scratch memory of the kernels; null if no truth needs a search.
struct MatchBuffers {
  float* iou;     // (B, A): the highest IoU of each anchor
  uint32* best;   // (B, M): the bits of the highest IoU of each truth
  uint32* first;  // (B, M): ~anchor for the first anchor with that IoU, 0 for none
};

}  // namespace cvops

CVOPS_KERNEL match_anchors_clear(cvops::uint32* numbers, cvops::int64 num);
CVOPS_KERNEL match_anchors_match(int* out, cvops::MatchBuffers buffers, const float* anchors,
                                 const float* truths, cvops::MatchShape shape,
                                 cvops::MatchOptions options);
CVOPS_KERNEL match_anchors_search(int* out, cvops::MatchBuffers buffers, const float* anchors,
                                  const float* truths, cvops::MatchShape shape,
                                  cvops::MatchOptions options);
CVOPS_KERNEL match_anchors_assign(int* out, const cvops::uint32* first, cvops::MatchShape shape);

#ifdef __CUDACC__
namespace cvops {

// The anchors of image number `image`.
__device__ __forceinline__ const float* anchors_of(const float* anchors, int64 image,
                                                   const MatchShape& shape) {
  return shape.anchor_sets == 1 ? anchors : anchors + 4 * image * shape.num_anchors;
}

}  // namespace cvops

// numbers (num) = 0.
extern "C" __global__ void __launch_bounds__(256)
    match_anchors_clear(unsigned int* __restrict__ numbers, long long num) {
  using namespace cvops;
  wait_for_earlier_launches();
  const int64 threads = (int64)gridDim.x * blockDim.x;
  for (int64 i = blockIdx.x * (int64)blockDim.x + threadIdx.x; i < num; i += threads) {
    numbers[i] = 0;
  }
}

// out (B, A): the matches if `buffers` is null; else the truth with the highest IoU of each anchor,
// and iou and best of `buffers`. best is 0 before. A block has kMatchEach * kSampleThreads anchors.
// Grid (tiles, images).
extern "C" __global__ void __launch_bounds__(cvops::kSampleThreads, 7)
    match_anchors_match(int* __restrict__ out, const cvops::MatchBuffers buffers,
                        const float* __restrict__ anchors, const float* __restrict__ truths,
                        const cvops::MatchShape shape, const cvops::MatchOptions options) {
  using namespace cvops;
  wait_for_earlier_launches();
  __shared__ TruthsInShared<kTruthsAtOnce> some;
  const int num = shape.num_anchors;
  const int64 first = first_box();
  for (int64 image = blockIdx.y; image < shape.num_images; image += gridDim.y) {
    const float* from = anchors_of(anchors, image, shape);
    const int64 row = image * shape.num_truths;
    ThreadMatches own;
    Box bounds = kEmptyBounds;
#pragma unroll
    for (int i = 0; i < kMatchEach; ++i) {
      const int64 a = first + 32 * i;
      own.boxes[i] = a < num ? signed_size(load_box(from, a)) : SizedBox{{0, 0, 0, 0}, 0};
      if (a < num) bounds = extended(bounds, own.boxes[i].box);
    }
    bounds = warp_bounds(bounds);
    for (int begin = 0; begin < shape.num_truths; begin += kTruthsAtOnce) {
      const int count = some.load(truths + 4 * row, begin, shape.num_truths);
      match_truths(own, bounds, some, begin, count, [&](int k, float top) {
        if (!buffers.best) return;
        const uint32 bits = warp_max(bits_of(top));
        if (lane_id() == 0 && bits) atomicMax(reinterpret_cast<uint32*>(&some.best[k]), bits);
      });
      if (!buffers.best) continue;
      __syncthreads();
      for (int k = threadIdx.x; k < count; k += blockDim.x) {
        const uint32 bits = bits_of(some.best[k]);
        if (bits) atomicMax(&buffers.best[row + begin + k], bits);
      }
    }
#pragma unroll
    for (int i = 0; i < kMatchEach; ++i) {
      const int64 a = first + 32 * i;
      if (a >= num) break;
      const int64 at = image * num + a;
      if (buffers.iou) buffers.iou[at] = own.iou[i];
      out[at] = buffers.iou ? own.truth[i] : match_of(own.iou[i], own.truth[i], shape, options);
    }
  }
}

// out (B, A): the matches without the last option, from the truths with the highest IoUs; first of
// `buffers`, which is 0 before. Threads and grid as above.
extern "C" __global__ void __launch_bounds__(cvops::kSampleThreads, 7)
    match_anchors_search(int* __restrict__ out, const cvops::MatchBuffers buffers,
                         const float* __restrict__ anchors, const float* __restrict__ truths,
                         const cvops::MatchShape shape, const cvops::MatchOptions options) {
  using namespace cvops;
  wait_for_earlier_launches();
  __shared__ TruthsInShared<kTruthsAtOnce> some;
  const int num = shape.num_anchors;
  const int64 first = first_box();
  for (int64 image = blockIdx.y; image < shape.num_images; image += gridDim.y) {
    const float* from = anchors_of(anchors, image, shape);
    const int64 row = image * shape.num_truths;
    float iou[kMatchEach], most = 0;
    bool is_best[kMatchEach];
#pragma unroll
    for (int i = 0; i < kMatchEach; ++i) {
      const int64 a = first + 32 * i;
      iou[i] = a < num ? buffers.iou[image * num + a] : 0.0f;
      most = fmaxf(iou[i], most);
      is_best[i] = false;
    }
    for (int begin = 0; begin < shape.num_truths; begin += kTruthsAtOnce) {
      const int count = some.load(truths + 4 * row, begin, shape.num_truths);
      for (int k = 0; k < count; ++k) {
        const float best = float_of(buffers.best[row + begin + k]);
        if (most < best || !needs_search(best, options)) continue;
#pragma unroll
        for (int i = 0; i < kMatchEach; ++i) {
          const int64 a = first + 32 * i;
          if (iou[i] < best) continue;
          if (quick_iou(signed_size(load_box(from, a)), some.truth(k)) != best) continue;
          is_best[i] = true;
          if (options.match_best) atomicMax(&buffers.first[row + begin + k], ~(uint32)a);
        }
      }
    }
#pragma unroll
    for (int i = 0; i < kMatchEach; ++i) {
      const int64 a = first + 32 * i;
      if (a >= num) break;
      int* const match = out + image * num + a;
      if (options.allow_low_quality && is_best[i]) continue;
      *match = match_of(iou[i], *match, shape, options);
    }
  }
}

// out (B, A): the first anchor with the highest IoU of each truth gets that truth, and the last of
// several such truths. Grid (images).
extern "C" __global__ void __launch_bounds__(1024, 1)
    match_anchors_assign(int* __restrict__ out, const unsigned int* __restrict__ first,
                         const cvops::MatchShape shape) {
  using namespace cvops;
  wait_for_earlier_launches();
  const int64 image = blockIdx.x;
  int* const matches = out + image * shape.num_anchors;
  const uint32* const anchors = first + image * shape.num_truths;
  // A number below both constants, and the lower the later truth.
  const auto claim = [](int k) { return kBetween - 1 - k; };
  for (int k = threadIdx.x; k < shape.num_truths; k += blockDim.x) {
    if (anchors[k]) atomicMin(&matches[~anchors[k]], claim(k));
  }
  __syncthreads();
  for (int k = threadIdx.x; k < shape.num_truths; k += blockDim.x) {
    if (anchors[k]) atomicCAS(&matches[~anchors[k]], claim(k), k);
  }
}
#endif
