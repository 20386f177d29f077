#pragma once
#include "gpu.h"
#include "half.cuh"

namespace cvops {

// Conversion of `num` elements. The halves are float16, or bfloat16.
void half_to_float(const Cpu&, float* out, const uint16* in, int64 num, bool is_bfloat16);
void half_to_float(Gpu&, float* out, const uint16* in, int64 num, bool is_bfloat16);
void float_to_half(const Cpu&, uint16* out, const float* in, int64 num, bool is_bfloat16);
void float_to_half(Gpu&, uint16* out, const float* in, int64 num, bool is_bfloat16);

}  // namespace cvops
