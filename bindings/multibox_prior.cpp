#include "multibox_prior.h"

#include <algorithm>
#include <memory>

#include "parallel.h"
#include "simd.h"

namespace cvops {
namespace {

// The anchors around one row of cells, from those around a row at y = 0. The 0 that is added to
// every x changes none: an x is never -0.
template <bool kClip>
void shifted_row(float* __restrict__ out, const float* __restrict__ at_zero, int64 num, float y) {
  const float shift[8] = {0, y, 0, y, 0, y, 0, y};
  auto shift_one = [&](int64 i, int k) {
    const float moved = at_zero[i + k] + shift[k];
    out[i + k] = kClip ? clip_to_unit(moved) : moved;
  };
  int64 i = 0;
  for (; i + 8 <= num; i += 8) {
    for (int k = 0; k < 8; ++k) shift_one(i, k);
  }
  for (; i < num; i += 4) {
    for (int k = 0; k < 4; ++k) shift_one(i, k);
  }
}

}  // namespace

void cpu::multibox_prior(float* out, PriorGrid grid, Shapes shapes, bool clip) {
  constexpr int64 few = 64, anchors = 1 << 12;
  const int64 of_row = (int64)grid.width * shapes.num;
  float on_stack[4 * few];
  std::unique_ptr<float[]> on_heap(of_row > few ? new float[4 * of_row] : nullptr);
  float* at_zero = on_heap ? on_heap.get() : on_stack;
  for (int s = 0; s < shapes.num; ++s) {
    const HalfSize half = prior_half_size(grid, shapes.size[s], shapes.ratio[s]);
    for (int column = 0; column < grid.width; ++column) {
      const float x = prior_center(column, grid.offset_x, grid.step_x);
      const Box b = prior_around(x, 0, half);
      float* to = at_zero + 4 * ((int64)column * shapes.num + s);
      to[0] = b.x1, to[1] = b.y1, to[2] = b.x2, to[3] = b.y2;
    }
  }
  const int64 rows = ceil_div(anchors, of_row);
  parallel_for(ceil_div(grid.height, rows), 0.5 * rows * of_row, [&](int64 part) {
    const int64 first = part * rows, end = std::min<int64>(first + rows, grid.height);
    for (int64 row = first; row < end; ++row) {
      const float y = prior_center((int)row, grid.offset_y, grid.step_y);
      float* to = out + 4 * row * of_row;
      if (clip) {
        simd<shifted_row<true>>(to, at_zero, 4 * of_row, y);
      } else {
        simd<shifted_row<false>>(to, at_zero, 4 * of_row, y);
      }
    }
  });
}

}  // namespace cvops
