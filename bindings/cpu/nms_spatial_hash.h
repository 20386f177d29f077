// The kept boxes of an image by their place, so that a box is compared with near ones only.
#pragma once
#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>

#include "nms.h"
#include "nms_broad_phase.h"
#include "nms_grid.h"
#include "nms_levels.h"
#include "nms_tree.h"
#include "result_pool.h"

namespace cvops::cpu {

// Kept boxes per vector step, where boxes have few near ones and where they have many.
constexpr int kShort = 8, kLong = 16;
// Minimum average number of boxes per cell of a grid.
constexpr int kBoxesPerCell = 2;

// The boxes of bounds: null for axis-aligned boxes of floats.
struct Exact {
  const RotatedBox* rotated = nullptr;
  const DoubleBox* doubles = nullptr;

  explicit operator bool() const { return rotated || doubles; }
};

// Spatial hash grid of the kept boxes of an image, or of one class. A box is compared with the kept
// boxes of the cells in its reach. Each cell has capacity for all boxes that belong to it.
struct SpatialHash {
  const SizedBox* boxes;
  const Exact exact;
  const int* order;  // indices of the boxes
  const int num;
  const NmsRule rule;
  const BroadPhase broad_phase{rule, (bool)exact};

  Grid grid{(double)rule.pixels};
  Levels levels;        // replace the grid where it is slow
  RotatedTree tree;     // replaces the grid of rotated boxes where it is slow
  int next_check = 0;   // the box from which on the work is estimated again
  int cells = 1;        // kOverflowCell and the cells of the grid
  double fraction = 1;  // fraction of the inserted boxes with which a median box is compared
  int num_inserted = 0, num_kept = 0;
  const PooledScratch<int> integers =
      pooled_scratch<int>(num + 3 * max_cells() + (exact ? num + kLong : 0));
  int* const cell_of = integers.get();
  // Per cell: begin and end of its boxes in the arrays below, and begin of the new ones, which the
  // current boxes are not yet compared with.
  int *const begins = cell_of + num, *const new_begins = begins + max_cells(),
             *const ends = new_begins + max_cells();
  // Index of each inserted box that is not the bounds themselves.
  int* const index_of_slot = ends + max_cells();

  const int64 capacity = num + kLong;
  const PooledScratch<float> floats = pooled_scratch<float>((exact.rotated ? 12 : 6) * capacity);
  float *const x1 = floats.get(), *const y1 = x1 + capacity, *const x2 = y1 + capacity,
               *const y2 = x2 + capacity, *const area = y2 + capacity,
               *const min_overlap = area + capacity;
  float* const sides = min_overlap + capacity;  // (6, capacity), of rotated boxes: see Sides

  int max_cells() const { return num / kBoxesPerCell + 2; }

  SpatialHash(const SizedBox* boxes, Exact exact, const int* order, int num, NmsRule rule)
      : boxes(boxes), exact(exact), order(order), num(num), rule(rule) {}

  int kind_of_cell(int i) const { return broad_phase.kind_of_cell(boxes[order[i]], rule); }

  // Chooses a grid, or no grid if it does not pay: then all boxes are in kOverflowCell.
  void choose_grid();
  // Computes the cell of each box and reserves capacity in the cells.
  void assign_cells();
  // Reserves capacity for the numbers of boxes in `begins`.
  void reserve();

  // Inserts the kept ones of the boxes before `end`.
  void insert_first(int end, const uint8_t* is_kept);

  Window in_reach(const Box& b) const { return grid.in_reach(b, broad_phase.side_fraction); }

  // Estimates the work per box for the boxes from `first` on, from a sample.
  double work(int first) const;
  // Replaces the grid by levels, or by a tree, if the boxes from `first` on would need much work.
  void replace_slow_grid(int first, const uint8_t* is_kept);
  // False for a box that is suppressed, or that overlaps no other one. `first` boxes are resolved.
  bool is_left(int i, int first, const uint8_t* is_kept) const {
    return (i >= first || is_kept[order[i]]) && cell_of[i] != kNoCell;
  }
  // Sets cell_of for the boxes that are left, and counts them in `begins`.
  void divide_by_levels(int first, const uint8_t* is_kept);
  void divide_by_tree(int first, const uint8_t* is_kept);

  void set_sides(int at, const Sides& b) {
    float* to = sides + at;
    for (float number : {b.x, b.y, b.cos, b.sin, b.length, b.width}) *to = number, to += capacity;
  }

  CVOPS_INLINE Sides sides_at(int at) const {
    const float* from = sides + at;
    return {from[0],
            from[capacity],
            from[2 * capacity],
            from[3 * capacity],
            from[4 * capacity],
            from[5 * capacity]};
  }

  CVOPS_INLINE void insert(int i) {
    ++num_inserted;
    const SizedBox& b = boxes[order[i]];
    const int at = ends[cell_of[i]]++;
    x1[at] = b.box.x1, y1[at] = b.box.y1, x2[at] = b.box.x2, y2[at] = b.box.y2;
    area[at] = b.area, min_overlap[at] = broad_phase.min_overlap(b.area);
    if (exact) index_of_slot[at] = order[i];
    if (!exact.rotated) return;
    const RotatedBox& own = exact.rotated[order[i]];
    set_sides(at, Sides::of(own));
    if (tree.leaves && cell_of[i] >= kGridCell) tree.insert(own, cell_of[i] - kGridCell);
  }
};

}  // namespace cvops::cpu
