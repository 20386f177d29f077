#include "box_iou.h"

#include <vector>

#include "box_iou.cuh"
#include "parallel.h"
#include "simd.h"

namespace cvops {

// One row of the matrix. The columns' boxes come as arrays of fields, so that the compiler makes a
// vector of each.
static void iou_row(float* __restrict__ out, SizedBox box, const float* __restrict__ x1,
                    const float* __restrict__ y1, const float* __restrict__ x2,
                    const float* __restrict__ y2, const float* __restrict__ area, int64 num,
                    bool center) {
  if (center) {
    for (int64 j = 0; j < num; ++j) {
      out[j] = box_iou_of(box, {{x1[j], y1[j], x2[j], y2[j]}, area[j]}, true);
    }
  } else {
    for (int64 j = 0; j < num; ++j) {
      out[j] = box_iou_of(box, {{x1[j], y1[j], x2[j], y2[j]}, area[j]}, false);
    }
  }
}

void cpu::box_iou(float* out, const float* lhs, const float* rhs, int64 num_lhs, int64 num_rhs,
                  bool center) {
  std::vector<float> fields(5 * num_rhs);
  float *x1 = fields.data(), *y1 = x1 + num_rhs, *x2 = y1 + num_rhs, *y2 = x2 + num_rhs,
        *area = y2 + num_rhs;
  for (int64 j = 0; j < num_rhs; ++j) {
    SizedBox b = sized(load_box(rhs, j), center);
    x1[j] = b.box.x1, y1[j] = b.box.y1, x2[j] = b.box.x2, y2[j] = b.box.y2, area[j] = b.area;
  }
  parallel_for(num_lhs, 0.3 * num_rhs, [&](int64 i) {
    SizedBox box = sized(load_box(lhs, i), center);
    simd<iou_row>(out + i * num_rhs, box, x1, y1, x2, y2, area, num_rhs, center);
  });
}

}  // namespace cvops
