#pragma once
#include "bipartite_matching.cuh"
#include "gpu.h"
#include "sort.cuh"

namespace cvops {

// Maximum number of pairs in a matrix: a grid has at most 65535 tiles along the y axis.
constexpr int64 kMaxPairs = 65535 * (int64)kSortTile;

// `num` matrices of that size.
struct MatchingShape {
  int64 batch, rows, columns;
};

struct MatchingOptions {
  float threshold;
  bool is_ascend;
  int topk;

  // Maximum number of matched pairs in a matrix. As in MXNet it is topk + 1 if topk is positive.
  int64 limit(MatchingShape shape) const {
    const int64 most = shape.rows < shape.columns ? shape.rows : shape.columns;
    return topk > 0 && topk < most ? topk + 1 : most;
  }
};

// columns (B, N), rows (B, M), data (B, N, M).
void bipartite_matching(const Cpu&, float* columns, float* rows, const float* data,
                        MatchingShape shape, MatchingOptions options);
void bipartite_matching(Gpu&, float* columns, float* rows, const float* data, MatchingShape shape,
                        MatchingOptions options);

}  // namespace cvops
