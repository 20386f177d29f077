#pragma once
#include <cmath>

#include "gpu.h"
#include "nms_rule.cuh"
#include "select.cuh"

namespace cvops {

// boxes (batch, num, 4) and scores (batch, classes, num).
struct ClassScores {
  const float *boxes, *scores;
  int64 batch, classes, num;
};

// The arguments of the op as its kernels take them: at most `most` candidates of an image take
// part, and the result has `rows` of each.
struct MulticlassOptions {
  Candidates candidates;
  NmsRule rule;
  int most, rows;
};

// Which of the best of a sample of `num` keys is the bound, and room for those within it: the best
// `most` of all should be, and what is should fit. Each is six standard deviations away. A rank of
// 0 means that there is no bound.
struct Sampling {
  int rank, room;

  Sampling(int64 num, int most) : rank(0), room((int)num) {
    if (num <= kSamples) return;
    const double expected = (double)most * kSamples / (double)num;
    const double wanted = std::ceil(expected + 6 * std::sqrt(expected) + 8);
    const double fits = std::ceil((wanted + 6 * std::sqrt(wanted) + 8) * (double)num / kSamples);
    if (fits < (double)num) rank = (int)wanted, room = (int)fits;
  }
};

// out (batch, rows, 6) and counts (batch).
void multiclass_nms(const Cpu&, float* out, int* counts, ClassScores in, MulticlassOptions options);
void multiclass_nms(Gpu&, float* out, int* counts, ClassScores in, MulticlassOptions options);

}  // namespace cvops
