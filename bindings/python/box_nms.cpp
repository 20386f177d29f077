#include "box_nms.h"

#include "nms_columns.h"
#include "nms_rule.h"

namespace {

using namespace cvops;

template <typename T>
void bind_box_nms_of(Ops& ops) {
  ops.def("box_nms", [](Array<T> out, Array<int> index, Array<const T> data, int64 batch, int64 num,
                        NmsColumns columns, NmsRule rule, float valid_thresh, float background_id,
                        int conversion, int topk) {
    return [=](auto& device) {
      box_nms(device, out.data, index.data, data.data, batch, num,
              {columns, rule, valid_thresh, background_id, conversion, topk});
    };
  });
  ops.def("box_nms_backward", [](Array<T> grad, Array<const T> out_grad, Array<const int> index,
                                 int64 batch, int64 num, int width) {
    return [=](auto& device) {
      box_nms_backward(device, grad.data, out_grad.data, index.data, batch, num, width);
    };
  });
}

}  // namespace

void bind_box_nms(cvops::Ops& ops) {
  bind_box_nms_of<float>(ops);
  bind_box_nms_of<double>(ops);
}
