#pragma once
#include <cmath>

#include "gpu.h"
#include "nms/rule.cuh"
#include "topk.cuh"

namespace cvops {

// boxes (batch, num, 4) and scores (batch, classes, num).
template <typename T>
struct ClassScores {
  const T *boxes, *scores;
  int64 batch, classes, num;
};

// Arguments of the op in the form that its kernels take. At most `topk` candidates of an image take
// part. The result has `rows` rows per image.
struct MulticlassOptions {
  ScoreFilter filter;
  NmsRule rule;
  int topk, rows;
};

// Rank of the sample that becomes the bound, and capacity of the list of keys within the bound. The
// bound should include the best `topk` of `num` keys, and the list should hold all keys within it.
// Both margins are six standard deviations. Rank 0 means no bound.
struct Sampling {
  int rank, capacity;

  Sampling(int64 num, int topk) : rank(0), capacity((int)num) {
    if (num <= kSamples) return;
    const double expected = (double)topk * kSamples / (double)num;
    const double wanted = std::ceil(expected + 6 * std::sqrt(expected) + 8);
    const double fits = std::ceil((wanted + 6 * std::sqrt(wanted) + 8) * (double)num / kSamples);
    if (fits < (double)num) rank = (int)wanted, capacity = (int)fits;
  }
};

// out (batch, rows, 6) and counts (batch).
template <typename T>
void multiclass_nms(const Cpu&, T* out, int* counts, ClassScores<T> in, MulticlassOptions options);
template <typename T>
void multiclass_nms(Gpu&, T* out, int* counts, ClassScores<T> in, MulticlassOptions options);

}  // namespace cvops
