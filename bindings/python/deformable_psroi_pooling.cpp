#include "deformable_psroi_pooling.h"

#include "ops.h"

template <>
struct pybind11::detail::type_caster<cvops::DeformablePsroi>
    : cvops::FromTuple<cvops::DeformablePsroi, int, int, int, int, int, int, int, float, int, int,
                       float, int> {};

void bind_deformable_psroi_pooling(cvops::Ops& ops) {
  using namespace cvops;
  ops.def("deformable_psroi_pooling",
          [](Array<float> pooled, Array<const float> data, Array<const float> rois,
             Array<const float> trans, DeformablePsroi op) {
            return [=](auto& device) {
              deformable_psroi_pooling(device, pooled.data, data.data, rois.data, trans.data,
                                       rois.shape[0], op);
            };
          });
  ops.def("deformable_psroi_pooling_backward", [](Array<float> grad, Array<float> trans_grad,
                                                  Array<const float> out_grad,
                                                  Array<const float> data, Array<const float> rois,
                                                  Array<const float> trans, DeformablePsroi op) {
    return [=](auto& device) {
      deformable_psroi_pooling_backward(device, grad.data, trans_grad.data, out_grad.data,
                                        data.data, rois.data, trans.data, rois.shape[0], op);
    };
  });
}
