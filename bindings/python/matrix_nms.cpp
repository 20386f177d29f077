#include "matrix_nms.h"

#include "nms_columns.h"

template <>
struct pybind11::detail::type_caster<cvops::MatrixNms>
    : cvops::FromTuple<cvops::MatrixNms, float, bool, bool, bool> {};

void bind_matrix_nms(cvops::Ops& ops) {
  using namespace cvops;
  ops.def("matrix_nms", [](Array<float> out, Array<int> index, Array<const float> data, int64 batch,
                           int64 num, NmsColumns columns, float valid_thresh, float background_id,
                           int topk, MatrixNms op, float post_thresh, int rows) {
    const NmsRule rule = {0, false, op.by_class, op.center, false};
    return [=](auto& device) {
      matrix_nms(
          device, out.data, index.data, data.data, batch, num,
          {{columns, rule, valid_thresh, background_id, kNmsAsIs, topk}, op, post_thresh, rows});
    };
  });
}
