// Launch of a kernel that calls align_bins of roi_samples.cuh.
#pragma once
#include <algorithm>

#include "gpu.h"
#include "roi_planes.h"
#include "roi_samples.cuh"

namespace cvops {

constexpr int kAlignThreads = CVOPS_STEP(256, 64), kPlainAlignThreads = CVOPS_STEP(128, 64);
constexpr int64 kMaxAlignBlocks = CVOPS_STEP(1 << 20, 3);
constexpr int64 kBlocksOfMultiprocessor = 3;  // that fit by their registers

// launch(blocks, threads, bytes of shared memory, splits, in_shared) makes the launch of `kernel`.
template <typename T, typename Op, typename Launch>
void launch_align(const Gpu& gpu, const Kernel& kernel, int64 num_rois, const Op& op,
                  const Launch& launch) {
  const int64 outputs = num_rois * op.bins(), pixels = (int64)op.height * op.width;
  const int64 groups = ceil_div(op.channels, kChannelsAtOnce);
  const int64 shared = kChannelsAtOnce * sizeof(T) * pixels, max_shared = gpu.max_shared(kernel);
  if (op.plane_step() == 1 && shared <= max_shared &&
      cuda::planes_pay(gpu, op.images, groups, pixels, outputs)) {
    const int64 blocks =
        gpu.multiprocessors() * std::min(kBlocksOfMultiprocessor, max_shared / shared);
    const int64 splits =
        std::clamp<int64>(blocks / (op.images * groups), 1, ceil_div(outputs, kAlignThreads));
    launch(std::min(op.images * groups * splits, kMaxAlignBlocks), kAlignThreads, shared, splits,
           true);
    return;
  }
  // A thread has one bin, or several if there are very many. Small blocks fill a GPU with few bins.
  int threads = kPlainAlignThreads;
  while (threads > 32 && groups * ceil_div(outputs, threads) < 2 * gpu.multiprocessors()) {
    threads /= 2;
  }
  const int64 splits = std::min(ceil_div(outputs, threads), kMaxAlignBlocks);
  launch(std::min(groups * splits, kMaxAlignBlocks), threads, 0, splits, false);
}

}  // namespace cvops
