#include "roi_align.h"

#include "ops.h"

template <>
struct pybind11::detail::type_caster<cvops::RoiAlign>
    : cvops::FromTuple<cvops::RoiAlign, int, int, int, int, int, int, float, int, bool, bool> {};

namespace {

using namespace cvops;

template <typename T>
void bind_roi_align_of(Ops& ops) {
  ops.def("roi_align", [](Array<T> pooled, Array<const T> data, Array<const T> rois, RoiAlign op) {
    return [=](auto& device) {
      roi_align(device, pooled.data, data.data, rois.data, rois.shape[0], op);
    };
  });
  ops.def("roi_align_backward",
          [](Array<T> grad, Array<const T> out_grad, Array<const T> rois, RoiAlign op) {
            return [=](auto& device) {
              roi_align_backward(device, grad.data, out_grad.data, rois.data, rois.shape[0], op);
            };
          });
}

}  // namespace

void bind_roi_align(cvops::Ops& ops) {
  bind_roi_align_of<float>(ops);
  bind_roi_align_of<double>(ops);
}
