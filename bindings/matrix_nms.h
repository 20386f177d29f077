#pragma once
#include "box_nms.h"
#include "gpu.h"
#include "matrix_nms.cuh"

namespace cvops {

// Candidates, the decay of their scores, the score that a row must exceed after it, and rows per
// set of the result.
struct MatrixNmsOptions {
  NmsOptions candidates;
  MatrixNms op;
  float post_thresh;
  int rows;
};

// data (batch, num, width) -> out (batch, rows, width). index (batch, rows): the row of data,
// within its set, of each row of out, or -1. It may be null.
void matrix_nms(const Cpu&, float* out, int* index, const float* data, int64 batch, int64 num,
                const MatrixNmsOptions& options);
void matrix_nms(Gpu&, float* out, int* index, const float* data, int64 batch, int64 num,
                const MatrixNmsOptions& options);

}  // namespace cvops
