// Conditions that exclude most pairs of boxes from the rule of suppression.
#pragma once
#include <algorithm>
#include <cmath>
#include <limits>

#include "min_overlap.h"
#include "nms/rule.cuh"
#include "simd.h"

namespace cvops::cpu {

// Threshold of an overlap that no box passes; its negative is one that every box passes.
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Cell of a box. kNoCell: the box overlaps no other one. kOverflowCell: all boxes are compared with
// its boxes, as if there was no grid. From kGridCell on: the cells of the grid.
constexpr int kNoCell = -1, kOverflowCell = 0, kGridCell = 1;

// True if the area is that of the corners, apart from rounding. Far from 0, the corners of a box in
// center format can be much further apart than its area implies. Very small areas have lost bits.
CVOPS_INLINE int has_area_of_corners(float area, float width, float height) {
  return (area >= 1e-30f) & (area >= 0.999f * width * height);
}

// Broad phase: necessary conditions for suppression. They are cheaper than the rule and never
// stricter.
struct BroadPhase {
  bool enabled;          // false: there is no such condition, test all pairs
  float area_fraction;   // the overlap exceeds this fraction of the sum of areas
  double side_fraction;  // along each axis, the distance of centers is at most this times a side
  double part;           // along each axis, the overlap exceeds this part of the longer side

  const bool has_bounds;  // of other boxes

  BroadPhase(NmsRule rule, bool has_bounds) : has_bounds(has_bounds) {
    const double t = rule.threshold;
    // With a negative threshold, boxes that do not touch suppress each other.
    enabled = rule.at_least ? t > 0 : t >= 0;
    area_fraction = min_area_fraction(t);
    // For boxes in the grid, the overlap along an axis exceeds `part` of the longer side. The
    // distance of the centers is (a + b) / 2 - overlap, or less if one side contains the other. For
    // a given a, it is greatest at b = a or b = a / part. The factor 1.01 covers rounding.
    //
    // For rotated boxes, the sides are those of the bounds. The width of a box in each row is at
    // most twice its mean width. A part t of the area thus has t / 2 of the height, or more.
    part = has_bounds ? std::min(0.49 * t, 0.5) : std::min(0.99 * t, 1.0);
    side_fraction = t < 1e-3 ? kInfinity : 1.01 * (1 - part) * std::max(1.0, 0.5 / part);
  }

  // Half of the minimum overlap: the bound for two boxes is the sum of their values.
  float min_overlap(float area) const {
    if (has_bounds) return std::isnan(area) ? -kInfinity : area_fraction * area - 1e-36f;
    return enabled ? std::max(0.0f, area_fraction * area - kDenormalSlack) : -kInfinity;
  }

  // kGridCell for any cell of the grid.
  CVOPS_INLINE int kind_of_cell(const SizedBox& b, const NmsRule& rule) const {
    const float width = b.box.x2 - b.box.x1, height = b.box.y2 - b.box.y1;
    if (!enabled) return kOverflowCell;
    if (has_bounds) {
      if (b.area == 0) return kNoCell;
      // Far from 0, the bounds are much larger than the box.
      const bool is_near = std::abs(b.box.x1 + b.box.x2) <= 4000 * width &&
                           std::abs(b.box.y1 + b.box.y2) <= 4000 * height;
      const bool is_finite = width < kInfinity && height < kInfinity;
      return is_near && is_finite && !std::isnan(b.area) ? kGridCell : kOverflowCell;
    }
    // The sides are one pixel or more, so the rounding of a side is relatively small.
    if (rule.pixels)
      return width >= 0 && height >= 0 && b.area < kInfinity ? kGridCell : kOverflowCell;
    // In corner format, a box with NaN has area NaN or overlaps nothing. In center format the area
    // is a number, and a NaN at one side means that this side is unbounded.
    if (rule.center && (std::isnan(b.box.x1 + b.box.x2) || std::isnan(b.box.y1 + b.box.y2)))
      return kOverflowCell;
    if (!(b.box.x1 < b.box.x2 && b.box.y1 < b.box.y2) || b.area == kInfinity) return kNoCell;
    // Boxes in the grid have finite corners, and the area of these corners.
    return has_area_of_corners(b.area, width, height) ? kGridCell : kOverflowCell;
  }
};

}  // namespace cvops::cpu
