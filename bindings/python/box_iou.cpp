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
  ops.def("box_iou_kind", [](Array<float> out, Array<const float> lhs, Array<const float> rhs,
                             bool center, int kind) {
    return [=](auto& device) {
      box_iou_kind(device, out.data, lhs.data, rhs.data, lhs.size / 4, rhs.size / 4, center,
                   (IouKind)kind);
    };
  });
  ops.def("box_iou_backward",
          [](Array<float> lhs_grad, Array<float> rhs_grad, Array<const float> out_grad,
             Array<const float> lhs, Array<const float> rhs, bool center, int kind) {
            return [=](auto& device) {
              box_iou_backward(device, lhs_grad.data, rhs_grad.data, out_grad.data, lhs.data,
                               rhs.data, lhs.size / 4, rhs.size / 4, center, (IouKind)kind);
            };
          });
}
