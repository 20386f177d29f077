#include "nms_marks.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace cvops::cpu {
namespace {

// Minimum number of boxes for a grid.
constexpr int kMinForGrid = 160;
// Maximum number of compared blocks per decided box. The first boxes may need more.
constexpr int64 kMaxWork = 160, kFree = 64;

// Calls body(block) for each block with boxes near the box of a slot. `near` is its window.
template <typename Body>
CVOPS_INLINE void for_each_near(const MarkedBoxes& boxes, int slot, const Window& near,
                                const Body& body) {
  auto each = [&](int begin, int end) __attribute__((always_inline)) {
    MarkBlock* const last = &boxes.block(end + kWidth - 1);
    for (MarkBlock* block = &boxes.block(begin); block < last; ++block) body(*block);
  };
  if (boxes.cells == 1) return each(slot, boxes.slots());
  const int* row = boxes.begins + near.row * boxes.grid.columns;
  for (int r = near.row; r < near.end_row; ++r, row += boxes.grid.columns) {
    each(row[near.column], row[near.end_column]);
  }
}

// Makes the slots after the last box overlap nothing.
void fill_last_block(const MarkedBoxes& boxes) {
  for (int slot = boxes.slots(); slot % kWidth; ++slot) boxes.put(slot, {{0, 0, 0, 0}, 1});
}

int count_marks(const MarkedBoxes& boxes) {
  int count = 0;
  for (int b = 0, last = boxes.slots() / kWidth; b < last; ++b) {
    for (int k = 0; k < kWidth; ++k) count += boxes.blocks[b].marks[k];
  }
  return count;
}

// Removes the boxes with a mark.
CVOPS_INLINE void compact(MarkedBoxes& boxes) {
  int from = 0, to = 0;
  for (int c = 0; c < boxes.cells; ++c) {
    for (const int end = boxes.begins[c + 1]; from < end; ++from) {
      const int is_marked = boxes.mark(from), box = boxes.box_at[from];
      boxes.put(to, boxes.block(from).at(from % kWidth));
      boxes.box_at[to] = box;
      boxes.slot_of[box] = is_marked ? boxes.marked_slot : to;
      to += !is_marked;
    }
    boxes.begins[c + 1] = to;
  }
  fill_last_block(boxes);
}

template <Form kForm>
int decide(MarkedBoxes& boxes, uint8_t* is_kept, int max_kept) {
  // Where most boxes are kept, their windows are computed ahead: the branches on them are hard to
  // predict, and then need not wait for that.
  constexpr int kAhead = 64;
  Window windows[kAhead] = {};
  const Grid grid = boxes.grid;
  auto window = [&](const Box& b) { return grid.in_reach(b, boxes.broad_phase.side_fraction); };
  bool ahead = false;
  int first = 0, num_kept = 0;  // first box since the removal of boxes
  int64 work_before = 0, next_check = boxes.num;
  for (int i = 0; i < boxes.num; ++i) {
    Window& near = windows[i % kAhead];
    if (i % kAhead == 0 && boxes.cells > 1) {
      ahead = 2 * num_kept >= i;
      for (int j = i; ahead && j < std::min(boxes.num, i + kAhead); ++j) {
        windows[j - i] = window(boxes.boxes[boxes.order[j]].box);
      }
    }
    const int index = boxes.order[i];
    const int slot = boxes.slot_of[i];
    const bool own = (num_kept < max_kept) & (boxes.mark(slot) == 0);
    is_kept[index] = own;
    num_kept += own;
    if (!own || slot == boxes.free_slot) continue;
    const SizedBox b = boxes.boxes[index];
    if (!ahead && boxes.cells > 1) near = window(b.box);
    int unsure[kWidth] = {};
    for_each_near(boxes, slot, near, [&](MarkBlock& block) __attribute__((always_inline)) {
      CVOPS_VECTORIZED
      for (int k = 0; k < kWidth; ++k) {
        const Verdict verdict = compare<kForm>(b, block.at(k), boxes.bounds);
        block.marks[k] |= verdict.surely;
        unsure[k] |= verdict.unsure;
      }
      ++boxes.work;
    });
    if (any(unsure)) {
      for_each_near(boxes, slot, near, [&](MarkBlock& block) __attribute__((always_inline)) {
        CVOPS_VECTORIZED
        for (int k = 0; k < kWidth; ++k) {
          block.marks[k] |= suppresses_by_rule<kForm>(b, block.at(k), boxes.rule);
        }
      });
    }
    const int64 work = boxes.work - work_before;
    const bool is_slow = work > kMaxWork * (i - first + kFree);
    if (!is_slow && work < next_check) continue;
    next_check = work + boxes.slots();
    // A guess of the work that is left.
    const double left = (double)work / (i - first + 1) * (boxes.num - i);
    if ((is_slow || left > 5 * boxes.slots()) && 2 * count_marks(boxes) > boxes.slots()) {
      compact(boxes);
      first = i, work_before = boxes.work, next_check = boxes.slots();
    } else if (is_slow) {
      return i + 1;
    }
  }
  return boxes.num;
}

// Computes the cells and the slots of all boxes.
bool assign(MarkedBoxes& to) {
  const SizedBox* const boxes = to.boxes;
  const int *const order = to.order, num = to.num, cells = to.cells;
  int *const begins = to.begins, *const cell_of = to.cell_of, *const slot_of = to.slot_of;
  const Grid grid = to.grid;
  PerAxis max_side = grid.max_side;
  std::fill_n(begins, cells + 1, 0);
  for (int i = 0; i < num; ++i) {
    const SizedBox& b = boxes[order[i]];
    int cell = to.broad_phase.kind_of_cell(b, to.rule);
    if (cell == kOverflowCell) return false;
    if (cell == kGridCell && cells > 1) {
      cell += grid.cell_of(b.box);
      max_side = larger_of(max_side, grid.sides(b.box));
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
    to.put(slot, boxes[order[i]]);
  }
  fill_last_block(to);
  return true;
}

}  // namespace

void MarkedBoxes::choose_grid() {
  if (num < kMinForGrid || !broad_phase.enabled) return;
  AxisSample of_x(grid.pixel), of_y(grid.pixel);
  const int stride = std::max(8, (int)ceil_div(num, AxisSample::kMaxSize));
  for (int i = 0; i < num; i += stride) {
    const SizedBox& b = boxes[order[i]];
    if (broad_phase.kind_of_cell(b, rule) != kGridCell) continue;
    of_x.add(b.box.x1, b.box.x2), of_y.add(b.box.y1, b.box.y2);
  }
  if (of_x.num < 2) return;  // the sample has no extent
  const PerAxis mean_sides = {of_x.mean_side(), of_y.mean_side()};
  grid.measure(0, of_x), grid.measure(1, of_y);
  // Sides of a cell as parts of the extent. A row of cells in reach has about one block of boxes,
  // or more where cells would be lower than half of a median side.
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
  work_per_box = rows_in_reach * (1 + std::min(1.0, far[0]) * num / rows / kWidth);
}

bool MarkedBoxes::assign_slots() {
  // The grid saves no comparison: the boxes have many near ones.
  if (cells > 1 && work_per_box > 0.5 * num / kWidth) return false;
  put(free_slot, {}), put(marked_slot, {});
  mark(marked_slot) = 1;
  return simd<assign>(*this);
}

template <Form kForm>
int suppress_by_marks(MarkedBoxes& boxes, uint8_t* is_kept, int max_kept) {
  return simd<decide<kForm>>(boxes, is_kept, max_kept);
}

template int suppress_by_marks<Form::corner>(MarkedBoxes&, uint8_t*, int);
template int suppress_by_marks<Form::center>(MarkedBoxes&, uint8_t*, int);
template int suppress_by_marks<Form::pixels>(MarkedBoxes&, uint8_t*, int);

}  // namespace cvops::cpu
