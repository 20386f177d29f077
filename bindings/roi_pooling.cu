#include <algorithm>

#include "launch.h"
#include "roi_pooling.h"

namespace cvops::cuda {
namespace {

constexpr int kThreads = CVOPS_STEP(1024, 64);
constexpr int64 kMostBlocks = CVOPS_STEP(1 << 20, 3);
// The bytes of the rois that a block looks at together at most, and the rois that it should have.
constexpr int64 kMostBytes = CVOPS_STEP(32768, 256), kWorthwhile = CVOPS_STEP(32, 3);
constexpr int64 kBackwardBlocks = CVOPS_STEP(256, 4);  // that fill a GPU

// How roi_pooling_staged is launched: `at_once` is 0 if it is not.
struct Staging {
  int64 blocks;
  int parts, at_once;
  size_t shared;
};

Staging staging(int64 num_rois, const RoiPooling& op) {
  const int64 pixels = (int64)op.height * op.width,
              bins = (int64)op.pooled_height * op.pooled_width;
  const int64 groups = op.images * ceil_div(op.channels, kChannelsAtOnce);
  // Worth it where each pixel has a bin's result to give.
  if (groups * pixels == 0 || num_rois * bins < op.images * pixels) return {};
  // One block fills a multiprocessor.
  const int64 idle = device_attribute(cudaDevAttrMultiProcessorCount) / groups;
  const int64 parts = std::clamp<int64>(idle, 1, ceil_div(num_rois * bins, kThreads));
  const int64 rois = ceil_div(num_rois, parts);
  const int64 planes = 36 * pixels + 4,
              roi = (int64)4 * words_of_roi(op.pooled_height, op.pooled_width);
  const int64 room = most_dynamic_shared(::roi_pooling_staged) - planes;
  const int64 at_once = std::min({rois, room / roi, kMostBytes / roi});
  if (at_once < std::min(rois, kWorthwhile)) return {};
  return {groups * parts, (int)parts, (int)at_once, (size_t)(planes + at_once * roi)};
}

}  // namespace

void roi_pooling(float* pooled, int* argmax, const float* data, const float* rois, int64 num_rois,
                 RoiPooling op, cudaStream_t stream) {
  if (op.channels == 0) return;
  const Staging staged = staging(num_rois, op);
  if (staged.at_once) {
    dim3 grid((unsigned)std::min(staged.blocks, kMostBlocks));
    launch("roi_pooling_staged", ::roi_pooling_staged, grid, kThreads, staged.shared, stream,
           pooled, argmax, data, rois, num_rois, op, staged.parts, staged.at_once,
           argmax != nullptr);
    return;
  }
  // A thread goes through its bin's channels twice, kChannelsAtOnce at a time.
  constexpr int threads = CVOPS_STEP(256, 32);
  int64 bins = (int64)op.pooled_height * op.pooled_width;
  int64 at_once = kChannelsAtOnce * std::max<int64>(threads / bins, 1);
  int64 groups = ceil_div(op.channels, 2 * at_once), group = ceil_div(op.channels, groups);
  dim3 grid((unsigned)std::min(num_rois * ceil_div(op.channels, group), kMostBlocks));
  launch("roi_pooling", ::roi_pooling, grid, threads, 0, stream, pooled, argmax, data, rois,
         num_rois, op, group, argmax != nullptr);
}

void roi_pooling_backward(float* grad, const float* out_grad, const int* argmax,
                          RoiPoolingGrad size, cudaStream_t stream) {
  if ((int64)size.images * size.channels * size.pixels == 0) return;
  // One block goes through all outputs of its channel, whatever their image: several share a
  // channel only where there are too few channels to fill a GPU.
  const int64 groups = std::min<int64>(size.images, ceil_div(kBackwardBlocks, size.channels));
  const int64 group = ceil_div(size.images, groups);
  const int64 sums = 4 * group * size.pixels;
  const bool in_shared = (int64)sizeof(Shelf) + sums <= most_dynamic_shared(::roi_pooling_backward);
  dim3 grid((unsigned)std::min(size.channels * ceil_div(size.images, group), kMostBlocks));
  launch("roi_pooling_backward", ::roi_pooling_backward, grid, kOwners,
         sizeof(Shelf) + (in_shared ? sums : 0), stream, grad, out_grad, argmax, size.rois,
         size.bins, size.images, size.channels, size.pixels, group, in_shared);
}

}  // namespace cvops::cuda
