#include <algorithm>

#include "box_iou.cuh"
#include "box_iou.h"
#include "launch.h"

void cvops::cuda::box_iou(float* out, const float* lhs, const float* rhs, int64 num_lhs,
                          int64 num_rhs, bool center, cudaStream_t stream) {
  int64 total = num_lhs * num_rhs;
  dim3 grid((unsigned)std::min<int64>(ceil_div(total, 1024), 1 << 12));
  launch("box_iou", ::box_iou, grid, 256, 0, stream, out, lhs, rhs, (int)num_rhs, total, center);
}
