// A sample of boxes, which shows how many boxes suppress one another.
#pragma once
#include <algorithm>
#include <numeric>

#include "nms_lanes.h"

namespace cvops::cpu {

struct BoxSample {
  static constexpr int kMost = 256;

  const BoxArrays boxes{kMost};
  int classes[kMost + kStep] = {};
  int num = 0;

  void add(const SizedBox& b, int of_class) {
    boxes.put(num, b);
    classes[num++] = of_class;
  }
};

template <Form kForm>
int count_pairs(const BoxSample& sample, int compared, const RuleBounds& bounds) {
  int found[kStep] = {};
  for (int i = 0; i < compared; ++i) {
    const int own = i * sample.num / compared, own_class = sample.classes[own];
    const SizedBox b = sample.boxes.at(own);
    for (int at = 0; at < sample.num; at += kStep) {
      CVOPS_VECTORIZED
      for (int k = 0; k < kStep; ++k) {
        const int is_same = sample.classes[at + k] == own_class;
        found[k] += may_suppress<kForm>(b, sample.boxes.at(at + k), bounds) & is_same;
      }
    }
  }
  // Without the pairs of a box with itself.
  return std::accumulate(found, found + kStep, -compared);
}

// The fraction of pairs of one class of which a box suppresses the other one, in all pairs.
// `compared` boxes of the sample are compared with all boxes of it.
template <Form kForm>
double fraction_of_pairs(const BoxSample& sample, int compared, const RuleBounds& bounds) {
  compared = std::min(compared, sample.num);
  if (compared == 0) return 0;
  sample.boxes.clear_step(sample.num);
  const int pairs = simd<count_pairs<kForm>>(sample, compared, bounds);
  return (double)pairs / ((double)compared * sample.num);
}

}  // namespace cvops::cpu
