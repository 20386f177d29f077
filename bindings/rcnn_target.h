#pragma once
#include "gpu.h"
#include "rcnn_target.cuh"
#include "sort.cuh"

namespace cvops {

// Maximum number of boxes of an image: a grid has at most 65535 tiles along the y axis.
constexpr int64 kMaxCandidates = 65535 * (int64)kSortTile;

void rcnn_target(const Cpu&, RcnnOutputs out, RcnnInputs in, SampleShape shape,
                 SampleOptions options);
void rcnn_target(Gpu&, RcnnOutputs out, RcnnInputs in, SampleShape shape, SampleOptions options);

}  // namespace cvops
