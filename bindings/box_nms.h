#pragma once
#include "box_nms.cuh"
#include "gpu.h"
#include "nms_rule.cuh"

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
void box_nms(const Cpu&, float* out, int* index, const float* data, int64 batch, int64 num,
             NmsOptions options);
void box_nms(Gpu&, float* out, int* index, const float* data, int64 batch, int64 num,
             NmsOptions options);
void box_nms_backward(const Cpu&, float* grad, const float* out_grad, const int* index, int64 batch,
                      int64 num, int width);
void box_nms_backward(Gpu&, float* grad, const float* out_grad, const int* index, int64 batch,
                      int64 num, int width);

}  // namespace cvops
