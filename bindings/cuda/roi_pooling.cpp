#include "roi_pooling.h"

#include <algorithm>

#include "roi_planes.h"

namespace cvops {
namespace {

constexpr int kThreads = CVOPS_STEP(1024, 64), kPlainThreads = CVOPS_STEP(256, 64);
constexpr int64 kMaxBlocks = CVOPS_STEP(1 << 20, 3);
// Maximum bytes of the RoIs that a block holds at once, and minimum number of RoIs per block.
constexpr int64 kMaxBytes = CVOPS_STEP(32768, 256), kWorthwhile = CVOPS_STEP(32, 3);
constexpr int64 kBackwardBlocks = CVOPS_STEP(256, 4);  // enough to fill a GPU

// Launch of roi_pooling_staged. at_once is 0 if that version does not pay.
struct SharedLaunch {
  int64 blocks, splits, at_once, shared;
};

SharedLaunch shared_launch(const Gpu& gpu, int64 num_rois, const RoiPooling& op) {
  const int64 pixels = (int64)op.height * op.width,
              bins = (int64)op.pooled_height * op.pooled_width;
  const int64 of_image = ceil_div(op.channels, kChannelsAtOnce), groups = op.images * of_image;
  if (groups * pixels == 0) return {};
  if (!cuda::planes_pay(gpu, op.images, of_image, pixels, num_rois * bins)) return {};
  // One block fills a multiprocessor.
  const int64 splits =
      std::clamp<int64>(gpu.multiprocessors() / groups, 1, ceil_div(num_rois * bins, kThreads));
  const int64 rois = ceil_div(num_rois, splits);
  const int64 planes = 36 * pixels + 4,
              roi = (int64)4 * words_of_roi(op.pooled_height, op.pooled_width);
  const int64 capacity = gpu.max_shared(KERNEL(roi_pooling_staged)) - planes;
  const int64 at_once = std::min({rois, capacity / roi, kMaxBytes / roi});
  if (at_once < std::min(rois, kWorthwhile)) return {};
  return {groups * splits, splits, at_once, planes + at_once * roi};
}

// Launch of roi_pooling. A block has `group` channels of a RoI.
struct PlainLaunch {
  int64 blocks, group;
  int threads;
};

PlainLaunch plain_launch(const Gpu& gpu, int64 num_rois, const RoiPooling& op) {
  const int64 bins = (int64)op.pooled_height * op.pooled_width;
  int threads = kPlainThreads;
  for (int64 loops = 2;; loops = 1) {  // of a thread over the channels of its bin
    const int64 at_once = kChannelsAtOnce * std::max<int64>(threads / bins, 1);
    const int64 groups = ceil_div(op.channels, loops * at_once);
    const int64 group = ceil_div(op.channels, groups);
    const int64 blocks = num_rois * ceil_div(op.channels, group);
    const bool shrinks = threads / 2 >= std::max<int64>(bins, 32);
    if (blocks >= 2 * gpu.multiprocessors() || (loops == 1 && !shrinks)) {
      return {blocks, group, threads};
    }
    if (loops == 1) threads /= 2;
  }
}

}  // namespace

template <typename T>
void roi_pooling(Gpu& gpu, T* pooled, int* argmax, const T* data, const T* rois, int64 num_rois,
                 RoiPooling op) {
  if (op.channels == 0) return;
  const bool with_argmax = argmax != nullptr;
  if constexpr (std::is_same_v<T, float>) {
    const SharedLaunch staged = shared_launch(gpu, num_rois, op);
    if (staged.at_once) {
      gpu.launch(KERNEL(roi_pooling_staged), std::min(staged.blocks, kMaxBlocks), kThreads,
                 staged.shared, pooled, argmax, data, rois, num_rois, op, staged.splits,
                 staged.at_once, with_argmax);
      return;
    }
  }
  const auto [blocks, group, threads] = plain_launch(gpu, num_rois, op);
  gpu.launch(KERNEL_OF(T, roi_pooling), std::min(blocks, kMaxBlocks), threads, 0, pooled, argmax,
             data, rois, num_rois, op, group, with_argmax);
}

template <typename T>
void roi_pooling_backward(Gpu& gpu, T* grad, const T* out_grad, const int* argmax,
                          RoiPoolingGrad size) {
  if ((int64)size.images * size.channels * size.pixels == 0) return;
  // A block takes all outputs of its channel in some images. Images share a block unless there are
  // too few channels to fill a GPU.
  const int64 groups = std::min<int64>(size.images, ceil_div(kBackwardBlocks, size.channels));
  const int64 group = ceil_div(size.images, groups);
  const int64 sums = sizeof(T) * group * size.pixels;
  const bool in_shared =
      (int64)sizeof(StagingBuffer<T>) + sums <= gpu.max_shared(KERNEL_OF(T, roi_pooling_backward));
  gpu.launch(KERNEL_OF(T, roi_pooling_backward),
             std::min(size.channels * ceil_div(size.images, group), kMaxBlocks), kOwners<T>,
             (int64)sizeof(StagingBuffer<T>) + (in_shared ? sums : 0), grad, out_grad, argmax,
             size.rois, size.bins, size.images, size.channels, size.pixels, group, in_shared);
}

#define CVOPS_INSTANTIATE(T)                                                        \
  template void roi_pooling(Gpu&, T*, int*, const T*, const T*, int64, RoiPooling); \
  template void roi_pooling_backward(Gpu&, T*, const T*, const int*, RoiPoolingGrad);
CVOPS_INSTANTIATE(float)
CVOPS_INSTANTIATE(double)

}  // namespace cvops
