#include "nms_all_later.h"

#include <algorithm>

#include "nms_broad_phase.h"
#include "nms_marked_boxes.h"

namespace cvops::cpu {
namespace {

template <Form kForm>
bool decide(uint8_t* is_kept, const SizedBox* boxes, const int* order, int num, NmsRule rule,
            int max_kept) {
  const BroadPhase broad_phase(rule, false);
  const RuleBounds bounds(rule);
  MarkedBoxes<kMaxAllLater> all;
  bool suit = true;
  for (int i = 0; i < num; ++i) {
    const SizedBox& b = boxes[order[i]];
    const int kind = broad_phase.kind_of_cell(b, rule);
    suit &= kind != kOverflowCell;
    // The area of an inverted box may be negative, which does not suit the bounds.
    all.put(i, kind == kGridCell ? b : kNone);
  }
  if (!suit) return false;
  all.begin(num);
  int num_kept = 0;
  for (int i = 0; i < num; ++i) {
    const bool own = (num_kept < max_kept) & !all.marks[i];
    is_kept[order[i]] = own;
    num_kept += own;
    if (own) all.template mark<kForm>(all.at(i), i + 1, num, bounds, rule);
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
