// Box arithmetic of the CPU and the GPU. Coordinates are in the caller's units.
#pragma once
#include "common.cuh"

namespace cvops {

// Corners: left, top, right, bottom. T is float or double.
template <typename T>
struct BoxOf {
  T x1, y1, x2, y2;
};
using Box = BoxOf<float>;

// A box and its area, computed in the format of the input. An inverted box has area 0.
template <typename T>
struct SizedBoxOf {
  BoxOf<T> box;
  T area;
};
using SizedBox = SizedBoxOf<float>;

// Box i of an array of 4 numbers per box. On the GPU the array is aligned to 16 bytes.
CVOPS_HD Box load_box(const float* boxes, int64 i) {
#ifdef __CUDACC__
  float4 b = reinterpret_cast<const float4*>(boxes)[i];
  return {b.x, b.y, b.z, b.w};
#else
  const float* b = boxes + 4 * i;
  return {b[0], b[1], b[2], b[3]};
#endif
}
CVOPS_HD BoxOf<double> load_box(const double* boxes, int64 i) {
#ifdef __CUDACC__
  const double2* b = reinterpret_cast<const double2*>(boxes) + 2 * i;
  return {b[0].x, b[0].y, b[1].x, b[1].y};
#else
  const double* b = boxes + 4 * i;
  return {b[0], b[1], b[2], b[3]};
#endif
}

// Writes box i. On the GPU the array is aligned to 16 bytes.
CVOPS_HD void store_box(float* boxes, int64 i, Box b) {
#ifdef __CUDACC__
  reinterpret_cast<float4*>(boxes)[i] = make_float4(b.x1, b.y1, b.x2, b.y2);
#else
  float* to = boxes + 4 * i;
  to[0] = b.x1, to[1] = b.y1, to[2] = b.x2, to[3] = b.y2;
#endif
}
CVOPS_HD void store_box(double* boxes, int64 i, BoxOf<double> b) {
#ifdef __CUDACC__
  double2* to = reinterpret_cast<double2*>(boxes) + 2 * i;
  to[0] = make_double2(b.x1, b.y1);
  to[1] = make_double2(b.x2, b.y2);
#else
  double* to = boxes + 4 * i;
  to[0] = b.x1, to[1] = b.y1, to[2] = b.x2, to[3] = b.y2;
#endif
}

// Area without a clamp: negative if one side is inverted.
template <typename T>
CVOPS_HD T signed_area(BoxOf<T> b) {
  return (b.x2 - b.x1) * (b.y2 - b.y1);
}

template <typename T>
CVOPS_HD T clamped_area(T width, T height) {
  return width < 0 || height < 0 ? T(0) : width * height;
}

// A box in corner format, (x1, y1, x2, y2), or center format, (x, y, width, height).
template <typename T>
CVOPS_HD SizedBoxOf<T> sized(BoxOf<T> b, bool center) {
  if (!center) return {b, clamped_area(b.x2 - b.x1, b.y2 - b.y1)};
  T half_width = b.x2 / 2, half_height = b.y2 / 2;
  BoxOf<T> corners = {b.x1 - half_width, b.y1 - half_height, b.x1 + half_width, b.y1 + half_height};
  return {corners, clamped_area(b.x2, b.y2)};
}

// max(x, 0). NaN gives 0.
CVOPS_HD float positive_part(float x) {
#ifdef __CUDA_ARCH__
  return fmaxf(x, 0.0f);  // one instruction; max(-0, 0) is 0
#else
  return x > 0 ? x : 0.0f;
#endif
}
CVOPS_HD double positive_part(double x) { return x > 0 ? x : 0.0; }

// Area of the intersection; 0 if there is none. If a comparison involves NaN, b's side is the
// result.
template <typename T>
CVOPS_HD T intersection(BoxOf<T> a, BoxOf<T> b) {
  T width = smaller(a.x2, b.x2) - larger(a.x1, b.x1);
  T height = smaller(a.y2, b.y2) - larger(a.y1, b.y1);
  return positive_part(width) * positive_part(height);
}

// False if boxes within the bounds a and b do not overlap.
CVOPS_HD bool may_overlap(const Box& a, const Box& b) {
  return (a.x1 < b.x2) & (b.x1 < a.x2) & (a.y1 < b.y2) & (b.y1 < a.y2);
}

// Area of the intersection, in pixels, of boxes whose corners are pixels of the box.
template <typename T>
CVOPS_HD T pixel_intersection(BoxOf<T> a, BoxOf<T> b) {
  T width = smaller(a.x2, b.x2) - larger(a.x1, b.x1) + 1.0f;
  T height = smaller(a.y2, b.y2) - larger(a.y1, b.y1) + 1.0f;
  return positive_part(width) * positive_part(height);
}

// Intersection with MXNet's NaN rule: rhs's side in corner format, lhs's side in center format.
template <typename T>
CVOPS_HD T intersection(BoxOf<T> lhs, BoxOf<T> rhs, bool center) {
  return center ? intersection(rhs, lhs) : intersection(lhs, rhs);
}

}  // namespace cvops
