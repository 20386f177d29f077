// A box during suppression, and the bounds of the boxes of a block: cheap tests that never
// contradict the rule.
#pragma once
#include "nms/rule.cuh"
#include "nms/spatial_order.cuh"
#include "warp.cuh"

namespace cvops {

constexpr int kNmsChunk = 2048;  // maximum number of boxes; a multiple of 256
constexpr int kNmsTile = 256;    // boxes per block that are compared with kept boxes
constexpr int kNmsThreads = 512;

}  // namespace cvops

#ifdef __CUDACC__
namespace cvops {

// A box during suppression. If the overlap of two boxes is below the sum of their `min_overlap`,
// neither suppresses the other.
struct alignas(16) Candidate {
  Box box;
  float area, min_overlap;
  int of_class;
};

// True if boxes that do not touch cannot suppress each other.
__device__ __forceinline__ bool nms_needs_overlap(const NmsRule& rule) {
  return rule.threshold > 1e-30f;
}

// Half of a lower bound of the overlap: iou > t implies overlap > t / (1 + t) * (sum of areas). The
// factor 0.9999 covers the rounding errors; 1e-36 covers those of numbers near 0. The result is NaN
// if boxes that do not touch can suppress each other. Every comparison then passes.
__device__ __forceinline__ float nms_min_overlap(float area, const NmsRule& rule) {
  const float t = rule.threshold;
  return nms_needs_overlap(rule) ? t / (1 + t) * 0.9999f * area - 1e-36f
                                 : __uint_as_float(0x7fffffff);
}

// Length of a side beyond the distance of its corners.
__device__ __forceinline__ float nms_pixel(const NmsRule& rule) { return rule.pixels ? 1.0f : 0; }

__device__ __forceinline__ Candidate nms_candidate(const SizedBox& b, int of_class,
                                                   const NmsRule& rule) {
  return {b.box, b.area, nms_min_overlap(b.area, rule), rule.by_class ? of_class : 0};
}

// One batch row.
struct NmsRow {
  const float *boxes, *areas;
  const int* classes;
  const uint64* order;
  int count;

  __device__ __forceinline__ Candidate candidate(int i, const NmsRule& rule) const {
    return nms_candidate({load_box(boxes, i), areas[i]}, rule.by_class ? classes[i] : 0, rule);
  }
};

// False if suppresses() is certainly false. A NaN can only enlarge the overlap here: fminf and
// fmaxf return the number. `pixel` is the length that a side has beyond its corners.
__device__ __forceinline__ bool may_suppress(const Candidate& kept, const Candidate& other,
                                             float pixel) {
  const float width = fminf(kept.box.x2, other.box.x2) - fmaxf(kept.box.x1, other.box.x1) + pixel;
  const float height = fminf(kept.box.y2, other.box.y2) - fmaxf(kept.box.y1, other.box.y1) + pixel;
  return !(width * fmaxf(height, 0.0f) < kept.min_overlap + other.min_overlap);
}

// may_suppress() of any of four kept boxes at distance kStep, with one branch.
template <int kStep>
__device__ __forceinline__ bool any_may_suppress(const Candidate* kept, const Candidate& other,
                                                 float pixel) {
  bool any = false;
#pragma unroll
  for (int k = 0; k < 4; ++k) any |= may_suppress(kept[kStep * k], other, pixel);
  return any;
}

__device__ __forceinline__ bool suppresses(const Candidate& kept, const Candidate& other,
                                           const NmsRule& rule) {
  return kept.of_class == other.of_class &&
         suppresses(SizedBox{kept.box, kept.area}, SizedBox{other.box, other.area}, rule);
}

// Bits of the boxes that suppress `box`, among the first `num_before` of 32; at least one.
// `classes` has their classes, which are read only with rule.by_class. A group of four may extend
// beyond the last box.
__device__ __forceinline__ uint32 suppressors(const Candidate* before, const int4* classes,
                                              int num_before, const Candidate& box,
                                              const NmsRule& rule, float pixel) {
  uint32 bits = 0;
  if (rule.by_class) {
    uint32 same = 0;
#pragma unroll
    for (int k = 0; k < 8; ++k) {
      const int4 four = classes[k];
      same |= ((uint32)(four.x == box.of_class) | (uint32)(four.y == box.of_class) << 1 |
               (uint32)(four.z == box.of_class) << 2 | (uint32)(four.w == box.of_class) << 3)
              << 4 * k;
    }
    same &= ~0u >> (32 - num_before);
    for (; same; same &= same - 1) {
      const int k = __ffs(same) - 1;
      const Candidate& other = before[k];
      if (may_suppress(other, box, pixel) && suppresses(other, box, rule)) bits |= 1u << k;
    }
  } else {
    for (int k = 0; k < num_before; k += 4) {
      if (!any_may_suppress<1>(before + k, box, pixel)) continue;
#pragma unroll 1
      for (int i = k; i < min(k + 4, num_before); ++i) {
        if (suppresses(before[i], box, rule)) bits |= 1u << i;
      }
    }
  }
  return bits;
}

// Racy read on purpose: other blocks may set bits. A missed bit costs comparisons only.
__device__ __forceinline__ bool is_suppressed(const uint32* suppressed, int i) {
  return __ldcv(suppressed + i / 32) >> (i % 32) & 1;
}

// Bounding box and class range of the boxes of a block. It can be larger than necessary.
struct Bounds {
  Box box;
  int lowest, highest;  // range of classes
};

__device__ __forceinline__ float nms_infinity() { return __uint_as_float(0x7f800000); }  // infinity

__device__ __forceinline__ Bounds empty_bounds() {
  const float infinity = nms_infinity();
  return {{infinity, infinity, -infinity, -infinity}, 0x7fffffff, -0x7fffffff - 1};
}

// Bounds extended by one box. A box with NaN extends them to infinity. So does every box if boxes
// that do not touch can suppress each other.
__device__ __forceinline__ Bounds extended(const Bounds& bounds, const Candidate& c,
                                           const NmsRule& rule) {
  const Box b = c.box;
  const bool ordered = b.x1 == b.x1 && b.y1 == b.y1 && b.x2 == b.x2 && b.y2 == b.y2;
  const bool near = ordered && nms_needs_overlap(rule);
  const float infinity = nms_infinity(), pixel = nms_pixel(rule);
  const float right = b.x2 + pixel, bottom = b.y2 + pixel;
  return {
      {near ? fminf(bounds.box.x1, b.x1) : -infinity, near ? fminf(bounds.box.y1, b.y1) : -infinity,
       near ? fmaxf(bounds.box.x2, right) : infinity,
       near ? fmaxf(bounds.box.y2, bottom) : infinity},
      min(bounds.lowest, c.of_class),
      max(bounds.highest, c.of_class)};
}

// False if `kept` certainly suppresses no box within the bounds. Comparisons with NaN pass.
__device__ __forceinline__ bool may_reach(const Candidate& kept, const Bounds& bounds,
                                          float pixel) {
  const Box b = kept.box;
  return !(b.x1 > bounds.box.x2 || b.x2 + pixel < bounds.box.x1 || b.y1 > bounds.box.y2 ||
           b.y2 + pixel < bounds.box.y1) &&
         kept.of_class >= bounds.lowest && kept.of_class <= bounds.highest;
}

// Union of the bounds of the first kNmsTile threads, returned to all threads. `shared` has one
// element per warp.
__device__ __forceinline__ Bounds bounds_of_tile(Bounds bounds, Bounds* shared) {
  for (int d = 16; d > 0; d /= 2) {
    bounds.box.x1 = fminf(bounds.box.x1, __shfl_xor_sync(kWarp, bounds.box.x1, d));
    bounds.box.y1 = fminf(bounds.box.y1, __shfl_xor_sync(kWarp, bounds.box.y1, d));
    bounds.box.x2 = fmaxf(bounds.box.x2, __shfl_xor_sync(kWarp, bounds.box.x2, d));
    bounds.box.y2 = fmaxf(bounds.box.y2, __shfl_xor_sync(kWarp, bounds.box.y2, d));
    bounds.lowest = min(bounds.lowest, __shfl_xor_sync(kWarp, bounds.lowest, d));
    bounds.highest = max(bounds.highest, __shfl_xor_sync(kWarp, bounds.highest, d));
  }
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = bounds;
  __syncthreads();
  for (int w = 0; w < kNmsTile / 32; ++w) {
    const Bounds& other = shared[w];
    bounds.box = {fminf(bounds.box.x1, other.box.x1), fminf(bounds.box.y1, other.box.y1),
                  fmaxf(bounds.box.x2, other.box.x2), fmaxf(bounds.box.y2, other.box.y2)};
    bounds.lowest = min(bounds.lowest, other.lowest);
    bounds.highest = max(bounds.highest, other.highest);
  }
  return bounds;
}

}  // namespace cvops
#endif
