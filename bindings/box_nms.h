#pragma once
#include "box_nms.cuh"
#include "nms_rule.cuh"

struct CUstream_st;

namespace cvops {

// The arguments of the op as its kernels take them.
struct NmsOptions {
  NmsColumns columns;
  NmsRule rule;
  float valid_thresh, background_id;
  int conversion, limit;
};

namespace cpu {
void box_nms(float* out, const float* data, int64 batch, int64 num, NmsOptions options);
}

namespace cuda {
int64 box_nms_workspace(int64 batch, int64 num);
void box_nms(float* out, void* workspace, const float* data, int64 batch, int64 num,
             NmsOptions options, CUstream_st* stream);
}  // namespace cuda

}  // namespace cvops
