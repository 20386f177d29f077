#include "rcnn_target.h"

#include "sampling.h"

void bind_rcnn_target(cvops::Ops& ops) {
  using namespace cvops;
  ops.def("rcnn_target", [](Array<float> rois, Array<float> cls_target, Array<float> matches,
                            Array<float> box_target, Array<float> box_mask,
                            Array<const float> proposals, Array<const float> labels,
                            Array<const float> noise, SampleShape shape, SampleOptions options) {
    const RcnnOutputs out = {rois.data, cls_target.data, matches.data, box_target.data,
                             box_mask.data};
    const RcnnInputs in = {proposals.data, labels.data, noise.data};
    return [=](auto& device) { rcnn_target(device, out, in, shape, options); };
  });
}
