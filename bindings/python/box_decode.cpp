#include "box_decode.h"

#include "ops.h"

template <>
struct pybind11::detail::type_caster<cvops::BoxDecode>
    : cvops::FromTuple<cvops::BoxDecode, float, float, float, float, float, bool> {};

void bind_box_decode(cvops::Ops& ops) {
  using namespace cvops;
  ops.def("box_decode", [](Array<float> out, Array<const float> data, Array<const float> anchors,
                           BoxDecode op) {
    return [=](auto& device) {
      box_decode(device, out.data, data.data, anchors.data, data.shape[0], data.shape[1], op);
    };
  });
}
