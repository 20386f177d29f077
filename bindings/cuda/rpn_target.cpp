#include "rpn_target.h"

#include <algorithm>

namespace cvops {

void rpn_target(Gpu& gpu, RpnOutputs out, RpnInputs in, SampleShape shape, SampleOptions options) {
  const int64 batch = shape.num_images, num = shape.num_boxes;
  if (batch * num == 0) return;
  RpnBuffers b = {};
  b.tiles = (int)ceil_div(num, kRpnTile);
  const int64 in_tile = std::min<int64>(num, kRpnTile);
  b.most_positive = (int)std::min<int64>(options.most_positive, in_tile);
  b.most_negative = (int)std::min<int64>(options.num, in_tile);
  b.iou = gpu.scratch<float>(batch * num);
  b.truth = gpu.scratch<int>(batch * num);
  b.best = gpu.scratch<uint32>(batch * shape.num_truths);
  b.positives = gpu.scratch<uint64>(batch * b.tiles * b.most_positive);
  b.negatives = gpu.scratch<uint64>(batch * b.tiles * b.most_negative);
  const int64 images = std::min<int64>(batch, kMaxGridY);
  constexpr int64 max_blocks = CVOPS_STEP(4096, 3);
  gpu.launch(KERNEL(rpn_target_clear), std::min(ceil_div(batch * num, 256), max_blocks), 256, 0,
             out, b.best, batch * num, batch * shape.num_truths);
  gpu.launch(KERNEL(rpn_target_match), {ceil_div(num, kMatchEach * kSampleThreads), images},
             kSampleThreads, 0, b, in.anchors, in.labels, shape);
  gpu.launch(KERNEL(rpn_target_label), {b.tiles, images}, 1024, 0, in, b, shape, options);
  gpu.launch(KERNEL(rpn_target_sample), batch, 1024, 0, out, in, b, shape, options);
}

}  // namespace cvops
