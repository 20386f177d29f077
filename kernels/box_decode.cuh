// box_decode: boxes from offsets (x, y, width, height) relative to anchors.
//
// A thread keeps one anchor and decodes its offsets in every gridDim.y-th image, without a division
// for the anchor's index.
#pragma once
#include "box.cuh"
#include "exp_log.cuh"

namespace cvops {

// Factors of the offsets; upper bound of the scaled width and height if `clip` is positive; format
// of the anchors.
struct BoxDecode {
  float std_x, std_y, std_w, std_h, clip;
  int corner;
};

// An anchor in center format: x, y, width, height.
template <typename T>
CVOPS_HD BoxOf<T> decode_anchor(BoxOf<T> anchor, bool corner) {
  if (!corner) return anchor;
  const T width = anchor.x2 - anchor.x1, height = anchor.y2 - anchor.y1;
  return {anchor.x1 + width * 0.5f, anchor.y1 + height * 0.5f, width, height};
}

// NaN gives the bound.
template <typename T>
CVOPS_HD T decode_size(T offset, float std, float clip) {
  const T scaled = offset * std;
  return clip > 0 ? smaller<T>(scaled, clip) : scaled;
}

// Corners of the box that `offsets` describe relative to an anchor in center format. The order of
// operations is MXNet's.
template <typename T>
CVOPS_HD BoxOf<T> decode_box(BoxOf<T> anchor, BoxOf<T> offsets, BoxDecode op) {
  const T x = offsets.x1 * op.std_x * anchor.x2 + anchor.x1;
  const T y = offsets.y1 * op.std_y * anchor.y2 + anchor.y1;
  const T w = exp_of(decode_size(offsets.x2, op.std_w, op.clip)) * anchor.x2 * 0.5f;
  const T h = exp_of(decode_size(offsets.y2, op.std_h, op.clip)) * anchor.y2 * 0.5f;
  return {x - w, y - h, x + w, y + h};
}

}  // namespace cvops

CVOPS_KERNEL box_decode(float* out, const float* data, const float* anchors, int batch, int num,
                        cvops::BoxDecode op);
CVOPS_KERNEL box_decode_f64(double* out, const double* data, const double* anchors, int batch,
                            int num, cvops::BoxDecode op);

#ifdef __CUDACC__
namespace cvops {

template <typename T>
__device__ __forceinline__ void decode_boxes(T* __restrict__ out, const T* __restrict__ data,
                                             const T* __restrict__ anchors, int batch, int num,
                                             const BoxDecode& op) {
  const int64 i = (int64)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= num) return;
  const BoxOf<T> anchor = decode_anchor(load_box(anchors, i), op.corner);
  for (int64 b = blockIdx.y; b < batch; b += gridDim.y) {
    store_box(out, b * num + i, decode_box(anchor, load_box(data, b * num + i), op));
  }
}

}  // namespace cvops

// out and data (B, N, 4), anchors (N, 4). Grid (tiles, images).
extern "C" __global__ void __launch_bounds__(256)
    box_decode(float* __restrict__ out, const float* __restrict__ data,
               const float* __restrict__ anchors, int batch, int num, const cvops::BoxDecode op) {
  cvops::wait_for_earlier_launches();
  cvops::decode_boxes(out, data, anchors, batch, num, op);
}

extern "C" __global__ void __launch_bounds__(256, 1)
    box_decode_f64(double* __restrict__ out, const double* __restrict__ data,
                   const double* __restrict__ anchors, int batch, int num,
                   const cvops::BoxDecode op) {
  cvops::wait_for_earlier_launches();
  cvops::decode_boxes(out, data, anchors, batch, num, op);
}
#endif
