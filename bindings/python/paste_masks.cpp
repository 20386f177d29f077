#include "paste_masks.h"

#include "ops.h"

template <>
struct pybind11::detail::type_caster<cvops::PasteShape>
    : cvops::FromTuple<cvops::PasteShape, int64_t, int, int, int, int> {};

void bind_paste_masks(cvops::Ops& ops) {
  using namespace cvops;
  ops.def("paste_masks", [](Array<unsigned char> out, Array<const float> masks,
                            Array<const float> boxes, PasteShape shape, float threshold) {
    return [=](auto& device) {
      paste_masks(device, out.data, masks.data, boxes.data, shape, threshold);
    };
  });
}
