#include "roi_pooling.h"

#include "ops.h"

template <>
struct pybind11::detail::type_caster<cvops::RoiPooling>
    : cvops::FromTuple<cvops::RoiPooling, int, int, int, int, int, int, float> {};

template <>
struct pybind11::detail::type_caster<cvops::RoiPoolingGrad>
    : cvops::FromTuple<cvops::RoiPoolingGrad, int64_t, int, int, int, int> {};

void bind_roi_pooling(cvops::Ops& ops) {
  using namespace cvops;
  ops.def("roi_pooling", [](Array<float> pooled, Array<int> argmax, Array<const float> data,
                            Array<const float> rois, RoiPooling op) {
    return [=](auto& device) {
      roi_pooling(device, pooled.data, argmax.data, data.data, rois.data, rois.shape[0], op);
    };
  });
  ops.def("roi_pooling_backward", [](Array<float> grad, Array<const float> out_grad,
                                     Array<const int> argmax, RoiPoolingGrad size) {
    return [=](auto& device) {
      roi_pooling_backward(device, grad.data, out_grad.data, argmax.data, size);
    };
  });
}
