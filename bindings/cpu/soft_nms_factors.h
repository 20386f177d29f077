// Several factors of Soft-NMS together, with the bits of soft_nms_factor.
#pragma once
#include <algorithm>
#include <cmath>

#include "min_overlap.h"
#include "simd.h"
#include "soft_nms.cuh"

namespace cvops::cpu {

// The overlap up to which a factor is 1: exp(-2^-25) rounds to 1. Boxes without an overlap lower no
// score.
inline MinOverlap min_lowering_overlap(const SoftNms& op) {
  return MinOverlap(op.gaussian ? std::sqrt(0x1p-25f * op.sigma) : std::max(0.0f, op.threshold));
}

// exp with the bits of exp_of, for x in [-2^-5, 0]. A test compares all these floats, and those of
// exp_of_negative.
CVOPS_INLINE float exp_of_small(float x) {
  const double r = x, r2 = r * r;
  const double high = (1.0 / 24 + r * (1.0 / 120)) + r2 * (1.0 / 720);
  return (float)((1.0 + r) + ((0.5 + r * (1.0 / 6)) + r2 * high) * r2);
}

// exp with the bits of exp_of, for x <= 0. Most calls compute few factors, which cannot hide the
// latency of a chain of 24 operations: a tree adds the terms.
CVOPS_INLINE float exp_of_negative(float x) {
  const double clamped = x < -110.0f ? -110.0 : (double)x;
  constexpr double kShift = 6755399441055744.0;  // see exp_of
  const double shifted = clamped * 1.4426950408889634 + kShift, n = shifted - kShift;
  const double r = (clamped - n * kLn2High) - n * kLn2Low, r2 = r * r, r4 = r2 * r2;
  const double from_0 = (1.0 + r) + (0.5 + r * (1.0 / 6)) * r2;
  const double from_4 = (1.0 / 24 + r * (1.0 / 120)) + (1.0 / 720 + r * (1.0 / 5040)) * r2;
  const double from_8 =
      ((1.0 / 40320 + r * (1.0 / 362880)) + (1.0 / 3628800 + r * (1.0 / 39916800)) * r2) +
      r4 * (1.0 / 479001600);
  const double p = (from_0 + from_4 * r4) + from_8 * (r4 * r4);
  return (float)(p * double_of((int64)((uint64)(bits_of(shifted) + 1023) << 52)));
}

// factors[k] = soft_nms_factor(ious[k], op), for each k below kNum. op.gaussian is kGaussian.
template <int kNum, bool kGaussian>
CVOPS_INLINE void soft_nms_factors(float* factors, const float* ious, const SoftNms& op) {
  if (!kGaussian) {
    for (int k = 0; k < kNum; ++k) factors[k] = soft_nms_factor(ious[k], op);
    return;
  }
  float exponents[kNum];
  int large = 0;
  CVOPS_NOT_UNROLLED
  for (int k = 0; k < kNum; ++k) {
    const float exponent = -(ious[k] * ious[k]) / op.sigma;
    exponents[k] = exponent == exponent ? exponent : 0.0f;
    large |= exponents[k] < -0x1p-5f;
  }
  if (large) {
    CVOPS_NOT_UNROLLED
    for (int k = 0; k < kNum; ++k) factors[k] = exp_of_negative(exponents[k]);
  } else {
    CVOPS_NOT_UNROLLED
    for (int k = 0; k < kNum; ++k) factors[k] = exp_of_small(exponents[k]);
  }
}

}  // namespace cvops::cpu
