// NMS of rows with scores, shared by box_nms and nms_rotated.
#pragma once
#include "box_nms.h"
#include "nms.h"

namespace cvops::cuda {

// Grid of a kernel with at most one thread per element.
Dim3 blocks_for(int64 threads);

// Computes out and index: see box_nms. suppress(nms, has_boxes) computes which rows are kept; if
// `has_boxes`, nms.buffers has the boxes of the first four coordinates.
template <typename Suppress>
void nms_rows(Gpu& gpu, float* out, int* index, const float* data, int64 batch, int64 num,
              NmsOptions options, const Suppress& suppress) {
  const NmsColumns columns = options.columns;
  const bool with_index = index != nullptr;
  if (batch * num == 0) return;
  if (options.topk == 0) {
    gpu.launch(KERNEL(box_nms_copy), blocks_for(batch * num * columns.width), 256, 0, out, index,
               data, batch * num, num, columns.width, with_index);
    return;
  }
  Nms nms(gpu, batch, num, options.topk);
  const bool are_few = nms_are_few(batch, num);
  if (are_few) {
    nms.take_buffers();
    gpu.launch(KERNEL(box_nms_rank), {batch, ceil_div(num, 32)}, 1024, 0, nms.sorted, nms.counts,
               nms.buffers, data, num, options.topk, columns, options.valid_thresh,
               options.background_id, options.rule.center);
  } else {
    {
      Gpu::Scope scope(gpu);
      uint64 *keys = gpu.scratch<uint64>(batch * num), *compact = gpu.scratch<uint64>(batch * num);
      int* tile_counts = gpu.scratch<int>(batch * nms.tiles);
      gpu.launch(KERNEL(box_nms_score), {batch, nms.tiles}, kCompactTile, 0, keys, tile_counts,
                 data, num, columns, options.valid_thresh, options.background_id);
      nms.compact(keys, tile_counts, compact);
      nms.sort(compact, keys);
    }
    nms.take_buffers();
  }
  suppress(nms, are_few);
  gpu.launch(KERNEL(box_nms_write), {batch, nms.tiles}, 256, 0, out, index, data, nms.sorted,
             nms.buffers.kept, nms.buffers.kept_before, nms.counts, num, options.topk, columns,
             options.conversion, with_index);
}

}  // namespace cvops::cuda
