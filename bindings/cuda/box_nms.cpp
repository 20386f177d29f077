#include "box_nms.h"

#include <algorithm>

#include "nms_rows.h"

namespace cvops {

Dim3 cuda::blocks_for(int64 threads) {
  constexpr int64 max_blocks = CVOPS_STEP(1 << 16, 3);
  return std::min(ceil_div(threads, 256), max_blocks);
}

void box_nms(Gpu& gpu, float* out, int* index, const float* data, int64 batch, int64 num,
             NmsOptions options) {
  cuda::nms_rows(gpu, out, index, data, batch, num, options, [&](cuda::Nms& nms, bool has_boxes) {
    if (!has_boxes) {
      gpu.launch(KERNEL(box_nms_gather), {batch, nms.tiles}, kCompactTile, 0, nms.buffers, data,
                 nms.sorted, nms.counts, num, options.topk, options.columns, options.rule.center);
    }
    nms.suppress(options.rule);
  });
}

void box_nms_backward(Gpu& gpu, float* grad, const float* out_grad, const int* index, int64 batch,
                      int64 num, int width) {
  const int64 rows = batch * num;
  if (rows * width == 0) return;
  const Dim3 grid = cuda::blocks_for(rows);
  int* sources = reinterpret_cast<int*>(grad);
  gpu.launch(KERNEL(box_nms_backward_clear), grid, 256, 0, sources, rows, width);
  gpu.launch(KERNEL(box_nms_backward_invert), grid, 256, 0, sources, index, rows, num, width);
  gpu.launch(KERNEL(box_nms_backward), grid, 256, 0, grad, out_grad, rows, num, width);
}

}  // namespace cvops
