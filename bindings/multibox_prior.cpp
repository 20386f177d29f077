#include "multibox_prior.h"

#include <vector>

#include "parallel.h"

namespace cvops {

static void prior_row(float* out, PriorGrid grid, const std::vector<HalfSize>& halves, bool clip,
                      int row) {
  for (int column = 0; column < grid.width; ++column) {
    for (HalfSize half : halves) {
      Box b = prior_at(grid, row, column, half, clip);
      out[0] = b.x1, out[1] = b.y1, out[2] = b.x2, out[3] = b.y2;
      out += 4;
    }
  }
}

void cpu::multibox_prior(float* out, PriorGrid grid, Shapes shapes, bool clip) {
  std::vector<HalfSize> halves(shapes.num);
  for (int s = 0; s < shapes.num; ++s) {
    halves[s] = prior_half_size(grid, shapes.size[s], shapes.ratio[s]);
  }
  int64 anchors_of_a_row = (int64)grid.width * shapes.num;
  parallel_for(grid.height, 1.0 * anchors_of_a_row, [&](int64 row) {
    prior_row(out + 4 * row * anchors_of_a_row, grid, halves, clip, (int)row);
  });
}

}  // namespace cvops
