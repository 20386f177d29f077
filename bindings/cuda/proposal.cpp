#include "proposal.h"

#include <algorithm>

#include "nms.h"

namespace cvops {

void proposal(Gpu& gpu, float* out, float* scores, ProposalInputs in,
              const ProposalAnchors& anchors, ProposalOptions options, float threshold) {
  if (in.batch == 0 || options.rows == 0) return;
  const int64 num = in.candidates();
  cuda::Nms nms(gpu, in.batch, num, options.topk);
  {
    Gpu::Scope scope(gpu);
    uint64 *keys = gpu.scratch<uint64>(in.batch * num),
           *spare = gpu.scratch<uint64>(in.batch * num);
    gpu.launch(KERNEL(proposal_keys), {in.batch, nms.tiles}, 256, 0, keys, nms.counts, in, anchors,
               options);
    nms.sort(keys, spare);
  }
  nms.take_buffers();
  gpu.launch(KERNEL(proposal_gather), {in.batch, nms.tiles}, 256, 0, nms.buffers, nms.sorted, in,
             anchors, options);
  nms.suppress(proposal_rule(threshold));
  gpu.launch(KERNEL(proposal_write), {in.batch, ceil_div(nms.most, 256)}, 256, 0, out, scores,
             nms.buffers.boxes, nms.sorted, nms.buffers.kept, nms.buffers.kept_before, in, options);
}

}  // namespace cvops
