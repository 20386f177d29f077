#include "box_nms.h"

#include <algorithm>

#include "nms_rows.h"

namespace cvops {

Dim3 cuda::blocks_for(int64 threads) {
  constexpr int64 max_blocks = CVOPS_STEP(1 << 16, 3);
  return std::min(ceil_div(threads, 256), max_blocks);
}

bool cuda::nms_order(Gpu& gpu, Nms& nms, const float* data, const NmsOptions& options) {
  const int64 batch = nms.batch, num = nms.num;
  const NmsColumns columns = options.columns;
  if (nms_are_few(batch, num)) {
    nms.take_buffers();
    gpu.launch(KERNEL(box_nms_rank), {batch, ceil_div(num, 32)}, 1024, 0, nms.sorted, nms.counts,
               nms.buffers, data, num, options.topk, columns, options.valid_thresh,
               options.background_id, options.rule.center);
    return true;
  }
  if (nms.most <= kSortTile && num <= kMaxSelect) {
    nms.take_buffers();
    Gpu::Scope scope(gpu);
    uint64* keys = gpu.scratch<uint64>(batch * num);
    int* tile_counts = gpu.scratch<int>(batch * nms.tiles);
    gpu.launch(KERNEL(box_nms_score), {batch, nms.tiles}, kCompactTile, 0, keys, tile_counts, data,
               num, columns, options.valid_thresh, options.background_id);
    gpu.launch(KERNEL(box_nms_order), batch, kTopkThreads, 0, nms.buffers, nms.sorted, nms.counts,
               keys, data, num, nms.most, columns, options.rule.center);
    return true;
  }
  {
    Gpu::Scope scope(gpu);
    uint64 *keys = gpu.scratch<uint64>(batch * num), *compact = gpu.scratch<uint64>(batch * num);
    int* tile_counts = gpu.scratch<int>(batch * nms.tiles);
    gpu.launch(KERNEL(box_nms_score), {batch, nms.tiles}, kCompactTile, 0, keys, tile_counts, data,
               num, columns, options.valid_thresh, options.background_id);
    nms.compact(keys, tile_counts, compact);
    nms.sort(compact, keys);
  }
  nms.take_buffers();
  return false;
}

void cuda::nms_candidates(Gpu& gpu, Nms& nms, const float* data, const NmsOptions& options) {
  if (nms_order(gpu, nms, data, options)) return;
  gpu.launch(KERNEL(box_nms_gather), {nms.batch, nms.tiles}, kCompactTile, 0, nms.buffers, data,
             nms.sorted, nms.counts, nms.num, options.topk, options.columns, options.rule.center);
}

// Suppression among rows of doubles.
static void suppress_doubles(Gpu& gpu, cuda::Nms& nms, const double* data,
                             const NmsOptions& options) {
  const int64 batch = nms.batch, num = nms.num;
  const NmsColumns columns = options.columns;
  {
    Gpu::Scope scope(gpu);
    uint64 *keys = gpu.scratch<uint64>(batch * num), *compact = gpu.scratch<uint64>(batch * num);
    int* tile_counts = gpu.scratch<int>(batch * nms.tiles);
    gpu.launch(KERNEL(box_nms_score_f64), {batch, nms.tiles}, kCompactTile, 0, keys, tile_counts,
               data, num, columns, options.valid_thresh, options.background_id);
    nms.compact(keys, tile_counts, compact);
    nms.sort(compact, keys, {data + columns.score, num * columns.width, columns.width});
  }
  nms.take_buffers();
  DoubleBox* const boxes = gpu.scratch<DoubleBox>(batch * num);
  gpu.launch(KERNEL(box_nms_gather_f64), {batch, nms.tiles}, kCompactTile, 0, nms.buffers, boxes,
             data, nms.sorted, nms.counts, num, options.topk, columns, options.rule.center);
  nms.suppress_exactly(boxes, options.rule);
}

template <typename T>
void box_nms(Gpu& gpu, T* out, int* index, const T* data, int64 batch, int64 num,
             NmsOptions options) {
  if constexpr (std::is_same_v<T, float>) {
    // The kernel counts the numbers of a set by int.
    const bool fits = num <= kNmsBlockRows && num * options.columns.width <= (1 << 30);
    if (fits && batch * num > 0 && options.topk > 0) {
      gpu.launch(KERNEL(box_nms_block), batch, nms_block_threads(num), 0, out, index, data, num,
                 options.topk, options.columns, options.valid_thresh, options.background_id,
                 options.rule, options.conversion, index != nullptr);
      return;
    }
  }
  cuda::nms_rows(gpu, out, index, data, batch, num, options, [&](cuda::Nms& nms) {
    if constexpr (std::is_same_v<T, double>) {
      suppress_doubles(gpu, nms, data, options);
    } else {
      cuda::nms_candidates(gpu, nms, data, options);
      nms.suppress(options.rule);
    }
  });
}

template <typename T>
void box_nms_backward(Gpu& gpu, T* grad, const T* out_grad, const int* index, int64 batch,
                      int64 num, int width) {
  const int64 rows = batch * num;
  if (rows * width == 0) return;
  const Dim3 grid = cuda::blocks_for(rows);
  // The first number of a gradient holds the source, as an int.
  int* sources = reinterpret_cast<int*>(grad);
  const int64 stride = width * (sizeof(T) / sizeof(int));
  gpu.launch(KERNEL(box_nms_backward_clear), grid, 256, 0, sources, rows, stride);
  gpu.launch(KERNEL(box_nms_backward_invert), grid, 256, 0, sources, index, rows, num, stride);
  gpu.launch(KERNEL_OF(T, box_nms_backward), grid, 256, 0, grad, out_grad, rows, num, width);
}

#define CVOPS_INSTANTIATE(T)                                                 \
  template void box_nms(Gpu&, T*, int*, const T*, int64, int64, NmsOptions); \
  template void box_nms_backward(Gpu&, T*, const T*, const int*, int64, int64, int);
CVOPS_INSTANTIATE(float)
CVOPS_INSTANTIATE(double)

}  // namespace cvops
