// The cells of a grid of boxes along one axis.
#pragma once
#include <algorithm>

#include "simd.h"

namespace cvops::cpu {

// Sample of the sides of boxes along one axis.
struct AxisSample {
  static constexpr int kMaxSize = 64;
  const double pixel;  // see GridAxis
  double positions[kMaxSize], sides[kMaxSize];
  int num = 0;

  explicit AxisSample(double pixel) : pixel(pixel) {}

  // The position is low + high: twice the center.
  void add(float low, float high) {
    positions[num] = (double)low + high;
    sides[num++] = (double)high - low + pixel;
  }
};

struct Range {
  int begin, end;
};

// Cells of the grid along one axis. The first and the last cell extend to infinity.
struct GridAxis {
  const double pixel;  // length of a side beyond the distance of its corners
  int cells = 1;
  double origin = 0, extent = 0;  // extent of most boxes
  double median_side = 0, max_side = 0;
  double cells_per_unit = 0;

  // The sample affects the time only, never the result. It is reordered.
  void measure(AxisSample& sample) {
    double *low = sample.positions + sample.num / 8, *end = sample.positions + sample.num,
           *high = end - 1 - sample.num / 8;
    std::nth_element(sample.positions, low, end);
    std::nth_element(low + 1, high, end);
    extent = (*high - *low) * 4 / 3;  // they are the middle three quarters
    origin = *low - extent / 8;
    std::nth_element(sample.sides, sample.sides + sample.num / 2, sample.sides + sample.num);
    median_side = sample.sides[sample.num / 2];
    max_side = *std::max_element(sample.sides, sample.sides + sample.num);
  }

  // Number of cells of about one median side each.
  double preferred_cells() const { return std::max(1.0, extent / (2 * median_side)); }

  void divide(double into) {
    cells = (int)into;
    cells_per_unit = extent > 0 ? cells / extent : 0;
  }

  int cell(double position) const {
    const double at = (position - origin) * cells_per_unit;
    return at > 0 ? (int)std::min(at, cells - 1.0) : 0;
  }

  // Maximum distance in position of boxes that suppress each other. The factor 1.01 covers
  // rounding.
  double reach(double side, double side_fraction) const {
    return std::min(2 * side_fraction * side, 1.01 * (side + max_side));
  }

  // Range of cells within that distance.
  CVOPS_INLINE Range cells_in_reach(float low, float high, double side_fraction) const {
    const double position = (double)low + high;
    const double far = reach((double)high - low + pixel, side_fraction);
    return {cell(position - far), cell(position + far) + 1};
  }

  // Fraction of all cells in that range, for a median box.
  double fraction_in_reach(double side_fraction) const {
    return std::min(1.0, 2 * reach(median_side, side_fraction) / extent + 1.0 / cells);
  }
};

}  // namespace cvops::cpu
