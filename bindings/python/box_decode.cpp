#include "box_decode.h"

#include "ops.h"

template <>
struct pybind11::detail::type_caster<cvops::BoxDecode>
    : cvops::FromTuple<cvops::BoxDecode, float, float, float, float, float, bool> {};

namespace {

using namespace cvops;

template <typename T>
void bind_box_decode_of(Ops& ops) {
  ops.def(
      "box_decode", [](Array<T> out, Array<const T> data, Array<const T> anchors, BoxDecode op) {
        return [=](auto& device) {
          box_decode(device, out.data, data.data, anchors.data, data.shape[0], data.shape[1], op);
        };
      });
}

}  // namespace

void bind_box_decode(cvops::Ops& ops) {
  bind_box_decode_of<float>(ops);
  bind_box_decode_of<double>(ops);
}
