#include "matrix_nms.h"

#include <algorithm>

#include "nms.h"

namespace cvops {

void matrix_nms(Gpu& gpu, float* out, int* index, const float* data, int64 batch, int64 num,
                const MatrixNmsOptions& options) {
  if (batch * num * options.rows == 0) return;
  cuda::Nms nms(gpu, batch, num, options.candidates.topk);
  cuda::nms_candidates(gpu, nms, data, options.candidates);
  const int64 tiles = ceil_div(nms.most, kMatrixTile);
  const Dim3 pairs = {batch, std::min<int64>(tiles * (tiles + 1) / 2, kMaxGridY)};
  const int64 all = batch * num;
  uint32 *const terms = gpu.scratch<uint32>(2 * all), *const greatest = terms + all;
  constexpr int64 max_blocks = CVOPS_STEP(4096, 2);
  gpu.launch(KERNEL(matrix_nms_clear), std::min(ceil_div(2 * all, 256), max_blocks), 256, 0, terms,
             2 * all);
  gpu.launch(KERNEL(matrix_nms_overlap), pairs, kMatrixTile, 0, greatest, nms.buffers, num,
             options.op);
  gpu.launch(KERNEL(matrix_nms_decay), pairs, kMatrixTile, 0, terms, greatest, nms.buffers, num,
             options.op);
  {
    Gpu::Scope scope(gpu);
    uint64 *keys = gpu.scratch<uint64>(batch * num), *compact = gpu.scratch<uint64>(batch * num);
    int* tile_counts = gpu.scratch<int>(batch * nms.tiles);
    gpu.launch(KERNEL(matrix_nms_key), {batch, nms.tiles}, kCompactTile, 0, keys, tile_counts,
               nms.sorted, terms, nms.buffers.counts, num, options.op, options.post_thresh);
    nms.compact(keys, tile_counts, compact);
    nms.sort(compact, keys);
  }
  const int64 elements = (int64)options.rows * options.candidates.columns.width;
  gpu.launch(KERNEL(matrix_nms_write), {batch, std::min<int64>(ceil_div(elements, 256), kMaxGridY)},
             256, 0, out, index, data, nms.sorted, nms.counts, num, options.rows,
             options.candidates.columns.width, options.candidates.columns.score, index != nullptr);
}

}  // namespace cvops
