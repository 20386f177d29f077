#include "roi_align.h"

#include "ops.h"

template <>
struct pybind11::detail::type_caster<cvops::RoiAlign>
    : cvops::FromTuple<cvops::RoiAlign, int, int, int, int, int, int, float, int, bool, bool> {};

void bind_roi_align(cvops::Ops& ops) {
  using namespace cvops;
  ops.def("roi_align",
          [](Array<float> pooled, Array<const float> data, Array<const float> rois, RoiAlign op) {
            return [=](auto& device) {
              roi_align(device, pooled.data, data.data, rois.data, rois.shape[0], op);
            };
          });
  ops.def("roi_align_backward",
          [](Array<float> grad, Array<const float> out_grad, Array<const float> rois, RoiAlign op) {
            return [=](auto& device) {
              roi_align_backward(device, grad.data, out_grad.data, rois.data, rois.shape[0], op);
            };
          });
}
