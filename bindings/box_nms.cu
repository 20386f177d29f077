#include <algorithm>

#include "box_nms.h"
#include "launch.h"
#include "nms.h"

namespace cvops::cuda {

int64 box_nms_workspace(int64 batch, int64 num) {
  Workspace workspace;
  NmsBuffers(workspace, batch, num);
  return workspace.size();
}

void box_nms(float* out, void* workspace, const float* data, int64 batch, int64 num,
             NmsOptions options, cudaStream_t stream) {
  Workspace carved(workspace);
  NmsBuffers nms(carved, batch, num);
  const dim3 grid(nms.batch, nms.tiles);
  const NmsColumns columns = options.columns;
  launch("box_nms_score", box_nms_score, grid, kCompactTile, 0, stream, nms.keys, nms.tile_counts,
         data, num, columns, options.valid_thresh, options.background_id);
  nms.drop_invalid(stream);
  nms.sort(stream);
  launch("box_nms_gather", box_nms_gather, grid, kCompactTile, 0, stream, nms.boxes, nms.areas,
         nms.classes, nms.removed, data, nms.sorted, nms.counts, num, options.limit, columns,
         options.rule.center);
  nms.suppress(options.limit, options.rule, stream);
  const int64 blocks = std::min<int64>(ceil_div(num * columns.width, 256), 65535);
  launch("box_nms_write", box_nms_write, dim3(nms.batch, (unsigned)blocks), 256, 0, stream, out,
         data, nms.sorted, nms.kept, nms.kept_before, nms.counts, num, options.limit, columns,
         options.conversion);
}

}  // namespace cvops::cuda
