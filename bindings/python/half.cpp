#include "half.h"

#include "ops.h"

void bind_half(cvops::Ops& ops) {
  using namespace cvops;
  ops.def("half_to_float", [](Array<float> out, Array<const uint16> in, bool is_bfloat16) {
    return [=](auto& device) { half_to_float(device, out.data, in.data, in.size, is_bfloat16); };
  });
  ops.def("float_to_half", [](Array<uint16> out, Array<const float> in, bool is_bfloat16) {
    return [=](auto& device) { float_to_half(device, out.data, in.data, in.size, is_bfloat16); };
  });
}
