#include "multiclass_nms.h"

#include "nms_rule.h"

template <>
struct pybind11::detail::type_caster<cvops::ScoreFilter>
    : cvops::FromTuple<cvops::ScoreFilter, float, int, int> {};

namespace {

using namespace cvops;

template <typename T>
void bind_multiclass_nms_of(Ops& ops) {
  ops.def("multiclass_nms",
          [](Array<T> out, Array<int> counts, Array<const T> boxes, Array<const T> scores,
             ScoreFilter filter, NmsRule rule, int topk, int rows) {
            const auto [batch, classes, num] = scores.shape;
            const ClassScores<T> in = {boxes.data, scores.data, batch, classes, num};
            return [=](auto& device) {
              multiclass_nms(device, out.data, counts.data, in, {filter, rule, topk, rows});
            };
          });
}

}  // namespace

void bind_multiclass_nms(cvops::Ops& ops) {
  bind_multiclass_nms_of<float>(ops);
  bind_multiclass_nms_of<double>(ops);
}
