// Test of an IoU without a division.
#pragma once
#include <limits>

namespace cvops::cpu {

// The overlap of two boxes with an IoU above a threshold, 0 or more, exceeds the sum of two
// numbers: one of the area of each box.
class MinOverlap {
 public:
  // An IoU above the threshold t implies an overlap above t / (1 + t) of the sum of the areas. The
  // factor 0.9999 covers rounding.
  explicit MinOverlap(float t) : part_(t < 1e-30f ? 0.0f : 0.9999f * t / (1 + t)) {}

  float operator()(float area) const {
    // The IoU with a NaN area is NaN, and not above the threshold.
    if (area != area) return std::numeric_limits<float>::infinity();
    // If the product is denormal, three times the smallest float covers its rounding.
    const float part = part_ * area - 4.2e-45f;
    return part > 0 && part < 3e38f ? part : 0.0f;
  }

 private:
  const float part_;
};

}  // namespace cvops::cpu
