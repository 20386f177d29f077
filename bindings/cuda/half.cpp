#include "half.h"

#include <algorithm>

namespace cvops {

static constexpr int64 kMaxBlocks = CVOPS_STEP(1 << 16, 3);

void half_to_float(Gpu& gpu, float* out, const uint16* in, int64 num, bool is_bfloat16) {
  gpu.launch(KERNEL(half_to_float), std::min(ceil_div(num, 256), kMaxBlocks), 256, 0, out, in, num,
             is_bfloat16);
}

void float_to_half(Gpu& gpu, uint16* out, const float* in, int64 num, bool is_bfloat16) {
  gpu.launch(KERNEL(float_to_half), std::min(ceil_div(num, 256), kMaxBlocks), 256, 0, out, in, num,
             is_bfloat16);
}

}  // namespace cvops
