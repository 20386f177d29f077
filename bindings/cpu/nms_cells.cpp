#include "nms_cells.h"

#include <algorithm>
#include <utility>

#include "parallel.h"
#include "transpose.h"

namespace cvops::cpu {
namespace {

// Minimum numbers of boxes for a grid, by Simd.
constexpr int kMinForGrid[] = {160, 192, 224};
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

// Boxes whose cells are computed at once.
constexpr int kBatch = 64;
// Minimum number of boxes, and maximum number of parts, that threads share.
constexpr int kMinPart = 4096, kMaxParts = 16;

// Boxes [begin, end) in score order.
struct Part {
  int begin, end;
  bool is_in_cells = false;  // no box belongs in kOverflowCell
  PerAxis max_side = {};
};

// Computes the cells of the boxes of a part. No branch depends on a box.
void compute_cells(const BoxesInCells& to, Part& part) {
  const SizedBox* const boxes = to.boxes;
  const int* const order = to.order;
  const Grid grid = to.grid;
  const ShapePlaces shapes = to.shapes;
  const bool by_shape = to.by_shape, is_center = to.rule.center, pixels = to.rule.pixels;
  int overflow[kBatch] = {};
  double max_x[kBatch] = {}, max_y[kBatch] = {};
  for (int first = part.begin; first < part.end; first += kBatch) {
    const int num = std::min(kBatch, part.end - first);
    float x1[kBatch], y1[kBatch], x2[kBatch], y2[kBatch], area[kBatch];
    for (int k = 0; k < kBatch; k += 4) {
      Quad quads[4];
      for (int n = 0; n < 4; ++n) {
        const SizedBox& b = boxes[order[first + std::min(k + n, num - 1)]];
        load<4>(quads[n], &b.box.x1);
        area[k + n] = b.area;
      }
      store_columns(x1 + k, y1 + k, x2 + k, y2 + k, quads);
    }
    // See BroadPhase::kind_of_cell().
    int is_in[kBatch];
    for (int k = 0; k < kBatch; ++k) {
      const float width = x2[k] - x1[k], height = y2[k] - y1[k];
      const float x = x1[k] + x2[k], y = y1[k] + y2[k];
      const int is_pixel_box = (width >= 0) & (height >= 0) & (area[k] < kInfinity);
      const int is_box = (x1[k] < x2[k]) & (y1[k] < y2[k]) & (area[k] != kInfinity);
      const int is_exact = has_area_of_corners(area[k], width, height);
      const int is_unknown = is_center & ((x != x) | (y != y));
      is_in[k] = pixels ? is_pixel_box : is_box;
      overflow[k] |= pixels ? is_pixel_box ^ 1 : is_unknown | (is_box & (is_exact ^ 1));
    }
    if (by_shape) {
      for (int k = 0; k < kBatch; ++k) {
        const Box b = shapes.of({{x1[k], y1[k], x2[k], y2[k]}, area[k]});
        x1[k] = b.x1, y1[k] = b.y1, x2[k] = b.x2, y2[k] = b.y2;
      }
    }
    int cells[kBatch];
    for (int k = 0; k < kBatch; ++k) {
      const int column = (int)grid.cell_along(0, (double)x1[k] + x2[k]);
      const int row = (int)grid.cell_along(1, (double)y1[k] + y2[k]);
      cells[k] = is_in[k] ? kGridCell + row * grid.columns + column : kNoCell;
      const double width = (double)x2[k] - x1[k] + grid.pixel;
      const double height = (double)y2[k] - y1[k] + grid.pixel;
      const double own_x = is_in[k] ? width : 0, own_y = is_in[k] ? height : 0;
      max_x[k] = own_x > max_x[k] ? own_x : max_x[k];
      max_y[k] = own_y > max_y[k] ? own_y : max_y[k];
    }
    std::copy_n(cells, num, to.cell_of + first);
  }
  part.is_in_cells = !any(overflow);
  part.max_side =
      PerAxis{*std::max_element(max_x, max_x + kBatch), *std::max_element(max_y, max_y + kBatch)};
}

// Computes the slots by the cells.
void compute_slots(const BoxesInCells& to) {
  int *const begins = to.begins, *const cell_of = to.cell_of, num = to.num, cells = to.cells;
  std::fill_n(begins, cells + 1, 0);
  for (int i = 0; i < num; ++i) begins[std::max(cell_of[i], 0)] += cell_of[i] != kNoCell;
  // Each number of boxes becomes the first slot of its cell, and then the first one of the next.
  for (int c = 1, before = 0; c <= cells; ++c) before += std::exchange(begins[c], before);
  for (int i = 0; i < num; ++i) {
    if (cell_of[i] == kNoCell) {
      to.slot_of[i] = to.free_slot;
      continue;
    }
    const int slot = to.slot_of[i] = begins[cell_of[i]]++;
    to.box_at[slot] = i;
  }
}

// Copies the boxes of the slots [begin, end).
void fill_slots(const BoxesInCells& to, int begin, int end) {
  const BoxArrays& places = to.places;
  const int *const order = to.order, *const box_at = to.box_at;
  int slot = begin;
  for (; slot + 4 <= end; slot += 4) {
    Quad quads[4];
    for (int n = 0; n < 4; ++n) {
      const SizedBox& b = to.boxes[order[box_at[slot + n]]];
      load<4>(quads[n], &b.box.x1);
      places.area[slot + n] = b.area;
    }
    store_columns(places.x1 + slot, places.y1 + slot, places.x2 + slot, places.y2 + slot, quads);
  }
  for (; slot < end; ++slot) places.put(slot, to.boxes[order[box_at[slot]]]);
  for (int s = begin; to.classes && s < end; ++s) {
    to.class_of_slot[s] = to.classes[order[box_at[s]]];
  }
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
  if (num < kMinForGrid[(int)current_simd] || !broad_phase.enabled) return;
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

bool BoxesInCells::assign_slots(int threads) {
  // The grid saves no comparison: the boxes have many near ones.
  if (cells > 1 && steps_per_box > 0.5 * num / kStep) return false;
  if (!broad_phase.enabled) return false;
  places.put(free_slot, {}), places.put(removed_slot, {});
  Part parts[kMaxParts];
  const int count = threads < 2 ? 1 : std::clamp(num / kMinPart, 1, kMaxParts);
  for (int p = 0; p < count; ++p) {
    parts[p] = {(int)((int64)p * num / count), (int)((int64)(p + 1) * num / count)};
  }
  const double cost = 4.0 * num / count;
  parallel_for(count, cost, [&](int64 p) { simd<compute_cells>(*this, parts[p]); });
  for (int p = 0; p < count; ++p) {
    if (!parts[p].is_in_cells) return false;
    if (cells > 1) grid.max_side = larger_of(grid.max_side, parts[p].max_side);
  }
  simd<compute_slots>(*this);
  const int used = slots();
  parallel_for(count, cost, [&](int64 p) {
    simd<fill_slots>(*this, (int)(p * used / count), (int)((p + 1) * used / count));
  });
  clear_last_step();
  return true;
}

}  // namespace cvops::cpu
