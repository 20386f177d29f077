#include "multibox_detection.h"

#include "nms.h"

namespace cvops {

void multibox_detection(Gpu& gpu, float* out, Predictions in, DetectionOptions options) {
  const int64 all = in.batch * in.num;
  if (all == 0) return;
  const int topk = options.suppresses ? options.topk : 0;
  if (options.suppresses && in.num <= kNmsBlock) {
    gpu.launch(KERNEL(multibox_detection_block), in.batch, nms_block_threads(in.num), 0, out,
               in.cls_prob, in.loc_pred, in.anchors, in.classes, in.num, topk, options.threshold,
               options.variances, options.clip, options.rule);
    return;
  }
  cuda::Nms nms(gpu, in.batch, in.num, options.topk);
  const Dim3 grid = {nms.batch, nms.tiles};
  // One block per image orders few anchors. It needs the compact keys only if it leaves some out.
  const bool by_block = options.suppresses && topk <= kSortTile && in.num <= kMaxSelect;
  const bool compacts = !by_block || topk < in.num;
  uint64* compact = gpu.scratch<uint64>(all);
  int* ids = gpu.scratch<int>(all);
  {
    Gpu::Scope scope(gpu);
    uint64* keys = compacts ? gpu.scratch<uint64>(all) : compact;
    int* tile_counts = gpu.scratch<int>(in.batch * nms.tiles);
    gpu.launch(KERNEL(multibox_detection_score), grid, kCompactTile, 0, keys, ids, tile_counts,
               in.cls_prob, in.classes, in.num, options.threshold);
    if (compacts) nms.compact(keys, tile_counts, compact);
    if (options.suppresses && !by_block) nms.sort(compact, keys);
  }
  if (options.suppresses) nms.take_buffers();
  const int uncounted = compacts ? 0 : nms.num;
  if (by_block && topk <= kNmsBlock) {
    gpu.launch(KERNEL(multibox_detection_suppress), in.batch, kTopkThreads, 0, nms.buffers,
               nms.sorted, nms.counts, compact, uncounted, ids, in.loc_pred, in.anchors, in.num,
               topk, options.variances, options.clip, options.rule);
  } else if (options.suppresses) {
    if (by_block) {
      gpu.launch(KERNEL(multibox_detection_order), in.batch, kTopkThreads, 0, nms.buffers,
                 nms.sorted, nms.counts, compact, uncounted, ids, in.loc_pred, in.anchors, in.num,
                 topk, options.variances, options.clip);
    } else {
      gpu.launch(KERNEL(multibox_detection_gather), grid, kCompactTile, 0, nms.buffers, nms.sorted,
                 nms.counts, ids, in.loc_pred, in.anchors, in.num, topk, options.variances,
                 options.clip);
    }
    nms.suppress(options.rule);
  }
  gpu.launch(KERNEL(multibox_detection_write), grid, kCompactTile, 0, out, compact, nms.sorted,
             nms.buffers.kept, nms.buffers.boxes, nms.counts, ids, in.cls_prob, in.loc_pred,
             in.anchors, in.classes, in.num, topk, options.suppresses, options.variances,
             options.clip);
}

}  // namespace cvops
