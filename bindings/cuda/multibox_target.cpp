#include "multibox_target.h"

#include <algorithm>

#include "mining.cuh"
#include "target_assignment.cuh"

namespace cvops {
namespace {

// Maximum number of splits per image. More would only use memory.
constexpr int64 kMaxSplits = CVOPS_STEP(512, 3);
// Concurrent blocks on a large GPU.
constexpr int kBlocks = CVOPS_STEP(256, 5);

TargetBuffers buffers_of(Gpu& gpu, TargetShape shape, bool mining) {
  const int64 images = shape.num_images, row = row_length(shape.num_anchors);
  TargetBuffers b = {};
  b.num_splits = (int)std::min(ceil_div(shape.num_anchors, 4 * kTargetThreads), kMaxSplits);
  b.states = gpu.scratch<int>(images * row);
  b.keys = gpu.scratch<uint64>(images * b.num_splits * shape.num_truths);
  b.counts = gpu.scratch<AnchorCounts>(images * b.num_splits);
  b.num_valid = gpu.scratch<int>(images);
  if (mining) {
    b.wanted = gpu.scratch<int>(images);
    b.bounds = gpu.scratch<uint64>(images);
    b.scores = gpu.scratch<uint32>(images * row);
    b.bins = gpu.scratch<uint32>(images * kDigitBins);
    b.finished_blocks = gpu.scratch<uint32>(images);
  }
  return b;
}

}  // namespace

void multibox_target(Gpu& gpu, TargetOutputs out, TargetInputs in, TargetShape shape,
                     TargetOptions options) {
  if (shape.num_images == 0) return;
  const bool mining = options.mining_ratio > 0;
  const TargetBuffers b = buffers_of(gpu, shape, mining);
  const int images = std::min(shape.num_images, kMaxGridY);
  auto over_anchors = [&](int per_block) {
    return Dim3(ceil_div(shape.num_anchors, per_block), images);
  };
  gpu.launch(KERNEL(multibox_target_match), {b.num_splits, images}, kTargetThreads, 0, b, in.anchor,
             in.label, shape, options);
  gpu.launch(KERNEL(multibox_target_assign), images, 1024, 0, b, in.anchor, in.label, shape,
             options);
  if (mining) {
    gpu.launch(KERNEL(multibox_target_score), over_anchors(8 * kScoreThreads), kScoreThreads, 0,
               b.scores, b.bins, b.states, in.cls_pred, b.wanted, shape);
    // Each split has at least one anchor per thread of a block.
    const int64 splits = std::min<int64>(ceil_div(shape.num_anchors, kRefineThreads),
                                         std::max(kBlocks / shape.num_images, 1));
    gpu.launch(KERNEL(multibox_target_refine), {splits, images}, kRefineThreads, 0, b, in.cls_pred,
               shape, splits);
  }
  gpu.launch(KERNEL(multibox_target_write), over_anchors(256), 256, 0, out.loc_target, out.loc_mask,
             out.cls_target, in.anchor, in.label, b, shape, options);
}

}  // namespace cvops
