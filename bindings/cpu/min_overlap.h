// Test of an IoU without a division.
#pragma once
#include <limits>

namespace cvops::cpu {

// The fraction t / (1 + t), which the overlap of two boxes exceeds of the sum of their areas if
// their IoU exceeds t: overlap / (a + b - overlap) > t implies overlap > t / (1 + t) (a + b). The
// factor 0.9999 covers the rounding of both sides. A t that can have few bits gives 0.
inline float min_area_fraction(double t) {
  return t < 1e-30 ? 0.0f : (float)(0.9999 * t / (1 + t));
}

// Three times the smallest float: it covers the rounding of a product that is denormal.
constexpr float kDenormalSlack = 4.2e-45f;

// A lower bound for the overlap of two boxes whose IoU is above a threshold of 0 or more: the sum
// of two numbers, one for the area of each box.
class MinOverlap {
 public:
  explicit MinOverlap(float threshold) : fraction_(min_area_fraction(threshold)) {}

  float operator()(float area) const {
    // The IoU with a NaN area is NaN, and not above the threshold.
    if (area != area) return std::numeric_limits<float>::infinity();
    const float part = fraction_ * area - kDenormalSlack;
    return part > 0 && part < 3e38f ? part : 0.0f;
  }

 private:
  const float fraction_;
};

}  // namespace cvops::cpu
