// exp and log with the same bits on every device. The functions of compilers differ in
// the last bit between CPUs and GPUs, and between versions. These functions use only operations
// that IEEE 754 rounds identically everywhere. They compute in double and round once at the end. A
// test of 8 million floats of every magnitude per function found no incorrectly rounded result.
#pragma once
#include "common.cuh"

namespace cvops {

// ln 2 in two parts. The first part has few bits, so its product with an exponent is exact.
constexpr double kLn2High = 0x1.62e42fefap-1, kLn2Low = 0x1.cf79abc9e3b39p-40;

// The Taylor series of exp in Horner form; p has its terms from r^12 on, divided by r^12.
CVOPS_HD double exp_series(double p, double r) {
  p = p * r + 1.0 / 39916800;
  p = p * r + 1.0 / 3628800;
  p = p * r + 1.0 / 362880;
  p = p * r + 1.0 / 40320;
  p = p * r + 1.0 / 5040;
  p = p * r + 1.0 / 720;
  p = p * r + 1.0 / 120;
  p = p * r + 1.0 / 24;
  p = p * r + 1.0 / 6;
  p = p * r + 0.5;
  p = p * r + 1.0;
  p = p * r + 1.0;
  return p;
}

CVOPS_HD float exp_of(float x) {
  // Outside these bounds the result is 0 or infinite. A NaN fails both comparisons.
  double clamped = x < -110.0f ? -110.0 : x > 90.0f ? 90.0 : (double)x;
  // x = n ln 2 + r with |r| <= ln 2 / 2. The addition of 1.5 * 2^52 rounds away the fraction and
  // leaves n in the lowest bits.
  constexpr double kShift = 6755399441055744.0;
  double shifted = clamped * 1.4426950408889634 + kShift;
  double n = shifted - kShift;
  double r = (clamped - n * kLn2High) - n * kLn2Low;
  const double p = exp_series(1.0 / 479001600, r);
  double two_to_n = double_of((int64)((uint64)(bits_of(shifted) + 1023) << 52));
  return (float)(p * two_to_n);
}

// exp in double, with a relative error of about one unit in the last place.
CVOPS_HD double exp_of(double x) {
  // Outside these bounds the result is 0 or infinite. A NaN fails both comparisons.
  const double clamped = x < -746.0 ? -746.0 : x > 710.0 ? 710.0 : x;
  constexpr double kShift = 6755399441055744.0;  // see above
  const double shifted = clamped * 1.4426950408889634 + kShift, n = shifted - kShift;
  const double r = (clamped - n * kLn2High) - n * kLn2Low;
  const double first_terms = (1.0 / 87178291200 * r + 1.0 / 6227020800) * r + 1.0 / 479001600;
  const double p = exp_series(first_terms, r);
  // Two factors, because 2^n itself may be infinite or denormal.
  const int64 whole = (int64)((uint64)bits_of(shifted) - (uint64)bits_of(kShift));
  const int64 part = whole >> 1;
  const double first = double_of((int64)((uint64)(part + 1023) << 52));
  const double second = double_of((int64)((uint64)(whole - part + 1023) << 52));
  return p * first * second;
}

// Logarithm of x 2^exponent before a rounding to float, for x in (0, infinity) and not denormal.
CVOPS_HD double log_of_positive(double x, double exponent = 0.0) {
  // x = m 2^e with sqrt(1/2) <= m < sqrt(2). The code has no branches and takes e from the low bits
  // of a double, so that a compiler can vectorize it.
  const uint64 bits = (uint64)bits_of(x);
  double e = double_of((int64)(bits >> 52 | 0x4330000000000000ull)) -
             (4503599627370496.0 + 1023 - exponent);
  double m = double_of((int64)((bits & 0xfffffffffffffull) | 0x3ff0000000000000ull));
  const bool high = m >= 1.4142135623730951;
  m = high ? m * 0.5 : m;
  e = high ? e + 1 : e;
  // Series of log m = 2 artanh s.
  double s = (m - 1.0) / (m + 1.0), z = s * s;
  double p = 1.0 / 23;
  p = p * z + 1.0 / 21;
  p = p * z + 1.0 / 19;
  p = p * z + 1.0 / 17;
  p = p * z + 1.0 / 15;
  p = p * z + 1.0 / 13;
  p = p * z + 1.0 / 11;
  p = p * z + 1.0 / 9;
  p = p * z + 1.0 / 7;
  p = p * z + 1.0 / 5;
  p = p * z + 1.0 / 3;
  p = p * z + 1.0;
  return e * kLn2High + (e * kLn2Low + 2.0 * s * p);
}

CVOPS_HD double log_of_positive(float x) {
  return log_of_positive((double)x);  // denormal floats are normal doubles
}

// Logarithm of x <= 0 and of NaN.
CVOPS_HD double log_of_others(double x) {
  return x == 0 ? double_of(-0x0010000000000000ll) : double_of(0x7ff8000000000000ll);
}

CVOPS_HD float log_of(float x) {
  const float special = (float)log_of_others(x);
#ifdef __CUDA_ARCH__
  // A branch here saves registers in the kernel.
  if (!(x > 0)) return special;
#endif
  const float log = (float)log_of_positive(x);
  return !(x > 0) ? special : x > 3.402823466e38f ? x : log;
}

// Logarithm in double, with the relative error of a few roundings.
CVOPS_HD double log_in_double(float x) {
  const double log = log_of_positive(x);
  return !(x > 0) ? log_of_others(x) : x > 3.402823466e38f ? (double)x : log;
}
CVOPS_HD double log_in_double(double x) {
  const bool denormal = x < 0x1p-1022;
  const double log = log_of_positive(denormal ? x * 0x1p54 : x, denormal ? -54.0 : 0.0);
  return !(x > 0) ? log_of_others(x) : x > 0x1.fffffffffffffp1023 ? x : log;
}

}  // namespace cvops
