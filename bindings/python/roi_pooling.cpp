#include "roi_pooling.h"

#include "ops.h"

template <>
struct pybind11::detail::type_caster<cvops::RoiPooling>
    : cvops::FromTuple<cvops::RoiPooling, int, int, int, int, int, int, float> {};

template <>
struct pybind11::detail::type_caster<cvops::RoiPoolingGrad>
    : cvops::FromTuple<cvops::RoiPoolingGrad, int64_t, int, int, int, int> {};

namespace {

using namespace cvops;

template <typename T>
void bind_roi_pooling_of(Ops& ops) {
  ops.def("roi_pooling", [](Array<T> pooled, Array<int> argmax, Array<const T> data,
                            Array<const T> rois, RoiPooling op) {
    return [=](auto& device) {
      roi_pooling(device, pooled.data, argmax.data, data.data, rois.data, rois.shape[0], op);
    };
  });
  ops.def("roi_pooling_backward",
          [](Array<T> grad, Array<const T> out_grad, Array<const int> argmax, RoiPoolingGrad size) {
            return [=](auto& device) {
              roi_pooling_backward(device, grad.data, out_grad.data, argmax.data, size);
            };
          });
}

}  // namespace

void bind_roi_pooling(cvops::Ops& ops) {
  bind_roi_pooling_of<float>(ops);
  bind_roi_pooling_of<double>(ops);
}
