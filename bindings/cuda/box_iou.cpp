#include "box_iou.h"

#include <algorithm>

#include "box_iou.cuh"

namespace cvops {

template <typename T>
void box_iou(Gpu& gpu, T* out, const T* lhs, const T* rhs, int64 num_lhs, int64 num_rhs,
             bool center) {
  if (num_lhs == 0 || num_rhs == 0) return;
  constexpr int64 threads = CVOPS_STEP(256, 32), blocks = CVOPS_STEP(4096, 6);
  const int64 across = std::min(ceil_div(num_rhs, 4), threads);
  const int64 column_tiles = std::min<int64>(ceil_div(num_rhs, 4 * across), kMaxGridY);
  const int64 row_tiles =
      std::min(ceil_div(num_lhs, threads / across), ceil_div(blocks, column_tiles));
  gpu.launch(KERNEL_OF(T, box_iou), {row_tiles, column_tiles}, threads, 0, out, lhs, rhs, num_lhs,
             num_rhs, center);
}

static constexpr int64 kMaxBlocks = CVOPS_STEP(1 << 16, 3);

// A side with the angles that CIoU needs, in scratch memory.
template <typename T>
static IouSideOf<T> side_of(Gpu& gpu, const T* boxes, int64 num, bool center, IouKind kind) {
  if (kind != IouKind::ciou) return {boxes, nullptr};
  T* const angles = gpu.scratch<T>(num);
  gpu.launch(KERNEL_OF(T, box_angles), std::min(ceil_div(num, 256), kMaxBlocks), 256, 0, angles,
             boxes, num, center);
  return {boxes, angles};
}

template <typename T>
void box_iou_kind(Gpu& gpu, T* out, const T* lhs, const T* rhs, int64 num_lhs, int64 num_rhs,
                  bool center, IouKind kind) {
  if (num_lhs == 0 || num_rhs == 0) return;
  constexpr int64 threads = CVOPS_STEP(256, 32), blocks = CVOPS_STEP(4096, 6);
  const IouSideOf<T> rows = side_of(gpu, lhs, num_lhs, center, kind);
  const IouSideOf<T> columns = side_of(gpu, rhs, num_rhs, center, kind);
  const int64 across = std::min(num_rhs, threads);
  const int64 column_tiles = std::min<int64>(ceil_div(num_rhs, across), kMaxGridY);
  const int64 row_tiles =
      std::min(ceil_div(num_lhs, threads / across), ceil_div(blocks, column_tiles));
  gpu.launch(KERNEL_OF(T, box_iou_kind), {row_tiles, column_tiles}, threads, 0, out, rows, columns,
             num_lhs, num_rhs, center, (int)kind);
}

template <typename T>
void box_iou_backward(Gpu& gpu, T* lhs_grad, T* rhs_grad, const T* out_grad, const T* lhs,
                      const T* rhs, int64 num_lhs, int64 num_rhs, bool center, IouKind kind) {
  const IouSideOf<T> rows = side_of(gpu, lhs, num_lhs, center, kind);
  const IouSideOf<T> columns = side_of(gpu, rhs, num_rhs, center, kind);
  gpu.launch(KERNEL_OF(T, box_iou_backward), std::min(ceil_div(num_lhs, kOwnBoxes), kMaxBlocks),
             256, 0, lhs_grad, out_grad, rows, columns, num_lhs, num_rhs, true, center, (int)kind);
  gpu.launch(KERNEL_OF(T, box_iou_backward), std::min(ceil_div(num_rhs, kOwnBoxes), kMaxBlocks),
             256, 0, rhs_grad, out_grad, columns, rows, num_rhs, num_lhs, false, center, (int)kind);
}

#define CVOPS_INSTANTIATE(T)                                                                     \
  template void box_iou(Gpu&, T*, const T*, const T*, int64, int64, bool);                       \
  template void box_iou_kind(Gpu&, T*, const T*, const T*, int64, int64, bool, IouKind);         \
  template void box_iou_backward(Gpu&, T*, T*, const T*, const T*, const T*, int64, int64, bool, \
                                 IouKind);
CVOPS_INSTANTIATE(float)
CVOPS_INSTANTIATE(double)

}  // namespace cvops
