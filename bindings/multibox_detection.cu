#include "launch.h"
#include "multibox_detection.h"
#include "nms.h"

namespace cvops::cuda {

int64 multibox_detection_workspace(int64 batch, int64 num, int limit) {
  Workspace workspace;
  NmsBuffers(workspace, batch, num, limit);
  workspace.take<int>(batch * num);
  return workspace.size();
}

void multibox_detection(float* out, void* workspace, Predictions in, DetectionOptions options,
                        cudaStream_t stream) {
  if (in.batch * in.num == 0) return;
  Workspace carved(workspace);
  NmsBuffers nms(carved, in.batch, in.num, options.limit);
  int* ids = carved.take<int>(in.batch * in.num);
  const dim3 grid(nms.batch, nms.tiles);
  const int limit = options.suppresses ? options.limit : 0;
  launch("multibox_detection_score", multibox_detection_score, grid, kCompactTile, 0, stream,
         nms.keys, ids, nms.tile_counts, in.cls_prob, in.classes, in.num, options.threshold);
  nms.drop_invalid(stream);
  if (options.suppresses) {
    nms.sort(stream);
    launch("multibox_detection_gather", multibox_detection_gather, grid, kCompactTile, 0, stream,
           nms.boxes, nms.areas, nms.classes, nms.removed, nms.kept, nms.contest_counts,
           nms.progress, nms.sorted, nms.counts, ids, in.loc_pred, in.anchors, in.num, limit,
           options.variances, options.clip);
    nms.suppress(options.rule, stream);
  }
  launch("multibox_detection_write", multibox_detection_write, grid, kCompactTile, 0, stream, out,
         nms.compact, nms.sorted, nms.kept, nms.boxes, nms.counts, ids, in.cls_prob, in.loc_pred,
         in.anchors, in.classes, in.num, limit, options.suppresses, options.variances,
         options.clip);
}

}  // namespace cvops::cuda
