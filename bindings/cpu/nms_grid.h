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

// The numbers of a sample in columns, which a network without branches sorts.
struct SortedSample {
  static constexpr int kRows = 8, kColumns = AxisSample::kMaxSize / kRows;

  double rows[kRows][kColumns];

  // A smaller sample is repeated.
  SortedSample(const double* numbers, int num) {
    double* const all = rows[0];
    std::copy_n(numbers, num, all);
    for (int i = num; i < kRows * kColumns; ++i) all[i] = num > 0 ? all[i - num] : 0;
    sort_columns(rows);
  }

  double least() const { return *std::min_element(rows[0], rows[0] + kColumns); }
  double greatest() const { return *std::max_element(rows[kRows - 1], rows[kRows - 1] + kColumns); }

  // The median of a row. About (row + 0.7) / 8.3 of all numbers are lower.
  double quantile(int row) const {
    double numbers[kColumns][1];
    for (int k = 0; k < kColumns; ++k) numbers[k][0] = rows[row][k];
    sort_columns(numbers);
    return numbers[kColumns / 2][0];
  }

 private:
  template <int kNum>
  static CVOPS_INLINE void sort_columns(double (&rows)[8][kNum]) {
    constexpr int kPairs[][2] = {{0, 2}, {1, 3}, {4, 6}, {5, 7}, {0, 4}, {1, 5}, {2, 6},
                                 {3, 7}, {0, 1}, {2, 3}, {4, 5}, {6, 7}, {2, 4}, {3, 5},
                                 {1, 4}, {3, 6}, {1, 2}, {3, 4}, {5, 6}};
    for (const auto& pair : kPairs) {
      for (int k = 0; k < kNum; ++k) {
        const double a = rows[pair[0]][k], b = rows[pair[1]][k];
        rows[pair[0]][k] = a < b ? a : b, rows[pair[1]][k] = a < b ? b : a;
      }
    }
  }
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

  // The sample affects the time only, never the result.
  void measure(int axis, const AxisSample& sample) {
    measure_extent(axis, sample);
    const SortedSample sides(sample.sides, sample.num);
    median_side[axis] = sides.quantile(SortedSample::kRows / 2 - 1);
    max_side[axis] = *std::max_element(sample.sides, sample.sides + sample.num);
  }

  void measure_extent(int axis, const AxisSample& sample) {
    const SortedSample positions(sample.positions, sample.num);
    const double low = positions.quantile(1), high = positions.quantile(SortedSample::kRows - 2);
    // They are about the middle three fifths. Outliers extend them to twice that at most.
    const double middle = high - low, least = positions.least(), greatest = positions.greatest();
    const double beyond = (greatest - least) / 32;  // a sample lacks the ends
    origin[axis] = std::max(least - beyond, low - middle / 2);
    extent[axis] = std::min(greatest + beyond, high + middle / 2) - origin[axis];
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
