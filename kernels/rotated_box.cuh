// Rotated boxes: their geometry, and the area of their intersection, with the same bits on every
// device. The functions compute in double, with operations that IEEE 754 rounds identically
// everywhere. The IoU is rounded to float once, so its error is that of one rounding.
#pragma once
#include "box.cuh"

namespace cvops {

// Numbers of a rotated box: x and y of the center, width, height, angle.
constexpr int kRotatedNumbers = 5;

// Unit and direction of angles. The y axis points down, as in images.
struct RotatedFormat {
  int radians;    // if set, angles are in radians, otherwise in degrees
  int clockwise;  // if set, positive angles turn the box clockwise in the image
};

// Direction (cos, sin) of the side `width`. A box without area, and a box with a number that is not
// finite, have sides of 0.
struct RotatedBox {
  float x, y, width, height;
  double cos, sin;

  CVOPS_HD double area() const { return (double)width * height; }
};

struct Direction {
  double cos, sin;
};

// x rounded to an integer, for |x| below 2^51. The addition of 1.5 * 2^52 rounds the fraction away.
CVOPS_HD double nearest_integer(double x) {
  constexpr double kShift = 6755399441055744.0;
  return (x + kShift) - kShift;
}

CVOPS_HD double smaller(double a, double b) { return a < b ? a : b; }
CVOPS_HD double larger(double a, double b) { return a > b ? a : b; }
CVOPS_HD double absolute(double x) { return x < 0 ? -x : x; }

// Direction at `quadrant` right angles plus x radians, |x| <= pi / 4. Taylor series in Horner form.
CVOPS_HD Direction direction_of(double x, double quadrant) {
  const double z = x * x;
  double s = -1.0 / 1307674368000;
  s = s * z + 1.0 / 6227020800;
  s = s * z - 1.0 / 39916800;
  s = s * z + 1.0 / 362880;
  s = s * z - 1.0 / 5040;
  s = s * z + 1.0 / 120;
  s = s * z - 1.0 / 6;
  s = x + x * (s * z);
  double c = 1.0 / 20922789888000;
  c = c * z - 1.0 / 87178291200;
  c = c * z + 1.0 / 479001600;
  c = c * z - 1.0 / 3628800;
  c = c * z + 1.0 / 40320;
  c = c * z - 1.0 / 720;
  c = c * z + 1.0 / 24;
  c = c * z - 0.5;
  c = 1.0 + c * z;
  const int turns = (int)quadrant & 3;
  const double cos = turns & 1 ? -s : c, sin = turns & 1 ? c : s;
  return turns & 2 ? Direction{-cos, -sin} : Direction{cos, sin};
}

// An angle in degrees is reduced without an error: each product and each difference is exact.
CVOPS_HD Direction direction_of_degrees(float angle) {
  double a = angle;
  constexpr double kPow40 = 1099511627776.0;
  a -= 360 * kPow40 * kPow40 * nearest_integer(a * (1 / (360 * kPow40 * kPow40)));
  a -= 360 * kPow40 * nearest_integer(a * (1 / (360 * kPow40)));
  a -= 360 * nearest_integer(a * (1.0 / 360));
  const double quadrant = nearest_integer(a * (1.0 / 90));
  return direction_of((a - 90 * quadrant) * 0.017453292519943295, quadrant);
}

// Largest angle in radians that is reduced with an error below that of a few roundings.
constexpr float kMaxRadians = 1048576;

// pi / 2 has two parts. The first part has 33 bits, so its product with `quadrant` is exact.
CVOPS_HD Direction direction_of_radians(float angle) {
  const double a = angle, quadrant = nearest_integer(a * 0.6366197723675814);
  const double x = (a - quadrant * 0x1.921fb544p+0) - quadrant * 0x1.0b4611a626331p-34;
  return direction_of(x, quadrant);
}

CVOPS_HD RotatedBox rotated_box(const float* numbers, RotatedFormat format) {
  const float x = numbers[0], y = numbers[1], width = numbers[2], height = numbers[3];
  const float angle = numbers[4];
  constexpr float kMax = 3.402823466e38f;
  const bool is_finite = x >= -kMax && x <= kMax && y >= -kMax && y <= kMax;
  const bool has_area = width > 0 && width <= kMax && height > 0 && height <= kMax;
  const float most = format.radians ? kMaxRadians : kMax;
  if (!(is_finite && has_area && angle >= -most && angle <= most)) return {0, 0, 0, 0, 1, 0};
  const Direction d = format.radians ? direction_of_radians(angle) : direction_of_degrees(angle);
  return {x, y, width, height, d.cos, format.clockwise ? d.sin : -d.sin};
}

// Axis-aligned bounds of a rotated box, never too small; {0, 0, 0, 0} for a box without area.
CVOPS_HD Box bounds_of(const RotatedBox& b) {
  if (!(b.width > 0)) return {0, 0, 0, 0};
  const double c = absolute(b.cos), s = absolute(b.sin);
  const double half_x = 0.5 * (b.width * c + b.height * s);
  const double half_y = 0.5 * (b.width * s + b.height * c);
  // Twice the error of the rounding to float; the second term is that of denormal floats.
  const double more_x = half_x + ((absolute(b.x) + half_x) * 0x1p-23 + 0x1p-148);
  const double more_y = half_y + ((absolute(b.y) + half_y) * 0x1p-23 + 0x1p-148);
  return {(float)(b.x - more_x), (float)(b.y - more_y), (float)(b.x + more_x),
          (float)(b.y + more_y)};
}

struct Point {
  double x, y;
};

// Integral of x over y along the edge from `a` to `b`, with x clamped to [-w, w] and y to [-h, h].
// `slope` is dx / dy of the edge, or 0 if it is horizontal. The sum over the edges of a convex
// polygon is the area of its intersection with the rectangle: for each y, the right edge minus the
// left edge is the length of the cross-section.
CVOPS_HD double clamped_integral(Point a, Point b, double slope, double w, double h) {
  const double low = smaller(larger(a.y, -h), h), high = smaller(larger(b.y, -h), h);
  const double begin = a.x + (low - a.y) * slope, end = b.x + (high - b.y) * slope;
  const double from = smaller(larger(begin, -w), w), to = smaller(larger(end, -w), w);
  // The mean of the clamped x is the difference of its antiderivative, divided by that of x. The
  // antiderivative is w max(|x|, w) plus half the square of the clamped x.
  const double beyond = larger(absolute(end), w) - larger(absolute(begin), w);
  const double difference = end - begin;
  const double sum = w * beyond + 0.5 * ((to - from) * (to + from));
  const double mean = difference == 0 ? from : sum / difference;
  return mean * (high - low);
}

// Relative depth up to which an overlap counts as contact without an area.
constexpr double kContact = 1 - 1e-12;

// Area of the intersection. The first box is a polygon in the frame of the second one, which is
// then an axis-aligned rectangle around the origin.
CVOPS_HD double rotated_intersection(const RotatedBox& a, const RotatedBox& b) {
  const double dx = (double)a.x - b.x, dy = (double)a.y - b.y;
  const double x = dx * b.cos + dy * b.sin, y = dy * b.cos - dx * b.sin;
  const double c = a.cos * b.cos + a.sin * b.sin, s = a.sin * b.cos - a.cos * b.sin;
  const double w = 0.5 * b.width, h = 0.5 * b.height;
  const double width = 0.5 * a.width, height = 0.5 * a.height;
  // Half sides of `a` as vectors.
  const double ux = width * c, uy = width * s, vx = -(height * s), vy = height * c;
  const double abs_c = absolute(c), abs_s = absolute(s);
  // A line along a side of a box separates the boxes: separating axis theorem.
  const double own_x = dx * a.cos + dy * a.sin, own_y = dy * a.cos - dx * a.sin;
  const bool apart_x = absolute(x) >= (w + absolute(ux) + absolute(vx)) * kContact;
  const bool apart_y = absolute(y) >= (h + absolute(uy) + absolute(vy)) * kContact;
  const bool apart_own_x = absolute(own_x) >= (width + w * abs_c + h * abs_s) * kContact;
  const bool apart_own_y = absolute(own_y) >= (height + w * abs_s + h * abs_c) * kContact;
  const bool apart = apart_x | apart_y | apart_own_x | apart_own_y;
  const double slope_u = s == 0 ? 0 : c / s, slope_v = c == 0 ? 0 : -(s / c);
  const Point corners[4] = {{x - ux - vx, y - uy - vy},
                            {x + ux - vx, y + uy - vy},
                            {x + ux + vx, y + uy + vy},
                            {x - ux + vx, y - uy + vy}};
  const double sum = (clamped_integral(corners[0], corners[1], slope_u, w, h) +
                      clamped_integral(corners[2], corners[3], slope_u, w, h)) +
                     (clamped_integral(corners[1], corners[2], slope_v, w, h) +
                      clamped_integral(corners[3], corners[0], slope_v, w, h));
  const double most = smaller(a.area(), b.area());
  return apart ? 0.0 : smaller(larger(sum, 0.0), most);
}

// 0 if the boxes do not overlap, or if one has no area.
CVOPS_HD float rotated_iou(const RotatedBox& a, const RotatedBox& b) {
  const double overlap = rotated_intersection(a, b);
  const double both = a.area() + b.area() - overlap;
  return overlap > 0 ? (float)(overlap / both) : 0.0f;
}

}  // namespace cvops
