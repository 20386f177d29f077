#include "nms_cells.h"

#include <algorithm>
#include <utility>

namespace cvops::cpu {
namespace {

// Minimum number of boxes for a grid.
constexpr int kMinForGrid = 160;
// Minimum number of steps per box of a grid of places that one of shapes may replace, the maximum
// share of these that it may have, and the minimum ranges of areas and of aspects, as logarithms to
// base 2.
constexpr double kMinReplaced = 4, kMaxReplacing = 0.5;
constexpr float kMinRange = 16;
// Minimum share of a sample in reach of a box that shows a crowd.
constexpr double kMinCrowd = 0.1;

// True if areas and aspects differ widely.
bool have_many_shapes(const SizedBox* sample, int num) {
  PerAxis low = PerAxis{} + kInfinity, high = -low;
  for (int i = 0; i < num; ++i) {
    const PerAxis shape = {rough_log2(aspect(sample[i].box, 0)), rough_log2(sample[i].area)};
    low = smaller_of(low, shape), high = larger_of(high, shape);
  }
  const PerAxis range = high - low;
  return range[0] > kMinRange && range[1] > kMinRange;
}

// Computes the cells and the slots of all boxes.
bool assign(BoxesInCells& to) {
  const SizedBox* const boxes = to.boxes;
  const int *const order = to.order, num = to.num, cells = to.cells;
  int *const begins = to.begins, *const cell_of = to.cell_of, *const slot_of = to.slot_of;
  const Grid grid = to.grid;
  const ShapePlaces shapes = to.shapes;
  const bool by_shape = to.by_shape;
  PerAxis max_side = grid.max_side;
  std::fill_n(begins, cells + 1, 0);
  for (int i = 0; i < num; ++i) {
    const SizedBox& b = boxes[order[i]];
    int cell = to.broad_phase.kind_of_cell(b, to.rule);
    if (cell == kOverflowCell) return false;
    if (cell == kGridCell && cells > 1) {
      const Box place = by_shape ? shapes.of(b) : b.box;
      cell += grid.cell_of(place);
      max_side = larger_of(max_side, grid.sides(place));
    }
    cell_of[i] = cell;
    begins[std::max(cell, 0)] += cell != kNoCell;
  }
  to.grid.max_side = max_side;
  // Each number of boxes becomes the first slot of its cell, and then the first one of the next.
  for (int c = 1, before = 0; c <= cells; ++c) before += std::exchange(begins[c], before);
  for (int i = 0; i < num; ++i) {
    if (cell_of[i] == kNoCell) {
      slot_of[i] = to.free_slot;
      continue;
    }
    const int slot = slot_of[i] = begins[cell_of[i]]++;
    to.box_at[slot] = i;
    to.places.put(slot, boxes[order[i]]);
    if (to.classes) to.class_of_slot[slot] = to.classes[order[i]];
  }
  to.clear_last_step();
  return true;
}

}  // namespace

void BoxesInCells::divide(const SizedBox* sample, int sampled) {
  AxisSample of_x(grid.pixel), of_y(grid.pixel);
  for (int i = 0; i < sampled; ++i) {
    const Box b = place(sample[i]);
    of_x.add(b.x1, b.x2), of_y.add(b.y1, b.y2);
  }
  const PerAxis mean_sides = {of_x.mean_side(), of_y.mean_side()};
  grid.measure(0, of_x), grid.measure(1, of_y);
  // Sides of a cell as parts of the extent. A row of cells in reach has less than one step of
  // boxes, or more where cells would be lower than half of a median side.
  const double x = 1 / grid.preferred_cells(0);
  const double y = 1 / grid.preferred_cells(1);
  const double height = std::max(0.5 * y, 10 / (1.3 * x * num));
  const double most = max_cells() - 1;
  const int rows = (int)std::clamp(1 / height, 1.0, most);
  const int columns = (int)std::clamp(4 / x, 1.0, most / rows);
  grid.divide(columns, rows);
  cells = columns * rows;
  const PerAxis far = 2 * grid.reach(mean_sides, broad_phase.side_fraction) / grid.extent;
  const double rows_in_reach = 1 + rows * std::min(1.0, far[1]);
  steps_per_box = rows_in_reach * (1 + std::min(1.0, far[0]) * num / rows / kStep);
}

double BoxesInCells::share_in_reach(const SizedBox* sample, int sampled) const {
  constexpr int kCompared = 8;
  int columns[AxisSample::kMaxSize], rows[AxisSample::kMaxSize];
  for (int i = 0; i < sampled; ++i) {
    const int cell = grid.cell_of(place(sample[i]));
    columns[i] = cell % grid.columns, rows[i] = cell / grid.columns;
  }
  int found = -kCompared;  // without a box itself
  for (int k = 0; k < kCompared; ++k) {
    const SizedBox& b = sample[k * sampled / kCompared];
    const Window near = grid.in_reach(place(b), broad_phase.side_fraction);
    for (int i = 0; i < sampled; ++i) {
      found += (columns[i] >= near.column) & (columns[i] < near.end_column) &
               (rows[i] >= near.row) & (rows[i] < near.end_row);
    }
  }
  return (double)found / (kCompared * sampled);
}

void BoxesInCells::choose_grid() {
  if (num < kMinForGrid || !broad_phase.enabled) return;
  SizedBox sample[AxisSample::kMaxSize];
  int sampled = 0;
  const int stride = std::max(8, (int)ceil_div(num, AxisSample::kMaxSize));
  for (int i = 0; i < num; i += stride) {
    const SizedBox& b = boxes[order[i]];
    if (broad_phase.kind_of_cell(b, rule) == kGridCell) sample[sampled++] = b;
  }
  if (sampled < 2) return;  // the sample has no extent
  divide(sample, sampled);
  const double steps = steps_per_box;
  if (steps > kMinReplaced && have_many_shapes(sample, sampled)) {
    by_shape = true;
    divide(sample, sampled);
    if (steps_per_box > kMaxReplacing * steps) {
      by_shape = false;
      divide(sample, sampled);
    }
  }
  if (!classes) return;
  // Boxes may be crowded in a few cells.
  const double share = share_in_reach(sample, sampled);
  if (share > kMinCrowd) steps_per_box = std::max(steps_per_box, share * num / kStep);
}

bool BoxesInCells::assign_slots() {
  // The grid saves no comparison: the boxes have many near ones.
  if (cells > 1 && steps_per_box > 0.5 * num / kStep) return false;
  places.put(free_slot, {}), places.put(removed_slot, {});
  return simd<assign>(*this);
}

}  // namespace cvops::cpu
