#include "multibox_prior.h"

#include "ops.h"

void bind_multibox_prior(cvops::Ops& ops) {
  using namespace cvops;
  // maps and shapes: PriorMap and PriorShape, field by field.
  ops.def("multibox_prior", [](Array<float> out, HostArray<const int> maps,
                               HostArray<const float> shapes, bool clip) {
    const auto* const first = reinterpret_cast<const PriorMap*>(maps.data);
    const int num = (int)(maps.size / (int64)(sizeof(PriorMap) / sizeof(int)));
    auto layout = prior_layout(first, num, reinterpret_cast<const PriorShape*>(shapes.data));
    return [out, clip, layout = std::move(layout)](auto& device) {
      multibox_prior(device, out.data, layout.priors(), clip);
    };
  });
}
