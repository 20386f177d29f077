#include "box_decode.h"

#include <algorithm>

namespace cvops {

void box_decode(Gpu& gpu, float* out, const float* data, const float* anchors, int64 batch,
                int64 num, BoxDecode op) {
  if (batch * num == 0) return;
  constexpr int64 threads = CVOPS_STEP(256, 32), blocks = CVOPS_STEP(8192, 6);
  const int64 tiles = ceil_div(num, threads);
  const int64 images = std::min<int64>({batch, ceil_div(blocks, tiles), kMaxGridY});
  gpu.launch(KERNEL(box_decode), {tiles, images}, threads, 0, out, data, anchors, batch, num, op);
}

}  // namespace cvops
