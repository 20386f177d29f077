// The shapes of boxes: area and aspect, by which boxes are near apart from their places.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstring>

#include "box.cuh"
#include "nms/rule.cuh"
#include "simd.h"

namespace cvops::cpu {

// Ratio of the sides.
CVOPS_INLINE float aspect(const Box& b, float pixel) {
  return (b.x2 - b.x1 + pixel) / (b.y2 - b.y1 + pixel);
}

// Maximum ratio of the areas, and of the aspects, of two boxes of which one suppresses the other.
// The overlap is at most the smaller area. It is also at most the smaller width times the smaller
// height: if each box is the longer one along one axis, by the factors a and b, the IoU is at most
// 1 / (a + b - 1). The factor 1.1 covers rounding.
inline double max_ratio_of_areas(double threshold) { return 1.1 / std::min(threshold, 1.0); }
inline double max_ratio_of_aspects(double threshold) {
  const double mean = (1 + 1 / std::min(threshold, 1.0)) / 2;
  return 1.1 * mean * mean;
}

// A logarithm to base 2, apart from a constant and an error from 0 to 0.09. It rises with x.
CVOPS_INLINE float rough_log2(float x) {
  int bits;
  std::memcpy(&bits, &x, sizeof bits);
  return 0x1p-23f * (float)bits;
}

// Places of boxes by their shapes: a rectangle about the logarithms of aspect and area, for a grid.
class ShapePlaces {
 public:
  // `side_fraction`: see BroadPhase.
  ShapePlaces(const NmsRule& rule, double side_fraction) : pixel_(rule.pixels ? 1.0f : 0.0f) {
    // A half of the side whose reach is the distance of boxes: see Grid::reach(). The grid adds a
    // pixel.
    auto half = [&](double ratio) {
      const double side = (std::log2(ratio) + 0.1) / std::clamp(side_fraction, 0.01, 1.01);
      return (float)(side - pixel_) / 2;
    };
    half_x_ = half(max_ratio_of_aspects(rule.threshold));
    half_y_ = half(max_ratio_of_areas(rule.threshold));
  }

  CVOPS_INLINE Box of(const SizedBox& b) const {
    const float x = rough_log2(aspect(b.box, pixel_)), y = rough_log2(b.area);
    return {x - half_x_, y - half_y_, x + half_x_, y + half_y_};
  }

 private:
  float pixel_, half_x_, half_y_;
};

}  // namespace cvops::cpu
