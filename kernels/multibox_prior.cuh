// multibox_prior: anchors around the cells of feature maps, those of all maps in one launch. A
// thread makes one anchor and stores it as 16 bytes; neighbours store neighbours. Nothing is read
// but the parameters, and nothing is divided: in the time of a store there is room for about a
// hundred instructions, of which divisions would take most.
#pragma once
#include "box.cuh"

namespace cvops {

// Half of an anchor's width and height.
struct HalfSize {
  float width, height;
};

// The order of the operations, here and below, is MXNet's: each is rounded, and another order gives
// other last bits.
CVOPS_HD float prior_center(int place, float offset, float step) {
  return ((float)place + offset) * step;
}

CVOPS_HD Box prior_around(float x, float y, HalfSize half) {
  return {x - half.width, y - half.height, x + half.width, y + half.height};
}

CVOPS_HD float clip_to_unit(float x) { return x < 0 ? 0.0f : x > 1 ? 1.0f : x; }

// What divides each n below 2^31 by a number that the host knows: the quotient is
// (n + n * factor / 2^32) >> shift, rounded down at each step.
struct Divisor {
  uint32 factor, shift;
};

CVOPS_HD uint32 quotient(uint32 n, Divisor by) {
  return (n + (uint32)((uint64)n * by.factor >> 32)) >> by.shift;
}

// Anchors of one launch: those of some shapes around every cell of a map.
struct PriorPart {
  float step_y, step_x, offset_y, offset_x;  // of the centres
  uint32 width, shapes;                      // of the map, and how many
  Divisor by_width, by_shapes;
  uint32 first_shape;   // in the launch's table
  uint32 first_anchor;  // in the result
  uint32 of_cell;       // of all shapes, around each cell
  uint32 anchors;       // in all
  uint32 first_tile;
};

// A block makes a tile of anchors at a time, all of one part.
constexpr int kPriorTile = CVOPS_STEP(256, 32);
constexpr int kPriorParts = CVOPS_STEP(8, 2), kPriorShapes = CVOPS_STEP(128, 3);

// What a launch takes by value. A kernel's parameters hold 4 KiB, so that a call with more takes
// several launches.
struct PriorWork {
  uint32 end[kPriorParts];  // of each part's tiles; where there is no part, of all
  PriorPart part[kPriorParts];
  HalfSize half[kPriorShapes];
};

}  // namespace cvops

CVOPS_KERNEL multibox_prior(float* out, cvops::PriorWork work, int clip);

#ifdef __CUDACC__
// out (anchors, 4): those of all maps, one after another.
extern "C" __global__ void __launch_bounds__(256)
    multibox_prior(float* __restrict__ out, const cvops::PriorWork work, int clip) {
  using namespace cvops;
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
