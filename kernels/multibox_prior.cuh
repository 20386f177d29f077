// multibox_prior: anchors around every cell of a feature map. One thread makes one anchor, which it
// stores as 16 bytes; nothing is read but the parameters.
#pragma once
#include "box.cuh"

namespace cvops {

// How the cells lie: sizes of the map, and the distance and the offset between centres.
struct PriorGrid {
  int height, width;
  float step_y, step_x, offset_y, offset_x;
};

// A group of an anchor's shapes. A kernel's parameters hold 4 KiB, so that a call with more shapes
// takes several launches.
constexpr int kPriorShapes = 64;
struct PriorShapes {
  float size[kPriorShapes], ratio[kPriorShapes];
};

CVOPS_HD float clip_to_unit(float x) { return x < 0 ? 0.0f : x > 1 ? 1.0f : x; }

struct HalfSize {
  float width, height;
};

// The order of the operations, here and below, is MXNet's: each is rounded, and another order gives
// other last bits.
CVOPS_HD HalfSize prior_half_size(PriorGrid grid, float size, float ratio) {
  float root = sqrtf(ratio);
  return {size * (float)grid.height / (float)grid.width * root / 2, size / root / 2};
}

CVOPS_HD float prior_center(int place, float offset, float step) {
  return ((float)place + offset) * step;
}

CVOPS_HD Box prior_around(float x, float y, HalfSize half) {
  return {x - half.width, y - half.height, x + half.width, y + half.height};
}

// The anchor of that size around the cell (row, column).
CVOPS_HD Box prior_at(PriorGrid grid, int row, int column, HalfSize half, bool clip) {
  float y = prior_center(row, grid.offset_y, grid.step_y);
  float x = prior_center(column, grid.offset_x, grid.step_x);
  Box b = prior_around(x, y, half);
  if (clip) {
    b = {clip_to_unit(b.x1), clip_to_unit(b.y1), clip_to_unit(b.x2), clip_to_unit(b.y2)};
  }
  return b;
}

}  // namespace cvops

#ifdef __CUDACC__
// out (H, W, total, 4): the anchors `first` to `first + count` of the `total` of each cell.
extern "C" __global__ void __launch_bounds__(256)
    multibox_prior(float* __restrict__ out, const cvops::PriorGrid grid,
                   const cvops::PriorShapes shapes, int first, int count, int total, int clip) {
  using namespace cvops;
  const int64 num = (int64)grid.height * grid.width * count;
  for (int64 k = blockIdx.x * (int64)blockDim.x + threadIdx.x; k < num;
       k += (int64)gridDim.x * blockDim.x) {
    int64 cell = k / count;
    int shape = (int)(k - cell * count);
    int row = (int)(cell / grid.width), column = (int)(cell - (int64)row * grid.width);
    HalfSize half = prior_half_size(grid, shapes.size[shape], shapes.ratio[shape]);
    Box b = prior_at(grid, row, column, half, clip);
    reinterpret_cast<float4*>(out)[cell * total + first + shape] =
        make_float4(b.x1, b.y1, b.x2, b.y2);
  }
}
#endif
