#include "box_encode.h"

#include "ops.h"

void bind_box_encode(cvops::Ops& ops) {
  using namespace cvops;
  ops.def("box_encode",
          [](Array<float> targets, Array<float> masks, Array<const float> samples,
             Array<const float> matches, Array<const float> anchors, Array<const float> refs,
             Array<const float> means, Array<const float> stds) {
            const EncodeInputs in = {samples.data, matches.data, anchors.data,
                                     refs.data,    means.data,   stds.data};
            return [=](auto& device) {
              box_encode(device, targets.data, masks.data, in, samples.shape[0], samples.shape[1],
                         refs.shape[1]);
            };
          });
}
