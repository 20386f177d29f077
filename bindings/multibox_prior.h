#pragma once
#include <cmath>

#include "gpu.h"
#include "multibox_prior.cuh"

namespace cvops {

// A feature map: its cells, the number of shapes of an anchor around each, and how far apart and
// where in their cells the centres lie.
struct PriorMap {
  int height, width, shapes;
  float step_y, step_x, offset_y, offset_x;

  int64 anchors() const { return (int64)height * width * shapes; }
};

// Maps, and the shapes of the anchors of each, one after another. Fewer than 2^31 anchors.
struct Priors {
  const PriorMap* maps;
  int num;
  const HalfSize* half;
};

// In MXNet's order of operations. A ratio that is negative gives NaN.
inline HalfSize prior_half_size(const PriorMap& map, float size, float ratio) {
  const float root = std::sqrt(ratio);
  return {size * (float)map.height / (float)map.width * root / 2, size / root / 2};
}

void multibox_prior(const Cpu&, float* out, Priors priors, bool clip);
void multibox_prior(Gpu&, float* out, Priors priors, bool clip);

}  // namespace cvops
