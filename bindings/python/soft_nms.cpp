#include "soft_nms.h"

#include "nms_columns.h"

template <>
struct pybind11::detail::type_caster<cvops::SoftNms>
    : cvops::FromTuple<cvops::SoftNms, float, float, bool, bool, bool> {};

void bind_soft_nms(cvops::Ops& ops) {
  using namespace cvops;
  ops.def("soft_nms", [](Array<float> out, Array<int> index, Array<const float> data, int64 batch,
                         int64 num, NmsColumns columns, float valid_thresh, float background_id,
                         int topk, SoftNms op, int rows) {
    const NmsRule rule = {0, false, op.by_class, op.center, false};
    return [=](auto& device) {
      soft_nms(device, out.data, index.data, data.data, batch, num,
               {{columns, rule, valid_thresh, background_id, kNmsAsIs, topk}, op, rows});
    };
  });
}
