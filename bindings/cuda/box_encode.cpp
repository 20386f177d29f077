#include "box_encode.h"

#include <algorithm>

namespace cvops {

template <typename T>
void box_encode(Gpu& gpu, T* targets, T* masks, EncodeInputsOf<T> in, int64 batch, int64 num,
                int64 num_refs) {
  if (batch * num == 0) return;
  constexpr int64 threads = CVOPS_STEP(256, 32), blocks = CVOPS_STEP(8192, 6);
  const int64 tiles = ceil_div(num, threads);
  const int64 images = std::min<int64>({batch, ceil_div(blocks, tiles), kMaxGridY});
  gpu.launch(KERNEL_OF(T, box_encode), {tiles, images}, threads, 0, targets, masks, in, batch, num,
             num_refs);
}

template void box_encode(Gpu&, float*, float*, EncodeInputsOf<float>, int64, int64, int64);
template void box_encode(Gpu&, double*, double*, EncodeInputsOf<double>, int64, int64, int64);

}  // namespace cvops
