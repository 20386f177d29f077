#include "rpn_target.h"

#include "sampling.h"

void bind_rpn_target(cvops::Ops& ops) {
  using namespace cvops;
  ops.def("rpn_target", [](Array<float> cls_target, Array<float> box_target, Array<float> box_mask,
                           Array<const float> anchors, Array<const float> labels,
                           Array<const float> noise, SampleShape shape, SampleOptions options) {
    const RpnOutputs out = {cls_target.data, box_target.data, box_mask.data};
    const RpnInputs in = {anchors.data, labels.data, noise.data};
    return [=](auto& device) { rpn_target(device, out, in, shape, options); };
  });
}
