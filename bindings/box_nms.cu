#include <algorithm>

#include "box_nms.h"
#include "launch.h"
#include "nms.h"

namespace cvops::cuda {

static constexpr int64 kMostBlocks = CVOPS_STEP(1 << 16, 3);

static dim3 blocks_for(int64 threads) {
  return dim3((unsigned)std::min(ceil_div(threads, 256), kMostBlocks));
}

int64 box_nms_workspace(int64 batch, int64 num, int limit) {
  Workspace workspace;
  if (batch * num > 0) NmsBuffers(workspace, batch, num, limit);
  return workspace.size();
}

void box_nms(float* out, int* index, void* workspace, const float* data, int64 batch, int64 num,
             NmsOptions options, cudaStream_t stream) {
  if (batch * num == 0) return;
  if (options.limit == 0) {
    launch("box_nms_copy", box_nms_copy, blocks_for(batch * num * options.columns.width), 256, 0,
           stream, out, index, data, batch * num, num, options.columns.width, index != nullptr);
    return;
  }
  Workspace carved(workspace);
  NmsBuffers nms(carved, batch, num, options.limit);
  const dim3 grid(nms.batch, nms.tiles);
  const NmsColumns columns = options.columns;
  if (nms_are_few(batch, num)) {
    launch("box_nms_rank", box_nms_rank, dim3(nms.batch, (unsigned)ceil_div(num, 32)), 1024, 0,
           stream, nms.sorted, nms.counts, nms.boxes, nms.areas, nms.classes, nms.removed, nms.kept,
           nms.contest_counts, nms.progress, data, num, options.limit, columns,
           options.valid_thresh, options.background_id, options.rule.center);
  } else {
    launch("box_nms_score", box_nms_score, grid, kCompactTile, 0, stream, nms.keys, nms.tile_counts,
           data, num, columns, options.valid_thresh, options.background_id);
    nms.drop_invalid(stream);
    nms.sort(stream);
    launch("box_nms_gather", box_nms_gather, grid, kCompactTile, 0, stream, nms.boxes, nms.areas,
           nms.classes, nms.removed, nms.kept, nms.contest_counts, nms.progress, data, nms.sorted,
           nms.counts, num, options.limit, columns, options.rule.center);
  }
  nms.suppress(options.rule, stream);
  launch("box_nms_write", box_nms_write, grid, 256, 0, stream, out, index, data, nms.sorted,
         nms.kept, nms.kept_before, nms.counts, num, options.limit, columns, options.conversion,
         index != nullptr);
}

void box_nms_backward(float* grad, const float* out_grad, const int* index, int64 batch, int64 num,
                      int width, cudaStream_t stream) {
  const int64 rows = batch * num;
  if (rows * width == 0) return;
  const dim3 grid = blocks_for(rows);
  int* sources = reinterpret_cast<int*>(grad);
  launch("box_nms_backward_clear", box_nms_backward_clear, grid, 256, 0, stream, sources, rows,
         width);
  launch("box_nms_backward_invert", box_nms_backward_invert, grid, 256, 0, stream, sources, index,
         rows, num, width);
  launch("box_nms_backward", ::box_nms_backward, grid, 256, 0, stream, grad, out_grad, rows, num,
         width);
}

}  // namespace cvops::cuda
