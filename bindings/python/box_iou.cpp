#include "box_iou.h"

#include "ops.h"

void bind_box_iou(cvops::Ops& ops) {
  using namespace cvops;
  ops.def("box_iou",
          [](Array<float> out, Array<const float> lhs, Array<const float> rhs, bool center) {
            return [=](auto& device) {
              box_iou(device, out.data, lhs.data, rhs.data, lhs.size / 4, rhs.size / 4, center);
            };
          });
}
