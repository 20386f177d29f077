#include "box_encode.h"

#include <algorithm>

namespace cvops {

void box_encode(Gpu& gpu, float* targets, float* masks, EncodeInputs in, int64 batch, int64 num,
                int64 num_refs) {
  if (batch * num == 0) return;
  constexpr int64 threads = CVOPS_STEP(256, 32), blocks = CVOPS_STEP(8192, 6);
  const int64 tiles = ceil_div(num, threads);
  const int64 images = std::min<int64>({batch, ceil_div(blocks, tiles), kMaxGridY});
  gpu.launch(KERNEL(box_encode), {tiles, images}, threads, 0, targets, masks, in, batch, num,
             num_refs);
}

}  // namespace cvops
