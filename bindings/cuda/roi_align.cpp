#include "roi_align.h"

#include <algorithm>

#include "align.h"

namespace cvops {
namespace {

constexpr int64 kMaxBlocks = CVOPS_STEP(1 << 20, 3);

}  // namespace

template <typename T>
void roi_align(Gpu& gpu, T* pooled, const T* data, const T* rois, int64 num_rois, RoiAlign op) {
  const int64 outputs = num_rois * op.channels * op.bins();
  if (outputs == 0) return;
  if ((int64)op.images * op.height * op.width == 0)
    return gpu.set_to_zero(pooled, sizeof(T) * outputs);
  launch_align<T>(gpu, KERNEL_OF(T, roi_align), num_rois, op,
                  [&](int64 blocks, int threads, int64 shared, int64 splits, bool in_shared) {
                    gpu.launch(KERNEL_OF(T, roi_align), blocks, threads, shared, pooled, data, rois,
                               num_rois, op, splits, in_shared);
                  });
}

template <typename T>
void roi_align_backward(Gpu& gpu, T* grad, const T* out_grad, const T* rois, int64 num_rois,
                        RoiAlign op) {
  if (op.bins() == 0) num_rois = 0;
  const int64 tiles = ceil_div(op.height, kGradTile) * ceil_div(op.width, kGradTile);
  const int64 groups = ceil_div(op.channels, kGradChannels) * op.plane_step();
  gpu.launch(KERNEL_OF(T, roi_align_backward), std::min(op.images * groups * tiles, kMaxBlocks),
             kGradThreads, 0, grad, out_grad, rois, num_rois, op);
}

#define CVOPS_INSTANTIATE(T)                                              \
  template void roi_align(Gpu&, T*, const T*, const T*, int64, RoiAlign); \
  template void roi_align_backward(Gpu&, T*, const T*, const T*, int64, RoiAlign);
CVOPS_INSTANTIATE(float)
CVOPS_INSTANTIATE(double)

}  // namespace cvops
