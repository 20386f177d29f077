// Comparison of a kept box with several other ones, by bounds of the rule that need no division.
#pragma once
#include "box.cuh"
#include "nms_form.h"
#include "result_pool.h"
#include "simd.h"

namespace cvops::cpu {

// Adjacent boxes.
struct BoxBlock {
  static constexpr int kSize = kUsualWidth;

  alignas(4 * kSize) float x1[kSize];
  float y1[kSize], x2[kSize], y2[kSize], area[kSize];

  CVOPS_INLINE void put(uint32 k, const SizedBox& b) {
    x1[k] = b.box.x1, y1[k] = b.box.y1, x2[k] = b.box.x2, y2[k] = b.box.y2, area[k] = b.area;
  }
  CVOPS_INLINE SizedBox at(uint32 k) const { return {{x1[k], y1[k], x2[k], y2[k]}, area[k]}; }
};

// Boxes per vector step of BoxArrays.
constexpr int kStep = 16;

// Boxes in arrays. The last kStep ones are for the lanes of the last step.
struct BoxArrays {
  const int64 capacity;
  const PooledScratch<float> floats;
  float *const x1 = array(0), *const y1 = array(1), *const x2 = array(2), *const y2 = array(3),
               *const area = array(4);

  explicit BoxArrays(int64 num)
      : capacity(num + kStep), floats(pooled_scratch<float>(5 * capacity)) {}

  float* array(int i) const { return floats.get() + i * capacity; }

  CVOPS_INLINE void put(int64 i, const SizedBox& b) const {
    x1[i] = b.box.x1, y1[i] = b.box.y1, x2[i] = b.box.x2, y2[i] = b.box.y2, area[i] = b.area;
  }
  CVOPS_INLINE SizedBox at(int64 i) const { return {{x1[i], y1[i], x2[i], y2[i]}, area[i]}; }

  // Makes kStep boxes overlap nothing: also in pixels, where a point is one.
  CVOPS_INLINE void clear_step(int64 first) const {
    for (int k = 0; k < kStep; ++k) put(first + k, {{2, 2, -2, -2}, 1});
  }
};

// An overlap above `high` times the union exceeds the threshold, and one that is not above `low`
// times the union does not. The factors cover the rounding. For thresholds in a range, and for
// boxes without a place in kOverflowCell.
struct RuleBounds {
  const float low, high;
  const float zero = 0;  // unknown to the compiler, which would not use a maximum for a constant

  explicit RuleBounds(NmsRule rule)
      : low(rule.threshold * 0.999999f), high(rule.threshold * 1.000001f) {}

  static bool suit(NmsRule rule) { return rule.threshold >= 0.001f && rule.threshold <= 1000; }
};

// The bounds show that a box suppresses another one, or they do not decide it.
struct Verdict {
  int surely, unsure;
};

// The overlap of two boxes, or a number of 0 or less if there is none.
template <Form kForm>
CVOPS_INLINE float overlap_or_less(const SizedBox& a, const SizedBox& b, const RuleBounds& bounds) {
  float width = smaller(a.box.x2, b.box.x2) - larger(a.box.x1, b.box.x1);
  float height = smaller(a.box.y2, b.box.y2) - larger(a.box.y1, b.box.y1);
  if (kForm == Form::pixels) width += 1.0f, height += 1.0f;
  return larger(width, bounds.zero) * height;
}

// sized() without branches, for boxes whose sides are above 0.
template <Form kForm>
CVOPS_INLINE SizedBox sized_in_lane(float x1, float y1, float x2, float y2) {
  if (kForm != Form::center) return {{x1, y1, x2, y2}, (x2 - x1) * (y2 - y1)};
  const float half_width = x2 / 2, half_height = y2 / 2;
  return {{x1 - half_width, y1 - half_height, x1 + half_width, y1 + half_height}, x2 * y2};
}

// Compares the boxes by the bounds.
template <Form kForm>
CVOPS_INLINE Verdict compare(const SizedBox& kept, const SizedBox& other,
                             const RuleBounds& bounds) {
  const float overlap = overlap_or_less<kForm>(kept, other, bounds);
  const float all = kept.area + other.area - overlap;
  const int surely = overlap > bounds.high * all, maybe = overlap > bounds.low * all;
  return {surely, surely ^ maybe};
}

// Compares the boxes by the rule itself.
template <Form kForm>
CVOPS_INLINE bool suppresses_by_rule(const SizedBox& kept, const SizedBox& other, NmsRule rule) {
  rule.center = kForm == Form::center, rule.pixels = kForm == Form::pixels;
  return suppresses(kept, other, rule);
}

// False if the lower bound shows that neither of two boxes suppresses the other one.
template <Form kForm>
CVOPS_INLINE int may_suppress(const SizedBox& a, const SizedBox& b, const RuleBounds& bounds) {
  const float overlap = overlap_or_less<kForm>(a, b, bounds);
  return overlap > bounds.low * (a.area + b.area - overlap);
}

// True if one of the numbers is not 0.
template <int kNum>
CVOPS_INLINE bool any(const int (&numbers)[kNum]) {
  uint64 words[kNum / 2], all = 0;
  __builtin_memcpy(words, numbers, sizeof words);
  for (uint64 word : words) all |= word;
  return all;
}

}  // namespace cvops::cpu
