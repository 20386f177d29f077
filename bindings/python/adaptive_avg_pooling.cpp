#include "adaptive_avg_pooling.h"

#include "ops.h"

template <>
struct pybind11::detail::type_caster<cvops::AdaptivePooling>
    : cvops::FromTuple<cvops::AdaptivePooling, int, int, int, int> {};

void bind_adaptive_avg_pooling(cvops::Ops& ops) {
  using namespace cvops;
  ops.def("adaptive_avg_pooling", [](Array<float> out, Array<const float> data, int64 planes,
                                     AdaptivePooling op) {
    return [=](auto& device) { adaptive_avg_pooling(device, out.data, data.data, planes, op); };
  });
  ops.def("adaptive_avg_pooling_backward",
          [](Array<float> grad, Array<const float> out_grad, int64 planes, AdaptivePooling op) {
            return [=](auto& device) {
              adaptive_avg_pooling_backward(device, grad.data, out_grad.data, planes, op);
            };
          });
}
