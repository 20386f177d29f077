#include "half.h"

namespace cvops {

void half_to_float(Gpu& gpu, float* out, const uint16* in, int64 num, bool is_bfloat16) {
  gpu.launch(KERNEL(half_to_float), ceil_div(num, 256), 256, 0, out, in, num, is_bfloat16);
}

void float_to_half(Gpu& gpu, uint16* out, const float* in, int64 num, bool is_bfloat16) {
  gpu.launch(KERNEL(float_to_half), ceil_div(num, 256), 256, 0, out, in, num, is_bfloat16);
}

}  // namespace cvops
