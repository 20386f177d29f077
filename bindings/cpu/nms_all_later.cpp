#include "nms_all_later.h"

#include <algorithm>

#include "nms_broad_phase.h"
#include "nms_lanes.h"

namespace cvops::cpu {
namespace {

// A box that overlaps nothing: also in pixels, where a point is one.
constexpr SizedBox kNone = {{2, 2, -2, -2}, 1};

// Boxes in arrays on the stack, and marks: 1 for a suppressed box, else 0.
struct MarkedBoxes {
  static constexpr int kCapacity = kMaxAllLater + kStep;

  alignas(64) float x1[kCapacity], y1[kCapacity], x2[kCapacity], y2[kCapacity], area[kCapacity];
  alignas(64) int marks[kCapacity];

  CVOPS_INLINE void put(int i, const SizedBox& b) {
    x1[i] = b.box.x1, y1[i] = b.box.y1, x2[i] = b.box.x2, y2[i] = b.box.y2, area[i] = b.area;
  }
  CVOPS_INLINE SizedBox at(int i) const { return {{x1[i], y1[i], x2[i], y2[i]}, area[i]}; }
};

template <Form kForm>
bool decide(uint8_t* is_kept, const SizedBox* boxes, const int* order, int num, NmsRule rule,
            int max_kept) {
  const BroadPhase broad_phase(rule, false);
  const RuleBounds bounds(rule);
  MarkedBoxes all;
  bool suit = true;
  for (int i = 0; i < num; ++i) {
    const SizedBox& b = boxes[order[i]];
    const int kind = broad_phase.kind_of_cell(b, rule);
    suit &= kind != kOverflowCell;
    // The area of an inverted box may be negative, which does not suit the bounds.
    all.put(i, kind == kGridCell ? b : kNone);
  }
  if (!suit) return false;
  for (int k = num; k < num + kStep; ++k) all.put(k, kNone);
  std::fill_n(all.marks, num + kStep, 0);
  int num_kept = 0;
  for (int i = 0; i < num; ++i) {
    const bool own = (num_kept < max_kept) & !all.marks[i];
    is_kept[order[i]] = own;
    if (!own) continue;
    ++num_kept;
    const SizedBox b = all.at(i);
    int unsure[kStep] = {};
    // Marks of decided boxes may change too.
    for (int at = (i + 1) / kStep * kStep; at < num; at += kStep) {
      CVOPS_VECTORIZED
      for (int k = 0; k < kStep; ++k) {
        const Verdict verdict = compare<kForm>(b, all.at(at + k), bounds);
        all.marks[at + k] |= verdict.surely;
        unsure[k] |= verdict.unsure;
      }
    }
    if (!any(unsure)) continue;
    for (int k = i + 1; k < num; ++k) {
      all.marks[k] |= suppresses_by_rule<kForm>(b, all.at(k), rule);
    }
  }
  return true;
}

}  // namespace

template <Form kForm>
bool suppress_all_later(uint8_t* is_kept, const SizedBox* boxes, const int* order, int num,
                        NmsRule rule, int max_kept) {
  return simd<decide<kForm>>(is_kept, boxes, order, num, rule, max_kept);
}

#define CVOPS_INSTANTIATE(kForm) \
  template bool suppress_all_later<kForm>(uint8_t*, const SizedBox*, const int*, int, NmsRule, int);
CVOPS_INSTANTIATE(Form::corner)
CVOPS_INSTANTIATE(Form::center)
CVOPS_INSTANTIATE(Form::pixels)

}  // namespace cvops::cpu
