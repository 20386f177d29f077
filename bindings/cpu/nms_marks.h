// Suppression by marks: each kept box marks the later boxes near it that it suppresses.
#pragma once
#include <algorithm>

#include "nms_broad_phase.h"
#include "nms_grid.h"
#include "nms_lanes.h"
#include "result_pool.h"

namespace cvops::cpu {

// Adjacent boxes, and their marks: 1 for a decided or suppressed one, else 0.
struct MarkBlock : BoxBlock {
  int marks[kWidth];
};

// The boxes of an image, or of one class, by their place. Most of them have few near ones.
struct MarkedBoxes {
  const SizedBox* boxes;
  const int* order;  // indices of the boxes
  const int num;
  const NmsRule rule;
  const BroadPhase broad_phase{rule, false};
  const RuleBounds bounds{rule};

  Grid grid{(double)rule.pixels};
  int cells = 1;
  // First slot of each cell, and the end of the last one.
  const PooledScratch<int> integers = pooled_scratch<int>(3 * (int64)num + max_cells() + 1);
  int *const begins = integers.get(), *const slot_of = begins + max_cells() + 1,
             *const box_at = slot_of + num, *const cell_of = box_at + num;
  const PooledScratch<MarkBlock> blocks = pooled_scratch<MarkBlock>(num / kWidth + 2);
  // Slots of the boxes that overlap no other ones, and of removed boxes.
  const int free_slot = (num / kWidth + 1) * kWidth, marked_slot = free_slot + 1;

  double work_per_box = 0;  // a guess of the number of compared blocks
  int64 work = 0;           // number of compared blocks

  MarkedBoxes(const SizedBox* boxes, const int* order, int num, NmsRule rule)
      : boxes(boxes), order(order), num(num), rule(rule) {}

  int max_cells() const { return num + 1; }
  int slots() const { return begins[cells]; }

  // Chooses a grid, or none if it does not pay.
  void choose_grid();
  // Computes the slots of all boxes. Returns false if that is not possible.
  bool assign_slots();

  CVOPS_INLINE MarkBlock& block(uint32 slot) const { return blocks[slot / kWidth]; }
  CVOPS_INLINE int& mark(uint32 slot) const { return block(slot).marks[slot % kWidth]; }

  CVOPS_INLINE void put(uint32 slot, const SizedBox& b) const {
    block(slot).put(slot % kWidth, b);
    mark(slot) = 0;
  }
};

// Sets is_kept for the first boxes, until `max_kept` boxes are kept. Returns their number: all, or
// fewer if boxes have many near ones.
template <Form kForm>
int suppress_by_marks(MarkedBoxes& boxes, uint8_t* is_kept, int max_kept);

}  // namespace cvops::cpu
