#pragma once
#include "gpu.h"
#include "match_anchors.cuh"

namespace cvops {

// out (B, A), anchors (anchor_sets, A, 4), truths (B, M, 4).
void match_anchors(const Cpu&, int* out, const float* anchors, const float* truths,
                   MatchShape shape, MatchOptions options);
void match_anchors(Gpu&, int* out, const float* anchors, const float* truths, MatchShape shape,
                   MatchOptions options);

}  // namespace cvops
