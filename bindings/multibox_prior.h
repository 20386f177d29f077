#pragma once
#include "multibox_prior.cuh"

struct CUstream_st;

namespace cvops {

// The shapes of the anchors of each cell, `num` of them.
struct Shapes {
  const float *size, *ratio;
  int num;
};

namespace cpu {
void multibox_prior(float* out, PriorGrid grid, Shapes shapes, bool clip);
}

namespace cuda {
void multibox_prior(float* out, PriorGrid grid, Shapes shapes, bool clip, CUstream_st* stream);
}

}  // namespace cvops
