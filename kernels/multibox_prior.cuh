// multibox_prior: anchors around the cells of feature maps, all maps in one launch. A thread
// computes one anchor and stores it as 16 bytes; adjacent threads store adjacent anchors. The
// kernel reads only its parameters and does no division. The time of a store covers about a hundred
// instructions, and divisions would take most of them.
#pragma once
#include "box.cuh"

namespace cvops {

// Half of an anchor's width and height.
struct HalfSize {
  float width, height;
};

// The order of operations, here and below, is MXNet's. Another order would change the last bits.
CVOPS_HD float prior_center(int place, float offset, float step) {
  return ((float)place + offset) * step;
}

CVOPS_HD Box prior_around(float x, float y, HalfSize half) {
  return {x - half.width, y - half.height, x + half.width, y + half.height};
}

CVOPS_HD float clip_to_unit(float x) { return x < 0 ? 0.0f : x > 1 ? 1.0f : x; }

// Division of n < 2^31 by a constant from the host: the quotient is (n + n * factor / 2^32) >>
// shift, rounded down at each step.
struct Divisor {
  uint32 factor, shift;
};

CVOPS_HD uint32 quotient(uint32 n, Divisor by) {
  return (n + (uint32)((uint64)n * by.factor >> 32)) >> by.shift;
}

// Anchors of one part of a launch: some shapes around each cell of a map.
struct PriorPart {
  float step_y, step_x, offset_y, offset_x;  // of the centers, in cells and units
  uint32 width, shapes;                      // width of the map; number of shapes
  Divisor by_width, by_shapes;
  uint32 first_shape;   // index in the table of the launch
  uint32 first_anchor;  // index in the result
  uint32 of_cell;       // anchors per cell, all shapes
  uint32 anchors;       // number of anchors of the part
  uint32 first_tile;
};

// A block computes one tile of anchors at a time. All anchors of a tile are of one part.
constexpr int kPriorTile = CVOPS_STEP(256, 32);
constexpr int kPriorParts = CVOPS_STEP(8, 2), kPriorShapes = CVOPS_STEP(128, 3);

// Parameters of a launch, passed by value. The parameters of a kernel are limited to 4 KiB, so a
// larger call takes several launches.
struct PriorWork {
  uint32 end[kPriorParts];  // end of the tiles of each part; unused parts: of the last part
  PriorPart part[kPriorParts];
  HalfSize half[kPriorShapes];
};

}  // namespace cvops

CVOPS_KERNEL multibox_prior(float* out, cvops::PriorWork work, int clip);

#ifdef __CUDACC__
// out (anchors, 4): the anchors of all maps, one map after another.
extern "C" __global__ void __launch_bounds__(256)
    multibox_prior(float* __restrict__ out, const cvops::PriorWork work, int clip) {
  using namespace cvops;
  wait_for_earlier_launches();
  uint32 tile = blockIdx.x;
  while (tile < work.end[kPriorParts - 1]) {
    int p = 0;
#pragma unroll
    for (int i = 0; i + 1 < kPriorParts; ++i) p += tile >= work.end[i];
    const PriorPart part = work.part[p];
    for (; tile < work.end[p]; tile += gridDim.x) {
      const uint32 first = (tile - part.first_tile) * kPriorTile;
      for (uint32 i = threadIdx.x; i < kPriorTile; i += blockDim.x) {
        const uint32 k = first + i;
        if (k >= part.anchors) break;
        const uint32 cell = quotient(k, part.by_shapes), shape = k - cell * part.shapes;
        const uint32 row = quotient(cell, part.by_width), column = cell - row * part.width;
        Box b = prior_around(prior_center((int)column, part.offset_x, part.step_x),
                             prior_center((int)row, part.offset_y, part.step_y),
                             work.half[part.first_shape + shape]);
        if (clip) {
          b = {clip_to_unit(b.x1), clip_to_unit(b.y1), clip_to_unit(b.x2), clip_to_unit(b.y2)};
        }
        reinterpret_cast<float4*>(out)[part.first_anchor + cell * part.of_cell + shape] =
            make_float4(b.x1, b.y1, b.x2, b.y2);
      }
    }
  }
}
#endif
