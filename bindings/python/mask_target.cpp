#include "mask_target.h"

#include "ops.h"

template <>
struct pybind11::detail::type_caster<cvops::MaskTargetShape>
    : cvops::FromTuple<cvops::MaskTargetShape, int, int, int, int, int> {};

template <>
struct pybind11::detail::type_caster<cvops::MaskTargetOptions>
    : cvops::FromTuple<cvops::MaskTargetOptions, int, int, int, int, bool> {};

void bind_mask_target(cvops::Ops& ops) {
  using namespace cvops;
  ops.def("mask_target", [](Array<float> targets, Array<float> weights, Array<const float> rois,
                            Array<const float> gt_masks, Array<const float> matches,
                            Array<const float> cls_targets, MaskTargetShape shape,
                            MaskTargetOptions options) {
    const MaskTargetInputs in = {rois.data, gt_masks.data, matches.data, cls_targets.data};
    return
        [=](auto& device) { mask_target(device, targets.data, weights.data, in, shape, options); };
  });
}
