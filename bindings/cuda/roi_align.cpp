#include "roi_align.h"

#include <algorithm>

#include "align.h"

namespace cvops {
namespace {

constexpr int64 kMaxBlocks = CVOPS_STEP(1 << 20, 3);

}  // namespace

void roi_align(Gpu& gpu, float* pooled, const float* data, const float* rois, int64 num_rois,
               RoiAlign op) {
  const int64 outputs = num_rois * op.channels * op.bins();
  if (outputs == 0) return;
  if ((int64)op.images * op.height * op.width == 0) return gpu.set_to_zero(pooled, 4 * outputs);
  launch_align(gpu, KERNEL(roi_align), num_rois, op,
               [&](int64 blocks, int threads, int64 shared, int64 splits, bool in_shared) {
                 gpu.launch(KERNEL(roi_align), blocks, threads, shared, pooled, data, rois,
                            num_rois, op, splits, in_shared);
               });
}

void roi_align_backward(Gpu& gpu, float* grad, const float* out_grad, const float* rois,
                        int64 num_rois, RoiAlign op) {
  if (op.bins() == 0) num_rois = 0;
  const int64 tiles = ceil_div(op.height, kGradTile) * ceil_div(op.width, kGradTile);
  const int64 groups = ceil_div(op.channels, kGradChannels) * op.plane_step();
  gpu.launch(KERNEL(roi_align_backward), std::min(op.images * groups * tiles, kMaxBlocks),
             kGradThreads, 0, grad, out_grad, rois, num_rois, op);
}

}  // namespace cvops
