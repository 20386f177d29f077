#include "label_from_color.h"

#include "ops.h"

void bind_label_from_color(cvops::Ops& ops) {
  using namespace cvops;
  ops.def("label_from_color", [](Array<int> out, Array<const unsigned char> image,
                                 Array<const unsigned char> colormap, int unknown) {
    return [=](auto& device) {
      label_from_color(device, out.data, image.data, colormap.data, out.size,
                       (int)colormap.shape[0], unknown);
    };
  });
}
