#include "bilinear_upsample.h"

#include "ops.h"

void bind_bilinear_upsample(cvops::Ops& ops) {
  using namespace cvops;
  ops.def("bilinear_upsample", [](Array<float> out, Array<const float> data, int64 planes,
                                  int height, int width, int scale) {
    return [=](auto& device) {
      bilinear_upsample(device, out.data, data.data, planes, height, width, scale);
    };
  });
  ops.def("bilinear_upsample_backward", [](Array<float> grad, Array<const float> out_grad,
                                           int64 planes, int height, int width, int scale) {
    return [=](auto& device) {
      bilinear_upsample_backward(device, grad.data, out_grad.data, planes, height, width, scale);
    };
  });
}
