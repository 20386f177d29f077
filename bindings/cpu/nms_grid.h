// A grid of boxes.
#pragma once
#include <algorithm>
#include <numeric>

#include "box.cuh"
#include "simd.h"

namespace cvops::cpu {

// Sample of the sides of boxes along one axis.
struct AxisSample {
  static constexpr int kMaxSize = 64;
  const double pixel;  // see Grid
  double positions[kMaxSize], sides[kMaxSize];
  int num = 0;

  explicit AxisSample(double pixel) : pixel(pixel) {}

  // The position is low + high: twice the center.
  void add(float low, float high) {
    positions[num] = (double)low + high;
    sides[num++] = (double)high - low + pixel;
  }

  double mean_side() const { return std::accumulate(sides, sides + num, 0.0) / num; }
};

// A number for each axis: {x, y}.
typedef double PerAxis __attribute__((vector_size(16)));

inline PerAxis smaller_of(PerAxis a, PerAxis b) { return a < b ? a : b; }
inline PerAxis larger_of(PerAxis a, PerAxis b) { return a > b ? a : b; }

// Cells from (column, row) to (end_column, end_row), which are excluded.
struct Window {
  int column, row, end_column, end_row;
};

// Grid of cells. The cells at the margin extend to infinity. Positions are twice the centers.
struct Grid {
  double pixel;  // length of a side beyond the distance of its corners
  int columns = 1, rows = 1;
  PerAxis origin = {}, extent = {};  // extent of most boxes
  PerAxis median_side = {}, max_side = {};
  PerAxis cells_per_unit = {}, last_cell = {};

  // The sample affects the time only, never the result. It is reordered.
  void measure(int axis, AxisSample& sample) {
    double *low = sample.positions + sample.num / 8, *end = sample.positions + sample.num,
           *high = end - 1 - sample.num / 8;
    std::nth_element(sample.positions, low, end);
    std::nth_element(low + 1, high, end);
    extent[axis] = (*high - *low) * 4 / 3;  // they are the middle three quarters
    origin[axis] = *low - extent[axis] / 8;
    std::nth_element(sample.sides, sample.sides + sample.num / 2, sample.sides + sample.num);
    median_side[axis] = sample.sides[sample.num / 2];
    max_side[axis] = *std::max_element(sample.sides, sample.sides + sample.num);
  }

  // Number of cells of about one median side each.
  double preferred_cells(int axis) const {
    return std::max(1.0, extent[axis] / (2 * median_side[axis]));
  }

  void divide(int into_columns, int into_rows) {
    columns = into_columns, rows = into_rows;
    const PerAxis cells = {(double)columns, (double)rows};
    for (int axis : {0, 1}) {
      cells_per_unit[axis] = extent[axis] > 0 ? cells[axis] / extent[axis] : 0;
    }
    last_cell = cells - 1.0;
  }

  static PerAxis low(const Box& b) { return PerAxis{b.x1, b.y1}; }
  static PerAxis high(const Box& b) { return PerAxis{b.x2, b.y2}; }
  PerAxis sides(const Box& b) const { return high(b) - low(b) + pixel; }

  // The cell of a position, not rounded down.
  PerAxis cell(PerAxis position) const {
    const PerAxis at = (position - origin) * cells_per_unit;
    return smaller_of(larger_of(at, PerAxis{}), last_cell);
  }

  // The same along one axis, for loops over boxes.
  CVOPS_INLINE double cell_along(int axis, double position) const {
    const double at = (position - origin[axis]) * cells_per_unit[axis], positive = at > 0 ? at : 0;
    return positive < last_cell[axis] ? positive : last_cell[axis];
  }

  // Maximum distance in position of boxes that suppress each other. The factor 1.01 covers
  // rounding.
  PerAxis reach(PerAxis sides, double side_fraction) const {
    return smaller_of(2 * side_fraction * sides, 1.01 * (sides + max_side));
  }

  // Number of the cell of a box.
  int cell_of(const Box& b) const {
    const PerAxis at = cell(low(b) + high(b));
    return (int)at[1] * columns + (int)at[0];
  }

  // Cells within reach.
  CVOPS_INLINE Window in_reach(const Box& b, double side_fraction) const {
    const PerAxis position = low(b) + high(b), far = reach(sides(b), side_fraction);
    const PerAxis first = cell(position - far), last = cell(position + far);
    return {(int)first[0], (int)first[1], (int)last[0] + 1, (int)last[1] + 1};
  }

  // Fraction of all cells in reach of a median box.
  double fraction_in_reach(double side_fraction) const {
    const PerAxis far = 2 * reach(median_side, side_fraction) / extent;
    return std::min(1.0, far[0] + 1.0 / columns) * std::min(1.0, far[1] + 1.0 / rows);
  }
};

}  // namespace cvops::cpu
