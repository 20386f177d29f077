#include "adaptive_avg_pooling.h"

#include <algorithm>

namespace cvops {

static constexpr int64 kMaxBlocks = CVOPS_STEP(1 << 20, 3);

void adaptive_avg_pooling(Gpu& gpu, float* out, const float* data, int64 planes,
                          AdaptivePooling op) {
  if (planes == 0) return;
  // A block has at most one bin per thread and about 32 KiB of pixels. Several blocks for each
  // multiprocessor hide the latency of the loads.
  constexpr int threads = CVOPS_STEP(256, 32), pixels = CVOPS_STEP(8192, 64);
  constexpr int64 min_columns = CVOPS_STEP(32, 2), blocks_of_multiprocessor = 4;
  const int64 bins = std::min(op.bins(), threads), tiles = ceil_div(op.bins(), bins) * op.bands();
  const int64 wanted = blocks_of_multiprocessor * gpu.multiprocessors();
  const int64 group = std::max<int64>(std::min(threads / bins, planes * tiles / wanted), 1);
  const int64 columns = std::min<int64>(op.columns(), std::max(pixels / group, min_columns));
  const int64 blocks = ceil_div(planes, group) * tiles;
  const int64 shared = sizeof(float) * group * (padded((int)columns) | 1);
  gpu.launch(KERNEL(adaptive_avg_pooling), std::min(blocks, kMaxBlocks), threads, shared, out, data,
             planes, op, group, bins, columns);
}

void adaptive_avg_pooling_backward(Gpu& gpu, float* grad, const float* out_grad, int64 planes,
                                   AdaptivePooling op) {
  if (planes == 0) return;
  const int64 lines = ceil_div(planes, kPoolPlanes) * ceil_div(op.rows(), kPoolRows);
  const int64 blocks = ceil_div(lines * op.columns(), 256);
  gpu.launch(KERNEL(adaptive_avg_pooling_backward), std::min(blocks, kMaxBlocks), 256, 0, grad,
             out_grad, planes, op);
}

}  // namespace cvops
