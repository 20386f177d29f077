#include "multiclass_nms.h"

#include "nms_rule.h"

template <>
struct pybind11::detail::type_caster<cvops::ScoreFilter>
    : cvops::FromTuple<cvops::ScoreFilter, float, int, int> {};

void bind_multiclass_nms(cvops::Ops& ops) {
  using namespace cvops;
  ops.def("multiclass_nms",
          [](Array<float> out, Array<int> counts, Array<const float> boxes,
             Array<const float> scores, ScoreFilter filter, NmsRule rule, int topk, int rows) {
            const auto [batch, classes, num] = scores.shape;
            const ClassScores in = {boxes.data, scores.data, batch, classes, num};
            return [=](auto& device) {
              multiclass_nms(device, out.data, counts.data, in, {filter, rule, topk, rows});
            };
          });
}
