#pragma once
#include <cmath>

#include "gpu.h"
#include "proposal.cuh"

namespace cvops {

// The anchor of a scale and a ratio at the first cell. The order of operations is MXNet's.
inline Box proposal_base_anchor(float scale, float ratio, int stride) {
  const float side = (float)stride, center = 0.5f * (side - 1.0f);
  const float width = std::floor(std::sqrt(std::floor(side * side / ratio)) + 0.5f) * scale;
  const float height = std::floor(width / scale * ratio + 0.5f) * scale;
  const float half_width = 0.5f * (width - 1.0f), half_height = 0.5f * (height - 1.0f);
  return {center - half_width, center - half_height, center + half_width, center + half_height};
}

// The anchors of a cell: for each ratio those of all scales.
inline ProposalAnchors proposal_anchors(const float* scales, int num_scales, const float* ratios,
                                        int num_ratios, int stride) {
  ProposalAnchors anchors = {};
  for (int i = 0; i < num_ratios * num_scales && i < kProposalAnchors; ++i) {
    anchors.box[i] = proposal_base_anchor(scales[i % num_scales], ratios[i / num_scales], stride);
  }
  return anchors;
}

// out (batch, rows, 5) and scores (batch, rows), which may be null. There is a candidate or more.
void proposal(const Cpu&, float* out, float* scores, ProposalInputs in,
              const ProposalAnchors& anchors, ProposalOptions options, float threshold);
void proposal(Gpu&, float* out, float* scores, ProposalInputs in, const ProposalAnchors& anchors,
              ProposalOptions options, float threshold);

// The rule of MXNet's proposals.
inline NmsRule proposal_rule(float threshold) { return {threshold, false, false, false, true}; }

}  // namespace cvops
