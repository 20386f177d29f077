#include "psroi_pooling.h"

#include <algorithm>

namespace cvops {
namespace {

constexpr int64 kMaxBlocks = CVOPS_STEP(1 << 20, 3);

}  // namespace

void psroi_pooling(Gpu& gpu, float* pooled, const float* data, const float* rois, int64 num_rois,
                   Psroi op) {
  const int64 bins = num_rois * op.bins(), outputs = bins * op.output_dim;
  if (outputs == 0) return;
  if ((int64)op.images * op.pixels() == 0) return gpu.set_to_zero(pooled, 4 * outputs);
  constexpr int threads = CVOPS_STEP(256, 32);
  const Dim3 grid(std::min(ceil_div(bins, threads), kMaxBlocks),
                  std::min<int64>(ceil_div(op.output_dim, kChannelsAtOnce), kMaxGridY));
  gpu.launch(KERNEL(psroi_pooling), grid, threads, 0, pooled, data, rois, num_rois, op);
}

void psroi_pooling_backward(Gpu& gpu, float* grad, const float* out_grad, const float* rois,
                            int64 num_rois, Psroi op) {
  const int64 elements = (int64)op.images * op.channels * op.pixels();
  if (elements == 0) return;
  // The kernel does not write the planes that no bin reads.
  if (op.used_channels() < op.channels) gpu.set_to_zero(grad, 4 * elements);
  const int64 tiles = ceil_div(op.height, kPsroiTile) * ceil_div(op.width, kPsroiTile);
  const int64 groups = ceil_div(op.output_dim, kPsroiChannels) * op.cells();
  gpu.launch(KERNEL(psroi_pooling_backward), std::min(op.images * groups * tiles, kMaxBlocks),
             kPsroiThreads, 0, grad, out_grad, rois, num_rois, op);
}

}  // namespace cvops
