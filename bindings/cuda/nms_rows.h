// NMS of rows with scores, shared by box_nms and nms_rotated.
#pragma once
#include "box_nms.h"
#include "nms.h"

namespace cvops::cuda {

// Grid of a kernel with at most one thread per element.
Dim3 blocks_for(int64 threads);

// Computes out and index: see box_nms. suppress(nms) computes the order of the rows and which of
// them are kept.
template <typename T, typename Suppress>
void nms_rows(Gpu& gpu, T* out, int* index, const T* data, int64 batch, int64 num,
              NmsOptions options, const Suppress& suppress) {
  const NmsColumns columns = options.columns;
  const bool with_index = index != nullptr;
  if (batch * num == 0) return;
  if (options.topk == 0) {
    gpu.launch(KERNEL_OF(T, box_nms_copy), blocks_for(batch * num * columns.width), 256, 0, out,
               index, data, batch * num, num, columns.width, with_index);
    return;
  }
  Nms nms(gpu, batch, num, options.topk);
  suppress(nms);
  gpu.launch(KERNEL_OF(T, box_nms_write), {batch, nms.tiles}, 256, 0, out, index, data, nms.sorted,
             nms.buffers.kept, nms.buffers.kept_before, nms.counts, num, options.topk, columns,
             options.conversion, with_index);
}

}  // namespace cvops::cuda
