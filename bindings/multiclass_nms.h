#pragma once
#include "nms_rule.cuh"
#include "select.cuh"

struct CUstream_st;

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

// out (batch, rows, 6) and counts (batch).
namespace cpu {
void multiclass_nms(float* out, int* counts, ClassScores in, MulticlassOptions options);
}

namespace cuda {
int64 multiclass_nms_workspace(int64 batch, int64 classes, int64 num, int most);
void multiclass_nms(float* out, int* counts, void* workspace, ClassScores in,
                    MulticlassOptions options, CUstream_st* stream);
}  // namespace cuda

}  // namespace cvops
