#include "bilinear_resize.h"

#include <algorithm>

namespace cvops {

static constexpr int64 kMaxBlocks = CVOPS_STEP(1 << 20, 3);

void bilinear_resize(Gpu& gpu, float* out, const float* data, int64 planes, BilinearResize op) {
  if (op.is_copy()) return gpu.copy(out, data, 4 * planes * op.height * op.width);
  const int64 quads = ceil_div(op.out_width, 4), parts = ceil_div(op.out_height, kResizeRows);
  const int64 blocks = ceil_div(planes * parts * quads, 256);
  gpu.launch(KERNEL(bilinear_resize), std::min(blocks, kMaxBlocks), 256, 0, out, data, planes, op);
}

void bilinear_resize_backward(Gpu& gpu, float* grad, const float* out_grad, int64 planes,
                              BilinearResize op) {
  const int64 pixels = ceil_div(planes, kResizePlanes) * op.height * op.width;
  gpu.launch(KERNEL(bilinear_resize_backward), std::min(ceil_div(pixels, 256), kMaxBlocks), 256, 0,
             grad, out_grad, planes, op);
}

}  // namespace cvops
