#include "multibox_prior.h"

#include "ops.h"

void bind_multibox_prior(cvops::Ops& ops) {
  using namespace cvops;
  // maps and half: PriorMap and HalfSize, field by field.
  ops.def("multibox_prior",
          [](Array<float> out, HostArray<const int> maps, HostArray<const float> half, bool clip) {
            const Priors priors = {reinterpret_cast<const PriorMap*>(maps.data), (int)maps.shape[0],
                                   reinterpret_cast<const HalfSize*>(half.data)};
            return [=](auto& device) { multibox_prior(device, out.data, priors, clip); };
          });
}
