#include "match_anchors.h"

#include <algorithm>

namespace cvops {

void match_anchors(Gpu& gpu, int* out, const float* anchors, const float* truths, MatchShape shape,
                   MatchOptions options) {
  const int64 batch = shape.num_images, num = shape.num_anchors;
  if (batch * num == 0) return;
  const int64 all_truths = batch * shape.num_truths;
  const bool searches = all_truths > 0 && (options.allow_low_quality || options.match_best);
  MatchBuffers b = {};
  if (searches) {
    b.iou = gpu.scratch<float>(batch * num);
    b.best = gpu.scratch<uint32>(2 * all_truths);
    b.first = b.best + all_truths;
    gpu.launch(KERNEL(match_anchors_clear), ceil_div(2 * all_truths, 256), 256, 0, b.best,
               2 * all_truths);
  }
  const Dim3 grid = {ceil_div(num, kMatchEach * kSampleThreads), std::min<int64>(batch, kMaxGridY)};
  gpu.launch(KERNEL(match_anchors_match), grid, kSampleThreads, 0, out, b, anchors, truths, shape,
             options);
  if (!searches) return;
  gpu.launch(KERNEL(match_anchors_search), grid, kSampleThreads, 0, out, b, anchors, truths, shape,
             options);
  if (!options.match_best) return;
  gpu.launch(KERNEL(match_anchors_assign), batch, 1024, 0, out, b.first, shape);
}

}  // namespace cvops
