#include <algorithm>

#include "bilinear_upsample.cuh"
#include "bilinear_upsample.h"
#include "launch.h"

static constexpr cvops::int64 kMostBlocks = CVOPS_STEP(1 << 20, 3);

void cvops::cuda::bilinear_upsample(float* out, const float* data, int64 planes, int height,
                                    int width, int scale, cudaStream_t stream) {
  if (planes * height * width == 0) return;
  int64 quads = ceil_div((int64)width * scale, 4), parts = ceil_div(scale, kRowsAtOnce);
  int64 blocks = ceil_div(planes * (height + 1) * parts * quads, 256);
  launch("bilinear_upsample", ::bilinear_upsample, dim3((unsigned)std::min(blocks, kMostBlocks)),
         256, 0, stream, out, data, planes, height, width, scale);
}

void cvops::cuda::bilinear_upsample_backward(float* grad, const float* out_grad, int64 planes,
                                             int height, int width, int scale,
                                             cudaStream_t stream) {
  int64 lines = planes * height;
  if (lines * width == 0) return;
  // At most one pixel for each thread, and about as many sums as take 16 KiB.
  constexpr int threads = CVOPS_STEP(256, 32), sums = CVOPS_STEP(4096, 64);
  int columns = std::min({width, threads, std::max(sums / scale - 1, 1)});
  int rows = (int)std::min<int64>({lines, threads / columns, sums / ((columns + 1) * scale) + 1});
  int64 items = ceil_div(lines, rows) * ceil_div(width, columns);
  size_t shared = sizeof(float) * (2 * scale + rows * padded((columns + 1) * scale));
  launch("bilinear_upsample_backward", ::bilinear_upsample_backward,
         dim3((unsigned)std::min(items, kMostBlocks)), threads, shared, stream, grad, out_grad,
         lines, height, width, scale, rows, columns);
}
