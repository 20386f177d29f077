#include "soft_nms.h"

#include "nms.h"

namespace cvops {

void soft_nms(Gpu& gpu, float* out, int* index, const float* data, int64 batch, int64 num,
              const SoftNmsOptions& options) {
  if (batch * num * options.rows == 0) return;
  constexpr int kThreads = 1024;
  cuda::Nms nms(gpu, batch, num, options.candidates.topk);
  cuda::nms_candidates(gpu, nms, data, options.candidates);
  gpu.launch(KERNEL(soft_nms), batch, kThreads, 0, out, index, nms.sorted, nms.buffers, data, num,
             options.rows, options.candidates.columns, options.op, options.candidates.valid_thresh,
             index != nullptr);
}

}  // namespace cvops
