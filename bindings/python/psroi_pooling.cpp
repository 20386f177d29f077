#include "psroi_pooling.h"

#include "ops.h"

template <>
struct pybind11::detail::type_caster<cvops::Psroi>
    : cvops::FromTuple<cvops::Psroi, int, int, int, int, int, int, int, float> {};

void bind_psroi_pooling(cvops::Ops& ops) {
  using namespace cvops;
  ops.def("psroi_pooling",
          [](Array<float> pooled, Array<const float> data, Array<const float> rois, Psroi op) {
            return [=](auto& device) {
              psroi_pooling(device, pooled.data, data.data, rois.data, rois.shape[0], op);
            };
          });
  ops.def("psroi_pooling_backward", [](Array<float> grad, Array<const float> out_grad,
                                       Array<const float> rois, Psroi op) {
    return [=](auto& device) {
      psroi_pooling_backward(device, grad.data, out_grad.data, rois.data, rois.shape[0], op);
    };
  });
}
