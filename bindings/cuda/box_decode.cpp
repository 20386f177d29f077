#include "box_decode.h"

#include <algorithm>

namespace cvops {

template <typename T>
void box_decode(Gpu& gpu, T* out, const T* data, const T* anchors, int64 batch, int64 num,
                BoxDecode op) {
  if (batch * num == 0) return;
  constexpr int64 threads = CVOPS_STEP(256, 32), blocks = CVOPS_STEP(8192, 6);
  const int64 tiles = ceil_div(num, threads);
  const int64 images = std::min<int64>({batch, ceil_div(blocks, tiles), kMaxGridY});
  gpu.launch(KERNEL_OF(T, box_decode), {tiles, images}, threads, 0, out, data, anchors, batch, num,
             op);
}

template void box_decode(Gpu&, float*, const float*, const float*, int64, int64, BoxDecode);
template void box_decode(Gpu&, double*, const double*, const double*, int64, int64, BoxDecode);

}  // namespace cvops
