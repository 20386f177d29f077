#include "mask_target.h"

#include <algorithm>

namespace cvops {

void mask_target(Gpu& gpu, float* targets, float* weights, MaskTargetInputs in,
                 MaskTargetShape shape, MaskTargetOptions options) {
  const int64 bins = (int64)shape.images * shape.rois * options.bins();
  if (bins * options.classes == 0) return;
  constexpr int64 threads = CVOPS_STEP(256, 32);
  const int64 blocks = ceil_div(bins, threads);
  // Each part of the classes computes the bins again, so there are only enough of them to occupy
  // the GPU.
  constexpr int64 at_once = 8;  // blocks of a multiprocessor
  const int64 parts =
      std::clamp<int64>(at_once * gpu.multiprocessors() / blocks, 1, options.classes);
  gpu.launch(KERNEL(mask_target), {blocks, std::min<int64>(parts, kMaxGridY)}, threads, 0, targets,
             weights, in, shape, options, std::min<int64>(parts, kMaxGridY));
}

}  // namespace cvops
