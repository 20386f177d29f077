#include "multibox_target.h"

#include "ops.h"

template <>
struct pybind11::detail::type_caster<cvops::TargetShape>
    : cvops::FromTuple<cvops::TargetShape, int, int, int, int, int> {};

template <>
struct pybind11::detail::type_caster<cvops::TargetOptions>
    : cvops::FromTuple<cvops::TargetOptions, float, float, float, float, float, float, float,
                       float> {};

void bind_multibox_target(cvops::Ops& ops) {
  using namespace cvops;
  ops.def("multibox_target",
          [](Array<float> loc_target, Array<float> loc_mask, Array<float> cls_target,
             Array<const float> anchor, Array<const float> label, Array<const float> cls_pred,
             TargetShape shape, TargetOptions options) {
            const TargetOutputs out = {loc_target.data, loc_mask.data, cls_target.data};
            const TargetInputs in = {anchor.data, label.data, cls_pred.data};
            return [=](auto& device) { multibox_target(device, out, in, shape, options); };
          });
}
