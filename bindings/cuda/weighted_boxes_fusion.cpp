#include "weighted_boxes_fusion.h"

#include <algorithm>

#include "nms.h"

namespace cvops {

void weighted_boxes_fusion(Gpu& gpu, float* out, const float* data, int64 batch, int64 num,
                           const BoxFusionOptions& options) {
  if (batch * num * options.rows == 0) return;
  constexpr int kThreads = 1024;
  const NmsColumns columns = options.candidates.columns;
  cuda::Nms nms(gpu, batch, num, options.candidates.topk);
  cuda::nms_candidates(gpu, nms, data, options.candidates);
  const int64 all = batch * num;
  FusionBuffers clusters;
  clusters.weighted = gpu.scratch<float>(4 * all);
  clusters.scores = gpu.scratch<float>(all);
  clusters.members = gpu.scratch<int>(all);
  clusters.first_row = gpu.scratch<int>(all);
  clusters.keys = gpu.scratch<uint64>(all);
  gpu.launch(KERNEL(weighted_boxes_fusion), batch, kThreads, 0, clusters, nms.counts, nms.sorted,
             nms.buffers, data, num, columns, options.op);
  nms.sort(clusters.keys, clusters.keys);
  const int64 elements = (int64)options.rows * columns.width;
  gpu.launch(KERNEL(weighted_boxes_fusion_write),
             {batch, std::min<int64>(ceil_div(elements, 256), kMaxGridY)}, 256, 0, out, data,
             nms.sorted, nms.counts, nms.buffers.boxes, clusters.first_row, num, options.rows,
             columns);
}

}  // namespace cvops
