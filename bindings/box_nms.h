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

// Of data (batch, num, width). A limit of 0 gives a copy of it. index (batch, num) has the row of
// data, of its set, that each row of out came from, or -1; it may be null in box_nms: it is not
// written then. What of index is no row is left out of the gradient; of equal ones the last counts.
namespace cpu {
void box_nms(float* out, int* index, const float* data, int64 batch, int64 num, NmsOptions options);
void box_nms_backward(float* grad, const float* out_grad, const int* index, int64 batch, int64 num,
                      int width);
}  // namespace cpu

namespace cuda {
int64 box_nms_workspace(int64 batch, int64 num, int limit);
void box_nms(float* out, int* index, void* workspace, const float* data, int64 batch, int64 num,
             NmsOptions options, CUstream_st* stream);
void box_nms_backward(float* grad, const float* out_grad, const int* index, int64 batch, int64 num,
                      int width, CUstream_st* stream);
}  // namespace cuda

}  // namespace cvops
