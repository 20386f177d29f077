#pragma once
#include <cmath>
#include <vector>

#include "gpu.h"
#include "multibox_prior.cuh"

namespace cvops {

// A feature map: its cells, the number of anchor shapes around each cell, and the distance and
// offset of the centers.
struct PriorMap {
  int height, width, shapes;
  float step_y, step_x, offset_y, offset_x;

  int64 anchors() const { return (int64)height * width * shapes; }
};

// Feature maps, and the anchor shapes of each map, one map after another. Fewer than 2^31 anchors.
struct Priors {
  const PriorMap* maps;
  int num;
  const HalfSize* half;
};

// The order of operations is MXNet's. A negative ratio gives NaN.
inline HalfSize prior_half_size(const PriorMap& map, float size, float ratio) {
  const float root = std::sqrt(ratio);
  return {size * (float)map.height / (float)map.width * root / 2, size / root / 2};
}

// An anchor around a cell: the height of a square, and width to height.
struct PriorShape {
  float size, ratio;
};

// Owns what Priors points to.
struct PriorLayout {
  std::vector<PriorMap> maps;
  std::vector<HalfSize> half;

  Priors priors() const { return {maps.data(), (int)maps.size(), half.data()}; }
};

// `shapes` are those of one map after another. Where a step of a map is not positive, the steps
// divide the image into its cells.
PriorLayout prior_layout(const PriorMap* maps, int num, const PriorShape* shapes);

void multibox_prior(const Cpu&, float* out, Priors priors, bool clip);
void multibox_prior(Gpu&, float* out, Priors priors, bool clip);

}  // namespace cvops
