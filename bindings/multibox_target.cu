#include <algorithm>

#include "launch.h"
#include "multibox_target.h"
#include "workspace.h"

namespace cvops::cuda {
namespace {

// More slots of an image would only take memory.
constexpr int64 kMostSlots = CVOPS_STEP(512, 3);
// The blocks that run at once on a large GPU.
constexpr int kBlocks = CVOPS_STEP(256, 5);

// The slots of an image: one for each of its tiles, up to kMostSlots.
int num_slots(TargetShape shape) {
  return (int)std::min(ceil_div(shape.num_anchors, 4 * kTargetThreads), kMostSlots);
}

// The parts of an image: kBlocks for all images together, as long as each is worth a block.
int num_parts(TargetShape shape) {
  return (int)std::min<int64>(ceil_div(shape.num_anchors, kRefineThreads),
                              std::max(kBlocks / std::max(shape.num_images, 1), 1));
}

struct Buffers {
  int *states, *num_valid, *wanted = nullptr;
  int2* counts;
  uint64 *keys, *bounds = nullptr;
  uint32 *scores = nullptr, *bins = nullptr, *tickets = nullptr;

  Buffers(Workspace& workspace, TargetShape shape, bool mining) {
    const int64 images = shape.num_images, rows = images * row_length(shape.num_anchors);
    const int64 slots = images * num_slots(shape);
    states = workspace.take<int>(rows);
    num_valid = workspace.take<int>(images);
    counts = workspace.take<int2>(slots);
    keys = workspace.take<uint64>(slots * shape.num_truths);
    if (mining) {
      wanted = workspace.take<int>(images);
      bounds = workspace.take<uint64>(images);
      scores = workspace.take<uint32>(rows);
      bins = workspace.take<uint32>(images * kDigitBins);
      tickets = workspace.take<uint32>(images);
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
  if (shape.num_images == 0) return;
  Workspace workspace(memory);
  const bool mining = options.mining_ratio > 0;
  Buffers w(workspace, shape, mining);
  const unsigned images = std::min(shape.num_images, kMostGridRows);
  auto anchors = [&](int per_block) {
    return dim3((unsigned)ceil_div(shape.num_anchors, per_block), images);
  };
  const int slots = num_slots(shape), parts = num_parts(shape);
  launch("multibox_target_match", ::multibox_target_match, dim3((unsigned)slots, images),
         kTargetThreads, 0, stream, w.states, w.keys, w.counts, w.num_valid, in.anchor, in.label,
         shape, options, slots);
  launch("multibox_target_assign", ::multibox_target_assign, images, 1024, 0, stream, w.states,
         w.keys, w.wanted, w.bounds, w.bins, w.tickets, w.counts, in.anchor, in.label, w.num_valid,
         shape, options, slots);
  if (mining) {
    launch("multibox_target_score", ::multibox_target_score, anchors(8 * kScoreThreads),
           kScoreThreads, 0, stream, w.scores, w.bins, w.states, in.cls_pred, w.wanted, shape);
    launch("multibox_target_refine", ::multibox_target_refine, dim3((unsigned)parts, images),
           kRefineThreads, 0, stream, w.bounds, w.states, w.tickets, w.scores, w.bins, w.wanted,
           in.cls_pred, shape, parts);
  }
  launch("multibox_target_write", ::multibox_target_write, anchors(256), 256, 0, stream,
         out.loc_target, out.loc_mask, out.cls_target, in.anchor, in.label, w.states, w.num_valid,
         w.bounds, shape, options);
}

}  // namespace cvops::cuda
