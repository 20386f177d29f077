#include "weighted_boxes_fusion.h"

#include "nms_columns.h"

template <>
struct pybind11::detail::type_caster<cvops::BoxFusion>
    : cvops::FromTuple<cvops::BoxFusion, float, int, bool, bool, bool> {};

void bind_weighted_boxes_fusion(cvops::Ops& ops) {
  using namespace cvops;
  ops.def("weighted_boxes_fusion",
          [](Array<float> out, Array<const float> data, int64 batch, int64 num, NmsColumns columns,
             float valid_thresh, float background_id, int topk, BoxFusion op, int rows) {
            const NmsRule rule = {0, false, op.by_class, op.center, false};
            return [=](auto& device) {
              weighted_boxes_fusion(
                  device, out.data, data.data, batch, num,
                  {{columns, rule, valid_thresh, background_id, kNmsAsIs, topk}, op, rows});
            };
          });
}
