#include "nms_spatial_hash.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

namespace cvops::cpu {
namespace {

// Minimum number of comparisons per box that a grid must save.
constexpr int kMinSaved = 300;
// Minimum work per box, in comparisons, of a grid that levels replace, and the work of a visited
// cell; the same for a tree, whose searches take longer among many boxes; the number of boxes in a
// sample of the work; and the lowest threshold for levels and trees.
constexpr double kMinReplaced = 1500, kCellWork = 16;
constexpr double kMinTreeWork = 200, kTreeWorkPerBox = 1.0 / 24, kTreeCellWork = 4;
constexpr int kWorkSample = 32;
constexpr double kMinLevelThreshold = 0.1;

}  // namespace

void SpatialHash::choose_grid() {
  if (num < kMinSaved || !broad_phase.enabled) return;
  AxisSample of_x(grid.pixel), of_y(grid.pixel);
  for (int i = 0, stride = (int)ceil_div(num, AxisSample::kMaxSize); i < num; i += stride) {
    if (kind_of_cell(i) != kGridCell) continue;
    const Box& b = boxes[order[i]].box;
    of_x.add(b.x1, b.x2), of_y.add(b.y1, b.y2);
  }
  if (of_x.num < 2) return;  // the sample has no extent
  grid.measure(0, of_x), grid.measure(1, of_y);
  const double max = max_cells() - 1;
  const double columns = grid.preferred_cells(0), rows = grid.preferred_cells(1);
  const double fewer = std::sqrt(std::max(1.0, columns * rows / max));
  const int into_columns = (int)std::clamp(columns / fewer, 1.0, max);
  grid.divide(into_columns, (int)std::clamp(rows / fewer, 1.0, max / into_columns));
  fraction = grid.fraction_in_reach(broad_phase.side_fraction);
  if (num * (1 - fraction) >= kMinSaved) cells = kGridCell + grid.columns * grid.rows;
}

void SpatialHash::assign_cells() {
  std::fill(begins, begins + cells, 0);
  const bool few = num < kMinSaved;
  for (int i = 0; i < num; ++i) {
    const Box& b = boxes[order[i]].box;
    int cell = few ? kOverflowCell : kind_of_cell(i);
    if (cell == kGridCell && cells == 1) cell = kOverflowCell;
    if (cell == kGridCell) {
      cell += grid.cell_of(b);
      grid.max_side = larger_of(grid.max_side, grid.sides(b));
    }
    cell_of[i] = cell;
    if (cell != kNoCell) ++begins[cell];
  }
  reserve();
}

void SpatialHash::reserve() {
  for (int c = 0, before = 0; c < cells; ++c) before += std::exchange(begins[c], before);
  std::copy_n(begins, cells, new_begins);
  std::copy_n(begins, cells, ends);
  // Empty slots never pass the overlap test.
  std::fill_n(min_overlap, capacity, kInfinity);
}

void SpatialHash::insert_first(int end, const uint8_t* is_kept) {
  for (int i = 0; i < end; ++i) {
    if (!is_kept[order[i]]) continue;
    ++num_kept;
    if (cell_of[i] != kNoCell) insert(i);
  }
}

double SpatialHash::work(int first) const {
  const double cell_work = exact.rotated ? kTreeCellWork : kCellWork;
  const int in_overflow = ends[kOverflowCell] - begins[kOverflowCell];
  double sum = 0;
  for (int i = first, stride = (int)ceil_div(num - first, kWorkSample); i < num; i += stride) {
    const int kind = kind_of_cell(i);
    if (kind == kNoCell) continue;
    // Levels leave boxes in kOverflowCell, but a tree takes them too.
    if (exact.rotated || (cells == 1 && kind == kGridCell)) sum += in_overflow;
    if (kind != kGridCell && exact.rotated) sum += cells + num_inserted - in_overflow;
    if (kind != kGridCell || cells == 1) continue;
    const Box& b = boxes[order[i]].box;
    const Window window = in_reach(b);
    for (int row = window.row; row < window.end_row; ++row) {
      const int at = kGridCell + row * grid.columns;
      for (int cell = at + window.column; cell < at + window.end_column; ++cell) {
        sum += cell_work + (ends[cell] - begins[cell]);
      }
    }
  }
  return sum / std::min(kWorkSample, num - first);
}

void SpatialHash::divide_by_levels(int first, const uint8_t* is_kept) {
  levels.use(num / kBoxesPerCell);
  grid.columns = levels.buckets, grid.rows = 1, cells = kGridCell + levels.buckets;
  std::fill(begins, begins + cells, 0);
  for (int i = 0; i < num; ++i) {
    if (!is_left(i, first, is_kept)) continue;
    cell_of[i] = kind_of_cell(i);
    if (cell_of[i] == kGridCell) {
      const Box& b = boxes[order[i]].box;
      const int of_x = Levels::level((double)b.x2 - b.x1 + grid.pixel);
      const int of_y = Levels::level((double)b.y2 - b.y1 + grid.pixel);
      levels.used[of_x * Levels::kNum + of_y] = true;
      cell_of[i] += levels.bucket(of_x, of_y, Levels::cell((double)b.x1 + b.x2, of_x),
                                  Levels::cell((double)b.y1 + b.y2, of_y));
    }
    ++begins[cell_of[i]];
  }
}

void SpatialHash::divide_by_tree(int first, const uint8_t* is_kept) {
  std::vector<RotatedTree::Member> members;
  members.reserve(num);
  for (int i = 0; i < num; ++i) {
    if (!is_left(i, first, is_kept)) continue;
    cell_of[i] = kOverflowCell;
    if (std::isnan(boxes[order[i]].area)) continue;
    members.push_back({RotatedTree::Key::of(exact.rotated[order[i]]), i, 0});
  }
  tree.build(members);
  grid.columns = tree.leaves, grid.rows = 1, cells = kGridCell + tree.leaves;
  std::fill(begins, begins + cells, 0);
  for (const auto& member : members) cell_of[member.index] = kGridCell + member.leaf;
  for (int i = 0; i < num; ++i) begins[cell_of[i]] += is_left(i, first, is_kept);
}

void SpatialHash::replace_slow_grid(int first, const uint8_t* is_kept) {
  if (first < next_check || levels.buckets || tree.leaves || num < kMinSaved ||
      !broad_phase.enabled || rule.threshold < kMinLevelThreshold) {
    return;
  }
  next_check = 2 * first;
  const double replaced = exact.rotated ? kMinTreeWork + num * kTreeWorkPerBox : kMinReplaced;
  if (work(first) < replaced) return;
  fraction = 0;
  exact.rotated ? divide_by_tree(first, is_kept) : divide_by_levels(first, is_kept);
  reserve();
  num_kept = num_inserted = 0;
  insert_first(first, is_kept);
}

}  // namespace cvops::cpu
