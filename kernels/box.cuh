// Box arithmetic of the CPU and the GPU. Coordinates are in the caller's units.
#pragma once
#include "common.cuh"

namespace cvops {

// Corners: left, top, right, bottom.
struct Box {
  float x1, y1, x2, y2;
};

// A box and its area, computed in the format of the input. An inverted box has area 0.
struct SizedBox {
  Box box;
  float area;
};

// Box i of an array of 4 floats per box. On the GPU the array is aligned to 16 bytes.
CVOPS_HD Box load_box(const float* boxes, int64 i) {
#ifdef __CUDACC__
  float4 b = reinterpret_cast<const float4*>(boxes)[i];
  return {b.x, b.y, b.z, b.w};
#else
  const float* b = boxes + 4 * i;
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

// Area without a clamp: negative if one side is inverted.
CVOPS_HD float signed_area(Box b) { return (b.x2 - b.x1) * (b.y2 - b.y1); }

CVOPS_HD float clamped_area(float width, float height) {
  return width < 0 || height < 0 ? 0.0f : width * height;
}

// A box in corner format, (x1, y1, x2, y2), or center format, (x, y, width, height).
CVOPS_HD SizedBox sized(Box b, bool center) {
  if (!center) return {b, clamped_area(b.x2 - b.x1, b.y2 - b.y1)};
  float half_width = b.x2 / 2, half_height = b.y2 / 2;
  Box corners = {b.x1 - half_width, b.y1 - half_height, b.x1 + half_width, b.y1 + half_height};
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

// Area of the intersection; 0 if there is none. If a comparison involves NaN, b's side is the
// result.
CVOPS_HD float intersection(Box a, Box b) {
  float width = smaller(a.x2, b.x2) - larger(a.x1, b.x1);
  float height = smaller(a.y2, b.y2) - larger(a.y1, b.y1);
  return positive_part(width) * positive_part(height);
}

// False if boxes within the bounds a and b do not overlap.
CVOPS_HD bool may_overlap(const Box& a, const Box& b) {
  return (a.x1 < b.x2) & (b.x1 < a.x2) & (a.y1 < b.y2) & (b.y1 < a.y2);
}

// Area of the intersection, in pixels, of boxes whose corners are pixels of the box.
CVOPS_HD float pixel_intersection(Box a, Box b) {
  float width = smaller(a.x2, b.x2) - larger(a.x1, b.x1) + 1.0f;
  float height = smaller(a.y2, b.y2) - larger(a.y1, b.y1) + 1.0f;
  return positive_part(width) * positive_part(height);
}

// Intersection with MXNet's NaN rule: rhs's side in corner format, lhs's side in center format.
CVOPS_HD float intersection(Box lhs, Box rhs, bool center) {
  return center ? intersection(rhs, lhs) : intersection(lhs, rhs);
}

}  // namespace cvops
