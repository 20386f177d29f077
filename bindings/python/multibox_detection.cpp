#include "multibox_detection.h"

#include "nms_rule.h"

template <>
struct pybind11::detail::type_caster<cvops::Variances>
    : cvops::FromTuple<cvops::Variances, float, float, float, float> {};

void bind_multibox_detection(cvops::Ops& ops) {
  using namespace cvops;
  ops.def("multibox_detection",
          [](Array<float> out, Array<const float> cls_prob, Array<const float> loc_pred,
             Array<const float> anchor, bool clip, float threshold, Variances variances,
             NmsRule rule, bool suppresses, int topk) {
            const auto [batch, classes, num] = cls_prob.shape;
            const Predictions in = {cls_prob.data, loc_pred.data, anchor.data, batch, classes, num};
            return [=](auto& device) {
              multibox_detection(device, out.data, in,
                                 {clip, threshold, variances, rule, suppresses, topk});
            };
          });
}
