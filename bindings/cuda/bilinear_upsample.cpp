#include "bilinear_upsample.h"

#include <algorithm>

#include "bilinear_upsample.cuh"

namespace cvops {

static constexpr int64 kMaxBlocks = CVOPS_STEP(1 << 20, 3);

template <typename T>
void bilinear_upsample(Gpu& gpu, T* out, const T* data, int64 planes, int height, int width,
                       int scale) {
  if (planes * height * width == 0) return;
  const int64 quads = ceil_div((int64)width * scale, 4), parts = ceil_div(scale, kRowsAtOnce);
  const int64 blocks = ceil_div(planes * (height + 1) * parts * quads, 256);
  gpu.launch(KERNEL_OF(T, bilinear_upsample), std::min(blocks, kMaxBlocks), 256, 0, out, data,
             planes, height, width, scale);
}

template <typename T>
void bilinear_upsample_backward(Gpu& gpu, T* grad, const T* out_grad, int64 planes, int height,
                                int width, int scale) {
  const int64 lines = planes * height;
  if (lines * width == 0) return;
  // A block takes at most one pixel per thread and about 16 KiB of sums.
  constexpr int threads = CVOPS_STEP(256, 32), sums = CVOPS_STEP(4096, 64);
  const int columns = std::min({width, threads, std::max(sums / scale - 1, 1)});
  const int rows =
      (int)std::min<int64>({lines, threads / columns, sums / ((columns + 1) * scale) + 1});
  const int64 items = ceil_div(lines, rows) * ceil_div(width, columns);
  const int64 shared = sizeof(T) * (2 * scale + rows * padded((columns + 1) * scale));
  gpu.launch(KERNEL_OF(T, bilinear_upsample_backward), std::min(items, kMaxBlocks), threads, shared,
             grad, out_grad, lines, height, width, scale, rows, columns);
}

#define CVOPS_INSTANTIATE(T)                                                 \
  template void bilinear_upsample(Gpu&, T*, const T*, int64, int, int, int); \
  template void bilinear_upsample_backward(Gpu&, T*, const T*, int64, int, int, int);
CVOPS_INSTANTIATE(float)
CVOPS_INSTANTIATE(double)

}  // namespace cvops
