// sin and cos of a float with the same bits on every device. See exp_log.cuh for the reasons.
#pragma once
#include "common.cuh"

namespace cvops {

// Pi / 2 in two parts. The first part has 33 bits, so its product with a quadrant is exact.
constexpr double kHalfPiHigh = 1.57079632673412561417e+00, kHalfPiLow = 6.07710050650619224932e-11;
constexpr float kLargestAngle = 1048576.0f;  // the reduction is exact enough up to 2^20

struct SinCos {
  float sin, cos;
};

// NaN for an angle, in radians, beyond kLargestAngle.
CVOPS_HD SinCos sin_cos_of(float angle) {
  if (!(angle >= -kLargestAngle && angle <= kLargestAngle)) {
    const float nan = float_of(0x7fc00000u);
    return {nan, nan};
  }
  // angle = n pi / 2 + r with |r| <= pi / 4. The addition of 1.5 * 2^52 rounds away the fraction
  // and leaves n in the lowest bits.
  constexpr double kShift = 6755399441055744.0;
  const double shifted = (double)angle * 0.63661977236758134 + kShift, n = shifted - kShift;
  const double r = ((double)angle - n * kHalfPiHigh) - n * kHalfPiLow, z = r * r;
  // Taylor series in Horner form.
  double s = 1.0 / 355687428096000;
  s = s * z - 1.0 / 1307674368000;
  s = s * z + 1.0 / 6227020800;
  s = s * z - 1.0 / 39916800;
  s = s * z + 1.0 / 362880;
  s = s * z - 1.0 / 5040;
  s = s * z + 1.0 / 120;
  s = s * z - 1.0 / 6;
  s = r + r * (z * s);
  double c = 1.0 / 20922789888000;
  c = c * z - 1.0 / 87178291200;
  c = c * z + 1.0 / 479001600;
  c = c * z - 1.0 / 3628800;
  c = c * z + 1.0 / 40320;
  c = c * z - 1.0 / 720;
  c = c * z + 1.0 / 24;
  c = c * z - 1.0 / 2;
  c = c * z + 1.0;
  const int quadrant = (int)(bits_of(shifted) & 3);
  const double sine = quadrant & 1 ? c : s, cosine = quadrant & 1 ? s : c;
  return {(float)(quadrant & 2 ? -sine : sine), (float)((quadrant + 1) & 2 ? -cosine : cosine)};
}

}  // namespace cvops
