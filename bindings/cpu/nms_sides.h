// A cheap test of the overlap of rotated boxes, which excludes thin boxes that their bounds do not.
#pragma once
#include <cmath>

#include "box.cuh"
#include "rotated_box.cuh"
#include "simd.h"

namespace cvops::cpu {

// Direction of the longer side of a rotated box, and its length; and the length of the other side.
struct LongSide {
  double cos, sin;
  float length, width;

  explicit LongSide(const RotatedBox& b) {
    const bool turned = b.height > b.width;
    cos = turned ? -b.sin : b.cos, sin = turned ? b.cos : b.sin;
    length = turned ? b.height : b.width, width = turned ? b.width : b.height;
  }
};

// Center, sides, and direction of the longer side of a rotated box.
struct Sides {
  float x, y, cos, sin, length, width;

  static Sides of(const RotatedBox& b) {
    const LongSide side(b);
    return {b.x, b.y, (float)side.cos, (float)side.sin, side.length, side.width};
  }
};

// False if the overlap of two rotated boxes is certainly not above `least`. For thin boxes, their
// bounds do not tell that. Infinite sides, or a NaN, give true.
CVOPS_INLINE bool may_exceed(const Sides& a, const Sides& b, float least) {
  const float cos = std::abs(a.cos * b.cos + a.sin * b.sin);
  const float sin = std::abs(a.cos * b.sin - a.sin * b.cos);
  // The overlap is at most that of the strips along the longer sides. The other terms and factors
  // cover the rounding, here and of the exact area.
  const float of_strips = 1.001f * a.width * b.width + 1e-10f * a.length * b.length;
  // It is also at most that of b and the bounds of a in the frame of b.
  const float dx = a.x - b.x, dy = a.y - b.y;
  const float along = std::abs(dx * b.cos + dy * b.sin), across = std::abs(dy * b.cos - dx * b.sin);
  const float length = a.length * cos + a.width * sin, width = a.length * sin + a.width * cos;
  // Denormal terms have absolute errors.
  const float slack = 1e-6f * (a.length + b.length + std::abs(dx) + std::abs(dy)) + 1e-42f;
  const float x = smaller(smaller(length, b.length), 0.5f * (length + b.length) - along) + slack;
  const float y = smaller(smaller(width, b.width), 0.5f * (width + b.width) - across) + slack;
  return !((of_strips < least * positive_part(sin - 1e-5f)) | (x <= 0) | (y <= 0) |
           (1.001f * x * y < least));
}

}  // namespace cvops::cpu
