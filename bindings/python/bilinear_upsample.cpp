#include "bilinear_upsample.h"

#include "ops.h"

namespace {

using namespace cvops;

template <typename T>
void bind_bilinear_upsample_of(Ops& ops) {
  ops.def("bilinear_upsample",
          [](Array<T> out, Array<const T> data, int64 planes, int height, int width, int scale) {
            return [=](auto& device) {
              bilinear_upsample(device, out.data, data.data, planes, height, width, scale);
            };
          });
  ops.def("bilinear_upsample_backward", [](Array<T> grad, Array<const T> out_grad, int64 planes,
                                           int height, int width, int scale) {
    return [=](auto& device) {
      bilinear_upsample_backward(device, grad.data, out_grad.data, planes, height, width, scale);
    };
  });
}

}  // namespace

void bind_bilinear_upsample(cvops::Ops& ops) {
  bind_bilinear_upsample_of<float>(ops);
  bind_bilinear_upsample_of<double>(ops);
}
