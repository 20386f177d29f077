#pragma once
#include "box_decode.cuh"
#include "gpu.h"

namespace cvops {

// out and data (B, N, 4), anchors (1, N, 4).
void box_decode(const Cpu&, float* out, const float* data, const float* anchors, int64 batch,
                int64 num, BoxDecode op);
void box_decode(Gpu&, float* out, const float* data, const float* anchors, int64 batch, int64 num,
                BoxDecode op);

}  // namespace cvops
