#pragma once
#include "box_nms.h"
#include "gpu.h"
#include "soft_nms.cuh"

namespace cvops {

// Candidates, the decay of their scores, and rows per set of the result.
struct SoftNmsOptions {
  NmsOptions candidates;
  SoftNms op;
  int rows;
};

// data (batch, num, width) -> out (batch, rows, width). index (batch, rows): the row of data,
// within its set, of each row of out, or -1. It may be null.
void soft_nms(const Cpu&, float* out, int* index, const float* data, int64 batch, int64 num,
              const SoftNmsOptions& options);
void soft_nms(Gpu&, float* out, int* index, const float* data, int64 batch, int64 num,
              const SoftNmsOptions& options);

}  // namespace cvops
