#include "bilinear_resize.h"

#include "ops.h"

template <>
struct pybind11::detail::type_caster<cvops::BilinearResize>
    : cvops::FromTuple<cvops::BilinearResize, int, int, int, int, bool> {};

void bind_bilinear_resize(cvops::Ops& ops) {
  using namespace cvops;
  ops.def("bilinear_resize",
          [](Array<float> out, Array<const float> data, int64 planes, BilinearResize op) {
            return [=](auto& device) { bilinear_resize(device, out.data, data.data, planes, op); };
          });
  ops.def("bilinear_resize_backward",
          [](Array<float> grad, Array<const float> out_grad, int64 planes, BilinearResize op) {
            return [=](auto& device) {
              bilinear_resize_backward(device, grad.data, out_grad.data, planes, op);
            };
          });
}
