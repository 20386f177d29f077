#include "rroi_align.h"

#include "ops.h"

template <>
struct pybind11::detail::type_caster<cvops::RroiAlign>
    : cvops::FromTuple<cvops::RroiAlign, int, int, int, int, int, int, float, int> {};

void bind_rroi_align(cvops::Ops& ops) {
  using namespace cvops;
  ops.def("rroi_align",
          [](Array<float> pooled, Array<const float> data, Array<const float> rois, RroiAlign op) {
            return [=](auto& device) {
              rroi_align(device, pooled.data, data.data, rois.data, rois.shape[0], op);
            };
          });
}
