// Conversion between float and the half-size types float16 (IEEE 754 binary16) and bfloat16.
//
// The bits are computed with integers and single operations of floats, so that every device has the
// same result. A conversion to a half rounds to the nearest value, ties to even.
#pragma once
#include "common.cuh"

namespace cvops {

using uint16 = unsigned short;

CVOPS_HD float float_of_float16(uint16 half) {
  // With the exponent of a float, the value is 2^112 times too small. The product is exact, also
  // for denormal halves.
  const uint32 sign = (uint32)(half & 0x8000) << 16, rest = (uint32)(half & 0x7fff);
  const float scaled = float_of(rest << 13) * float_of(0x77800000);  // 2^112
  const uint32 special = 0x7f800000 | rest << 13;                    // infinity or NaN
  return float_of((rest >= 0x7c00 ? special : bits_of(scaled)) | sign);
}

CVOPS_HD uint16 float16_of(float x) {
  const uint32 bits = bits_of(x), sign = bits >> 16 & 0x8000, rest = bits & 0x7fffffff;
  // The last bit of a denormal half is 2^-24: the sum with 0.5 rounds there.
  const uint32 denormal = bits_of(float_of(rest) + 0.5f) - bits_of(0.5f);
  const uint32 odd = rest >> 13 & 1;
  const uint32 normal = (rest - 0x38000000 + 0xfff + odd) >> 13;
  const uint32 small = rest < 0x38800000 ? denormal : normal;
  const uint32 number = rest >= 0x477ff000 ? 0x7c00 : small;  // 65520 or more is infinite
  const uint32 nan = 0x7e00 | (rest >> 13 & 0x1ff);
  return (uint16)((rest > 0x7f800000 ? nan : number) | sign);
}

CVOPS_HD float float_of_bfloat16(uint16 half) { return float_of((uint32)half << 16); }

CVOPS_HD uint16 bfloat16_of(float x) {
  const uint32 bits = bits_of(x);
  const uint32 number = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  const uint32 nan = bits >> 16 | 0x40;
  return (uint16)((bits & 0x7fffffff) > 0x7f800000 ? nan : number);
}

}  // namespace cvops

CVOPS_KERNEL half_to_float(float* out, const cvops::uint16* in, cvops::int64 num, int is_bfloat16);
CVOPS_KERNEL float_to_half(cvops::uint16* out, const float* in, cvops::int64 num, int is_bfloat16);

#ifdef __CUDACC__
extern "C" __global__ void __launch_bounds__(256)
    half_to_float(float* __restrict__ out, const unsigned short* __restrict__ in, long long num,
                  int is_bfloat16) {
  using namespace cvops;
  wait_for_earlier_launches();
  const int64 i = (int64)blockIdx.x * blockDim.x + threadIdx.x;
  if (i < num) out[i] = is_bfloat16 ? float_of_bfloat16(in[i]) : float_of_float16(in[i]);
}

extern "C" __global__ void __launch_bounds__(256)
    float_to_half(unsigned short* __restrict__ out, const float* __restrict__ in, long long num,
                  int is_bfloat16) {
  using namespace cvops;
  wait_for_earlier_launches();
  const int64 i = (int64)blockIdx.x * blockDim.x + threadIdx.x;
  if (i < num) out[i] = is_bfloat16 ? bfloat16_of(in[i]) : float16_of(in[i]);
}
#endif
