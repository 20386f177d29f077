// The candidates among the scores of all classes, which multiclass_nms and topk share.
#pragma once
#include "radix_select.cuh"

namespace cvops {

// Filter of the scores of a row: above the threshold and outside [skip, skip_end).
struct ScoreFilter {
  float threshold;
  int skip, skip_end;

  template <typename T>
  CVOPS_HD bool passes(T score, int i) const {
    return score > threshold && (i < skip || i >= skip_end);
  }
};

CVOPS_HD uint64 candidate_key(const float* scores, int i, ScoreFilter filter) {
  const float score = scores[i];
  return filter.passes(score, i) ? sort_key(score, (uint32)i) : kNoKey;
}

// Keys among which the best of each row of scores are, from topk_collect.
struct CandidateList {
  const uint64* keys;    // (B, capacity); null: no list
  const int* found;      // (B): number of keys, which can exceed the capacity
  const uint64* bounds;  // (B)
  int capacity;

#ifdef __CUDACC__
  // Returns find(key_at, count) for the list of row `batch`, or for its scores (num) if the list
  // does not have the best `topk` keys.
  template <typename Find>
  __device__ __forceinline__ auto among(int batch, const float* __restrict__ scores, int num,
                                        int topk, const ScoreFilter& filter,
                                        const Find& find) const {
    const int listed = keys ? found[batch] : 0;
    const bool complete =
        keys && listed <= capacity && (listed >= topk || bounds[batch] == kAllKeys);
    const uint64* const list = keys + (int64)batch * capacity;
    const auto key_at = [&](int i) {
      return complete ? list[i] : candidate_key(scores, i, filter);
    };
    return find(key_at, complete ? listed : num);
  }
#endif
};

}  // namespace cvops
