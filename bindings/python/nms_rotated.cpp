#include "nms_rotated.h"

#include "nms_columns.h"
#include "nms_rule.h"
#include "rotated_format.h"

void bind_nms_rotated(cvops::Ops& ops) {
  using namespace cvops;
  ops.def("nms_rotated",
          [](Array<float> out, Array<int> index, Array<const float> data, int64 batch, int64 num,
             NmsColumns columns, NmsRule rule, float valid_thresh, float background_id,
             int conversion, int topk, RotatedFormat format) {
            return [=](auto& device) {
              nms_rotated(device, out.data, index.data, data.data, batch, num,
                          {columns, rule, valid_thresh, background_id, conversion, topk}, format);
            };
          });
}
