#include "roi_align.h"

#include <algorithm>

namespace cvops {
namespace {

constexpr int kThreads = CVOPS_STEP(256, 64);
constexpr int64 kMaxBlocks = CVOPS_STEP(1 << 20, 3);
constexpr int64 kBlocksOfMultiprocessor = 3;  // that fit by their registers

// True if the bins read each pixel at least once, so that planes in shared memory pay.
bool worth_sharing(const Gpu& gpu, int64 num_rois, const RoiAlign& op) {
  const int64 pixels = (int64)op.height * op.width;
  return !op.position_sensitive && num_rois * op.bins() >= op.images * pixels &&
         16 * pixels <= gpu.max_shared(KERNEL(roi_align));
}

}  // namespace

void roi_align(Gpu& gpu, float* pooled, const float* data, const float* rois, int64 num_rois,
               RoiAlign op) {
  const int64 outputs = num_rois * op.bins(), pixels = (int64)op.height * op.width;
  if (outputs * op.channels == 0) return;
  if (op.images * pixels == 0) {
    return gpu.set_to_zero(pooled, 4 * outputs * op.channels);
  }
  const int64 groups = ceil_div(op.channels, kChannelsAtOnce);
  if (worth_sharing(gpu, num_rois, op)) {
    const int64 shared = 16 * pixels, max_shared = gpu.max_shared(KERNEL(roi_align));
    const int64 blocks =
        gpu.multiprocessors() * std::min(kBlocksOfMultiprocessor, max_shared / shared);
    const int64 splits =
        std::clamp<int64>(blocks / (op.images * groups), 1, ceil_div(outputs, kThreads));
    gpu.launch(KERNEL(roi_align), std::min(op.images * groups * splits, kMaxBlocks), kThreads,
               shared, pooled, data, rois, num_rois, op, splits, true);
    return;
  }
  // A thread has one bin, or several if there are very many.
  constexpr int threads = CVOPS_STEP(128, 32);
  const int64 splits = std::min(ceil_div(outputs, threads), kMaxBlocks);
  gpu.launch(KERNEL(roi_align), std::min(groups * splits, kMaxBlocks), threads, 0, pooled, data,
             rois, num_rois, op, splits, false);
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
