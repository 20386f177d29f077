#include "multibox_detection.h"

#include "nms.h"

namespace cvops {

void multibox_detection(Gpu& gpu, float* out, Predictions in, DetectionOptions options) {
  const int64 all = in.batch * in.num;
  if (all == 0) return;
  const int topk = options.suppresses ? options.topk : 0;
  cuda::Nms nms(gpu, in.batch, in.num, options.topk);
  const Dim3 grid = {nms.batch, nms.tiles};
  uint64* compact = gpu.scratch<uint64>(all);
  int* ids = gpu.scratch<int>(all);
  {
    Gpu::Scope scope(gpu);
    uint64* keys = gpu.scratch<uint64>(all);
    int* tile_counts = gpu.scratch<int>(in.batch * nms.tiles);
    gpu.launch(KERNEL(multibox_detection_score), grid, kCompactTile, 0, keys, ids, tile_counts,
               in.cls_prob, in.classes, in.num, options.threshold);
    nms.compact(keys, tile_counts, compact);
    if (options.suppresses) nms.sort(compact, keys);
  }
  if (options.suppresses) {
    nms.take_buffers();
    gpu.launch(KERNEL(multibox_detection_gather), grid, kCompactTile, 0, nms.buffers, nms.sorted,
               nms.counts, ids, in.loc_pred, in.anchors, in.num, topk, options.variances,
               options.clip);
    nms.suppress(options.rule);
  }
  gpu.launch(KERNEL(multibox_detection_write), grid, kCompactTile, 0, out, compact, nms.sorted,
             nms.buffers.kept, nms.buffers.boxes, nms.counts, ids, in.cls_prob, in.loc_pred,
             in.anchors, in.classes, in.num, topk, options.suppresses, options.variances,
             options.clip);
}

}  // namespace cvops
