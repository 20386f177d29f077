#include <algorithm>

#include "launch.h"
#include "multibox_target.h"
#include "workspace.h"

namespace cvops::cuda {
namespace {

struct Buffers {
  float* best;
  int *which, *num_valid, *num_positive;
  uint64 *keys, *bounds = nullptr;
  uint32* scores = nullptr;

  Buffers(Workspace& workspace, TargetShape shape, bool mining) {
    const int64 images = shape.num_images, rows = images * row_length(shape.num_anchors);
    best = workspace.take<float>(rows);
    which = workspace.take<int>(rows);
    num_valid = workspace.take<int>(images);
    num_positive = workspace.take<int>(images);
    keys = workspace.take<uint64>(images * shape.num_truths);
    if (mining) {
      scores = workspace.take<uint32>(rows);
      bounds = workspace.take<uint64>(images);
    }
  }
};

}  // namespace

int64 multibox_target_workspace(TargetShape shape, TargetOptions options) {
  Workspace workspace;
  Buffers(workspace, shape, options.mining_ratio > 0);
  return workspace.size();
}

void multibox_target(TargetOutputs out, TargetInputs in, TargetShape shape, TargetOptions options,
                     void* memory, cudaStream_t stream) {
  Workspace workspace(memory);
  const bool mining = options.mining_ratio > 0;
  Buffers w(workspace, shape, mining);
  const unsigned images = std::min(shape.num_images, 65535);
  auto anchors = [&](int per_block) {
    return dim3((unsigned)ceil_div(shape.num_anchors, per_block), images);
  };
  launch("multibox_target_begin", ::multibox_target_begin, images, 128, 0, stream, w.num_valid,
         w.num_positive, w.keys, in.label, shape);
  launch("multibox_target_match", ::multibox_target_match, anchors(4 * kTargetThreads),
         kTargetThreads, 0, stream, w.best, w.which, w.keys, in.anchor, in.label, w.num_valid,
         shape);
  launch("multibox_target_assign", ::multibox_target_assign, images, 512, 0, stream, w.which,
         w.keys, in.anchor, in.label, w.num_valid, shape);
  if (mining) {
    launch("multibox_target_score", ::multibox_target_score, anchors(256), 256, 0, stream, w.scores,
           w.num_positive, w.best, w.which, in.cls_pred, w.num_valid, shape, options);
    launch("multibox_target_select", ::multibox_target_select, images, 1024, 0, stream, w.bounds,
           w.scores, w.num_valid, w.num_positive, shape, options);
  }
  launch("multibox_target_write", ::multibox_target_write, anchors(256), 256, 0, stream,
         out.loc_target, out.loc_mask, out.cls_target, in.anchor, in.label, w.best, w.which,
         w.num_valid, w.scores, w.bounds, shape, options);
}

}  // namespace cvops::cuda
