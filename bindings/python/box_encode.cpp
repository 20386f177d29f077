#include "box_encode.h"

#include "ops.h"

namespace {

using namespace cvops;

template <typename T>
void bind_box_encode_of(Ops& ops) {
  ops.def("box_encode", [](Array<T> targets, Array<T> masks, Array<const T> samples,
                           Array<const T> matches, Array<const T> anchors, Array<const T> refs,
                           Array<const T> means, Array<const T> stds) {
    const EncodeInputsOf<T> in = {samples.data, matches.data, anchors.data,
                                  refs.data,    means.data,   stds.data};
    return [=](auto& device) {
      box_encode(device, targets.data, masks.data, in, samples.shape[0], samples.shape[1],
                 refs.shape[1]);
    };
  });
}

}  // namespace

void bind_box_encode(cvops::Ops& ops) {
  bind_box_encode_of<float>(ops);
  bind_box_encode_of<double>(ops);
}
