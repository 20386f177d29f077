#include "rroi_align.h"

#include <algorithm>

#include "align.h"

namespace cvops {

void rroi_align(Gpu& gpu, float* pooled, const float* data, const float* rois, int64 num_rois,
                RroiAlign op) {
  const int64 outputs = num_rois * op.channels * op.bins();
  if (outputs == 0) return;
  if ((int64)op.images * op.height * op.width == 0) return gpu.set_to_zero(pooled, 4 * outputs);
  SinCos* const angles = gpu.scratch<SinCos>(num_rois);
  constexpr int angle_threads = CVOPS_STEP(256, 32);
  constexpr int64 angle_blocks = CVOPS_STEP(1 << 20, 3);
  gpu.launch(KERNEL(rroi_align_angles), std::min(ceil_div(num_rois, angle_threads), angle_blocks),
             angle_threads, 0, angles, rois, num_rois);
  launch_align<float>(gpu, KERNEL(rroi_align), num_rois, op,
                      [&](int64 blocks, int threads, int64 shared, int64 splits, bool in_shared) {
                        gpu.launch(KERNEL(rroi_align), blocks, threads, shared, pooled, data, rois,
                                   angles, num_rois, op, splits, in_shared);
                      });
}

}  // namespace cvops
