// box_iou: out[i, j] = intersection over union of lhs[i] and rhs[j].
// A thread makes four neighbours of out, so that it stores 16 bytes at once: the op writes far more
// than it reads (the boxes stay in the caches), and the stores set its pace.
#pragma once
#include "box.cuh"

namespace cvops {

CVOPS_HD float box_iou_of(SizedBox lhs, SizedBox rhs, bool center) {
  float overlap = intersection(lhs.box, rhs.box, center);
  return overlap <= 0 ? 0.0f : overlap / (lhs.area + rhs.area - overlap);
}

}  // namespace cvops

#ifdef __CUDACC__
// out (M, N), lhs (M, 4), rhs (N, 4); total = M N.
extern "C" __global__ void __launch_bounds__(256, 4)
    box_iou(float* __restrict__ out, const float* __restrict__ lhs, const float* __restrict__ rhs,
            int num_rhs, long long total, int center) {
  using namespace cvops;
  // Divisions of 64 bits are slow: the place of the next four follows from that of these.
  const int64 stride = 4ll * gridDim.x * blockDim.x;
  const int rows_ahead = (int)(stride / num_rhs), columns_ahead = (int)(stride % num_rhs);
  int64 k = 4ll * (blockIdx.x * (int64)blockDim.x + threadIdx.x);
  int row = (int)(k / num_rhs), column = (int)(k % num_rhs);
  for (; k < total; k += stride) {
    int i = row, j = column;
    const bool wraps = column >= num_rhs - columns_ahead;
    row += rows_ahead + wraps, column += columns_ahead - (wraps ? num_rhs : 0);
    SizedBox box = sized(load_box(lhs, i), center);
    float iou[4];
#pragma unroll
    for (int n = 0; n < 4; ++n) {
      if (k + n < total) iou[n] = box_iou_of(box, sized(load_box(rhs, j), center), center);
      if (++j == num_rhs && k + n + 1 < total) {
        j = 0;
        box = sized(load_box(lhs, ++i), center);
      }
    }
    if (k + 4 <= total) {
      *reinterpret_cast<float4*>(out + k) = make_float4(iou[0], iou[1], iou[2], iou[3]);
    } else {
#pragma unroll  // so that iou stays in registers
      for (int n = 0; n < 3; ++n) {
        if (k + n < total) out[k + n] = iou[n];
      }
    }
  }
}
#endif
