// The rows of a set of boxes with scores.
#pragma once
#include "box_nms.h"
#include "nms/rows.cuh"
#include "nms_broad_phase.h"
#include "nms_lanes.h"

namespace cvops::cpu {

// Rows of a set. Loops take a copy, which no store can change.
struct Rows {
  const float* first;
  const NmsOptions options;
  const BroadPhase broad_phase{options.rule, false};
  const RuleBounds bounds{options.rule};

  CVOPS_INLINE const float* at(int i) const { return first + (int64)i * options.columns.width; }
  CVOPS_INLINE bool is_valid(int i) const {
    return nms_is_valid(at(i), options.columns, options.valid_thresh, options.background_id);
  }
  CVOPS_INLINE SizedBox box(int i) const {
    return nms_box(at(i), options.columns, options.rule.center);
  }
  CVOPS_INLINE float score(int i) const { return at(i)[options.columns.score]; }
  // Loads the scores of `num` rows number(k), at most kNum: -infinity for no candidate, and after
  // the last one.
  template <int kNum, typename Number>
  CVOPS_INLINE void load_scores(float (&scores)[kNum], int num, const Number& number) const {
    const NmsColumns columns = options.columns;
    if (num == kNum) {
      CVOPS_INDEPENDENT
      for (int k = 0; k < kNum; ++k) scores[k] = at(number(k))[columns.score];
    } else {
      for (int k = 0; k < num; ++k) scores[k] = at(number(k))[columns.score];
      for (int k = num; k < kNum; ++k) scores[k] = -kInfinity;
    }
    const float valid_thresh = options.valid_thresh, background = options.background_id;
    for (int k = 0; k < kNum; ++k) scores[k] = scores[k] > valid_thresh ? scores[k] : -kInfinity;
    if (columns.id < 0) return;
    for (int k = 0; k < num; ++k) {
      if (at(number(k))[columns.id] == background) scores[k] = -kInfinity;
    }
  }
  CVOPS_INLINE int kind_of_cell(const SizedBox& b) const {
    return broad_phase.kind_of_cell(b, options.rule);
  }
};

}  // namespace cvops::cpu
