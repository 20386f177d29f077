#include "box_iou.h"

#include "ops.h"

namespace {

using namespace cvops;

template <typename T>
void bind_box_iou_of(Ops& ops) {
  ops.def("box_iou", [](Array<T> out, Array<const T> lhs, Array<const T> rhs, bool center) {
    return [=](auto& device) {
      box_iou(device, out.data, lhs.data, rhs.data, lhs.size / 4, rhs.size / 4, center);
    };
  });
  ops.def("box_iou_kind",
          [](Array<T> out, Array<const T> lhs, Array<const T> rhs, bool center, int kind) {
            return [=](auto& device) {
              box_iou_kind(device, out.data, lhs.data, rhs.data, lhs.size / 4, rhs.size / 4, center,
                           (IouKind)kind);
            };
          });
  ops.def("box_iou_backward", [](Array<T> lhs_grad, Array<T> rhs_grad, Array<const T> out_grad,
                                 Array<const T> lhs, Array<const T> rhs, bool center, int kind) {
    return [=](auto& device) {
      box_iou_backward(device, lhs_grad.data, rhs_grad.data, out_grad.data, lhs.data, rhs.data,
                       lhs.size / 4, rhs.size / 4, center, (IouKind)kind);
    };
  });
}

}  // namespace

void bind_box_iou(cvops::Ops& ops) {
  bind_box_iou_of<float>(ops);
  bind_box_iou_of<double>(ops);
}
