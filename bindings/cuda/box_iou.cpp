#include "box_iou.h"

#include <algorithm>

#include "box_iou.cuh"

namespace cvops {

void box_iou(Gpu& gpu, float* out, const float* lhs, const float* rhs, int64 num_lhs, int64 num_rhs,
             bool center) {
  if (num_lhs == 0 || num_rhs == 0) return;
  constexpr int64 threads = CVOPS_STEP(256, 32), blocks = CVOPS_STEP(4096, 6);
  const int64 across = std::min(ceil_div(num_rhs, 4), threads);
  const int64 column_tiles = std::min<int64>(ceil_div(num_rhs, 4 * across), kMaxGridY);
  const int64 row_tiles =
      std::min(ceil_div(num_lhs, threads / across), ceil_div(blocks, column_tiles));
  gpu.launch(KERNEL(box_iou), {row_tiles, column_tiles}, threads, 0, out, lhs, rhs, num_lhs,
             num_rhs, center);
}

static constexpr int64 kMaxBlocks = CVOPS_STEP(1 << 16, 3);

// A side with the angles that CIoU needs, in scratch memory.
static IouSide side_of(Gpu& gpu, const float* boxes, int64 num, bool center, IouKind kind) {
  if (kind != IouKind::ciou) return {boxes, nullptr};
  float* const angles = gpu.scratch<float>(num);
  gpu.launch(KERNEL(box_angles), std::min(ceil_div(num, 256), kMaxBlocks), 256, 0, angles, boxes,
             num, center);
  return {boxes, angles};
}

void box_iou_kind(Gpu& gpu, float* out, const float* lhs, const float* rhs, int64 num_lhs,
                  int64 num_rhs, bool center, IouKind kind) {
  if (num_lhs == 0 || num_rhs == 0) return;
  constexpr int64 threads = CVOPS_STEP(256, 32), blocks = CVOPS_STEP(4096, 6);
  const IouSide rows = side_of(gpu, lhs, num_lhs, center, kind);
  const IouSide columns = side_of(gpu, rhs, num_rhs, center, kind);
  const int64 across = std::min(num_rhs, threads);
  const int64 column_tiles = std::min<int64>(ceil_div(num_rhs, across), kMaxGridY);
  const int64 row_tiles =
      std::min(ceil_div(num_lhs, threads / across), ceil_div(blocks, column_tiles));
  gpu.launch(KERNEL(box_iou_kind), {row_tiles, column_tiles}, threads, 0, out, rows, columns,
             num_lhs, num_rhs, center, (int)kind);
}

void box_iou_backward(Gpu& gpu, float* lhs_grad, float* rhs_grad, const float* out_grad,
                      const float* lhs, const float* rhs, int64 num_lhs, int64 num_rhs, bool center,
                      IouKind kind) {
  const IouSide rows = side_of(gpu, lhs, num_lhs, center, kind);
  const IouSide columns = side_of(gpu, rhs, num_rhs, center, kind);
  gpu.launch(KERNEL(box_iou_backward), std::min(ceil_div(num_lhs, kOwnBoxes), kMaxBlocks), 256, 0,
             lhs_grad, out_grad, rows, columns, num_lhs, num_rhs, true, center, (int)kind);
  gpu.launch(KERNEL(box_iou_backward), std::min(ceil_div(num_rhs, kOwnBoxes), kMaxBlocks), 256, 0,
             rhs_grad, out_grad, columns, rows, num_rhs, num_lhs, false, center, (int)kind);
}

}  // namespace cvops
