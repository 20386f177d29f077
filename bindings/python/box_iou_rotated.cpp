#include "box_iou_rotated.h"

#include "rotated_format.h"

void bind_box_iou_rotated(cvops::Ops& ops) {
  using namespace cvops;
  ops.def("box_iou_rotated", [](Array<float> out, Array<const float> lhs, Array<const float> rhs,
                                RotatedFormat format) {
    return [=](auto& device) {
      box_iou_rotated(device, out.data, lhs.data, rhs.data, lhs.size / kRotatedNumbers,
                      rhs.size / kRotatedNumbers, format);
    };
  });
}
