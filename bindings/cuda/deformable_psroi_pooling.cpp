#include "deformable_psroi_pooling.h"

#include <algorithm>

namespace cvops {
namespace {

constexpr int64 kMaxBlocks = CVOPS_STEP(1 << 20, 3);

}  // namespace

void deformable_psroi_pooling(Gpu& gpu, float* pooled, const float* data, const float* rois,
                              const float* trans, int64 num_rois, DeformablePsroi op) {
  const Psroi& psroi = op.psroi;
  const int64 bins = num_rois * psroi.bins(), outputs = bins * psroi.output_dim;
  if (outputs == 0) return;
  if ((int64)psroi.images * psroi.pixels() == 0) return gpu.set_to_zero(pooled, 4 * outputs);
  constexpr int threads = CVOPS_STEP(256, 32);
  const int64 groups = ceil_div(op.channels_of_class(), kChannelsAtOnce) * op.classes;
  const Dim3 grid(std::min(ceil_div(bins, threads), kMaxBlocks),
                  std::min<int64>(groups, kMaxGridY));
  gpu.launch(KERNEL(deformable_psroi_pooling), grid, threads, 0, pooled, data, rois, trans,
             num_rois, op);
}

void deformable_psroi_pooling_backward(Gpu& gpu, float* grad, float* trans_grad,
                                       const float* out_grad, const float* data, const float* rois,
                                       const float* trans, int64 num_rois, DeformablePsroi op) {
  const Psroi& psroi = op.psroi;
  const int64 elements = (int64)psroi.images * psroi.channels * psroi.pixels();
  const int64 offsets = trans ? num_rois * op.classes * op.parts() : 0;
  if (elements == 0) return gpu.set_to_zero(trans_grad, 8 * offsets);
  // The kernel does not write the planes that no bin reads.
  if (psroi.used_channels() < psroi.channels) gpu.set_to_zero(grad, 4 * elements);
  const int64 tiles = ceil_div(psroi.height, kPsroiTile) * ceil_div(psroi.width, kPsroiTile);
  const int64 groups =
      ceil_div(op.channels_of_class(), kPsroiChannels) * op.classes * psroi.cells();
  gpu.launch(KERNEL(deformable_psroi_pooling_backward),
             std::min(psroi.images * groups * tiles, kMaxBlocks), kPsroiThreads, 0, grad, out_grad,
             rois, trans, num_rois, op);
  constexpr int offset_threads = CVOPS_STEP(64, 32);
  gpu.launch(KERNEL(deformable_psroi_pooling_offsets),
             std::min(ceil_div(offsets, offset_threads), kMaxBlocks), offset_threads, 0, trans_grad,
             out_grad, data, rois, trans, num_rois, op);
}

}  // namespace cvops
