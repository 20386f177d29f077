// The boxes of an image, or of one class, in the order of the cells of a grid.
#pragma once
#include <algorithm>

#include "nms_broad_phase.h"
#include "nms_grid.h"
#include "nms_lanes.h"
#include "nms_shapes.h"
#include "result_pool.h"

namespace cvops::cpu {

// The grid is one of places or, for boxes of very different shapes at near places, of shapes. Each
// box has a slot. The slots of a cell are adjacent, and so are those of a row of cells.
struct BoxesInCells {
  const SizedBox* boxes;
  const int* order;  // indices of the boxes, the best first
  const int num;
  const NmsRule rule;
  const int* classes;  // null without classes
  const BroadPhase broad_phase{rule, false};
  const RuleBounds bounds{rule};

  const ShapePlaces shapes{rule, broad_phase.side_fraction};
  bool by_shape = false;
  Grid grid{(double)rule.pixels};
  int cells = 1;
  // First slot of each cell, and the end of the last one.
  const PooledScratch<int> integers = pooled_scratch<int>(3 * (int64)num + max_cells() + 1);
  int *const begins = integers.get(), *const slot_of = begins + max_cells() + 1,
             *const box_at = slot_of + num, *const cell_of = box_at + num;
  // Slots of the boxes that overlap no other ones, and of removed boxes. The slots between the last
  // box and these ones are empty: a step compares kStep boxes.
  const int free_slot = num + kStep, removed_slot = free_slot + 1;
  const BoxArrays places{num + 2};
  const PooledScratch<int> class_of_slot = pooled_scratch<int>(classes ? places.capacity : 0);

  double steps_per_box = 0;  // an estimate by choose_grid()

  BoxesInCells(const SizedBox* boxes, const int* order, int num, NmsRule rule,
               const int* classes = nullptr)
      : boxes(boxes), order(order), num(num), rule(rule), classes(classes) {}

  int max_cells() const { return num / 2 + 128; }
  // The place of a box in the grid.
  CVOPS_INLINE Box place(const SizedBox& b) const { return by_shape ? shapes.of(b) : b.box; }
  int slots() const { return begins[cells]; }
  // Three integers per box: slot_of, box_at and cell_of.
  int* slots_memory() const { return slot_of; }

  // Chooses a grid, or a single cell for few boxes or boxes without an extent.
  void choose_grid();
  // Computes the slots of all boxes. Returns false if the grid does not pay, or if a box belongs in
  // kOverflowCell.
  bool assign_slots(int threads);

  // Makes the slots after the last box overlap nothing.
  CVOPS_INLINE void clear_last_step() const {
    places.clear_step(slots());
    if (classes) std::fill_n(class_of_slot.get() + slots(), kStep, 0);
  }

 private:
  // Divides the grid, for a sample of boxes.
  void divide(const SizedBox* sample, int sampled);
  // Mean share of the boxes of a sample in the cells in reach of one of them.
  double share_in_reach(const SizedBox* sample, int sampled) const;
};

// Calls body(slot) for each step of kStep slots in [at, end), or for one step if there are none:
// that is rare, and a branch on it would be hard to predict.
template <typename Body>
CVOPS_INLINE void for_each_step(int at, int end, const Body& body) {
  do {
    body(at), at += kStep;
  } while (at < end);
}

}  // namespace cvops::cpu
