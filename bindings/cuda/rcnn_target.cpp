#include "rcnn_target.h"

#include <algorithm>

#include "sort.h"

namespace cvops {

void rcnn_target(Gpu& gpu, RcnnOutputs out, RcnnInputs in, SampleShape shape,
                 SampleOptions options) {
  const int64 batch = shape.num_images, num = (int64)shape.num_boxes + shape.num_truths;
  if (batch == 0) return;
  uint64 *keys = gpu.scratch<uint64>(batch * num), *other = gpu.scratch<uint64>(batch * num);
  int *truth = gpu.scratch<int>(batch * num), *counts = gpu.scratch<int>(batch);
  uint64* const sorted = num && cuda::merges_oddly(num) ? keys : other;
  const int64 images = std::min<int64>(batch, kMaxGridY);
  if (num > 0) {
    gpu.launch(KERNEL(rcnn_target_match), {ceil_div(num, kMatchEach * kSampleThreads), images},
               kSampleThreads, 0, keys, truth, counts, in, shape, options);
    cuda::sort(gpu, sorted, sorted == keys ? other : keys, keys, counts, batch, num, num);
  }
  constexpr int threads = CVOPS_STEP(128, 32);
  gpu.launch(KERNEL(rcnn_target_write), {ceil_div(options.num, threads), images}, threads, 0, out,
             in, sorted, truth, shape, options);
}

}  // namespace cvops
