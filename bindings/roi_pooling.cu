#include <algorithm>

#include "launch.h"
#include "roi_pooling.h"

void cvops::cuda::roi_pooling(float* pooled, int* argmax, const float* data, const float* rois,
                              int64 num_rois, RoiPooling op, cudaStream_t stream) {
  if (op.channels == 0) return;
  // A thread goes through its bin's channels twice, kChannelsAtOnce at a time.
  constexpr int threads = 256;
  int64 bins = (int64)op.pooled_height * op.pooled_width;
  int64 at_once = kChannelsAtOnce * std::max<int64>(threads / bins, 1);
  int64 groups = ceil_div(op.channels, 2 * at_once), group = ceil_div(op.channels, groups);
  dim3 grid((unsigned)std::min<int64>(num_rois * ceil_div(op.channels, group), 1 << 20));
  launch("roi_pooling", ::roi_pooling, grid, threads, 0, stream, pooled, argmax, data, rois,
         num_rois, op, group, argmax != nullptr);
}

void cvops::cuda::roi_pooling_backward(float* grad, const float* out_grad, const int* argmax,
                                       RoiPoolingGrad size, cudaStream_t stream) {
  if ((int64)size.images * size.channels * size.pixels == 0) return;
  // One block goes through all outputs of its channel, whatever their image: several share a
  // channel only where there are too few channels to fill a GPU.
  int64 groups = std::min<int64>(size.images, ceil_div(256, size.channels));
  int64 group = ceil_div(size.images, groups);
  dim3 grid((unsigned)std::min<int64>(size.channels * ceil_div(size.images, group), 1 << 20));
  launch("roi_pooling_backward", ::roi_pooling_backward, grid, 512, 0, stream, grad, out_grad,
         argmax, size.rois, size.bins, size.images, size.channels, size.pixels, group);
}
