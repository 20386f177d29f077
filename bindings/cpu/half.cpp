#include "half.h"

#include <algorithm>

#include "parallel.h"
#include "simd.h"

namespace cvops {
namespace {

template <typename Out, typename In, auto kConvert>
void convert(Out* __restrict__ out, const In* __restrict__ in, int64 num) {
  for (int64 i = 0; i < num; ++i) out[i] = kConvert(in[i]);
}

template <typename Out, typename In, auto kFloat16, auto kBfloat16>
void convert_all(Out* out, const In* in, int64 num, bool is_bfloat16) {
  constexpr int64 kPart = 1 << 14;
  parallel_for(ceil_div(num, kPart), 0.2 * kPart, [&](int64 part) {
    const int64 first = part * kPart, count = std::min(kPart, num - first);
    if (is_bfloat16) {
      simd<convert<Out, In, kBfloat16>>(out + first, in + first, count);
    } else {
      simd<convert<Out, In, kFloat16>>(out + first, in + first, count);
    }
  });
}

}  // namespace

void half_to_float(const Cpu&, float* out, const uint16* in, int64 num, bool is_bfloat16) {
  convert_all<float, uint16, float_of_float16, float_of_bfloat16>(out, in, num, is_bfloat16);
}

void float_to_half(const Cpu&, uint16* out, const float* in, int64 num, bool is_bfloat16) {
  convert_all<uint16, float, float16_of, bfloat16_of>(out, in, num, is_bfloat16);
}

}  // namespace cvops
