#include <algorithm>

#include "launch.h"
#include "multiclass_nms.cuh"
#include "multiclass_nms.h"
#include "nms.h"

namespace cvops::cuda {
namespace {

// The scratch memory.
struct Buffers {
  NmsBuffers nms;
  Sampling sampling;
  uint64 *list, *bounds;
  int* found;

  Buffers(Workspace& workspace, int64 batch, int64 num, int most)
      : nms(workspace, batch, most, most),
        sampling(num, most),
        list(workspace.take<uint64>(batch * sampling.room)),
        bounds(workspace.take<uint64>(batch)),
        found(workspace.take<int>(batch)) {}
};

}  // namespace

int64 multiclass_nms_workspace(int64 batch, int64 classes, int64 num, int most) {
  Workspace workspace;
  if (batch * most > 0) Buffers(workspace, batch, classes * num, most);
  return workspace.size();
}

void multiclass_nms(float* out, int* counts, void* workspace, ClassScores in,
                    MulticlassOptions options, cudaStream_t stream) {
  const int most = options.most, num = (int)(in.classes * in.num), batch = (int)in.batch;
  if (batch == 0 || options.rows == 0) {
    launch("multiclass_nms_clear", multiclass_nms_clear, dim3((unsigned)ceil_div(batch, 256)), 256,
           0, stream, counts, batch);
    return;
  }
  const dim3 grid(batch, (unsigned)ceil_div(most, 256));
  Workspace carved(workspace);
  Buffers b(carved, batch, num, most);
  NmsBuffers& nms = b.nms;
  const auto [rank, room] = b.sampling;
  const int tiles = (int)ceil_div(num + 3ll, kCollectTile);
  launch("select_sample", select_sample, batch, 1024, 0, stream, b.bounds, b.found, in.scores, num,
         rank, options.candidates);
  launch("select_collect", select_collect, dim3((unsigned)(in.batch * tiles)), 256, 0, stream,
         b.list, b.found, b.bounds, in.scores, in.batch * num, num, tiles, room,
         options.candidates);
  launch("select_best", select_best, batch, 1024, 0, stream, nms.compact, nms.counts, b.list,
         b.found, b.bounds, in.scores, num, room, most, options.candidates);
  nms.sort(stream);
  launch("multiclass_nms_gather", multiclass_nms_gather, grid, 256, 0, stream, nms.boxes, nms.areas,
         nms.classes, nms.removed, nms.kept, nms.contest_counts, nms.progress, in.boxes, nms.sorted,
         nms.counts, in.num, most, options.rule.center);
  nms.suppress(options.rule, stream);
  launch("multiclass_nms_write", multiclass_nms_write, grid, 256, 0, stream, out, counts, in.boxes,
         in.scores, nms.sorted, nms.kept, nms.kept_before, nms.counts, in.classes, in.num, most,
         options.rows);
}

}  // namespace cvops::cuda
