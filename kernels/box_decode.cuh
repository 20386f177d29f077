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
CVOPS_HD Box decode_anchor(Box anchor, bool corner) {
  if (!corner) return anchor;
  const float width = anchor.x2 - anchor.x1, height = anchor.y2 - anchor.y1;
  return {anchor.x1 + width * 0.5f, anchor.y1 + height * 0.5f, width, height};
}

// NaN gives the bound.
CVOPS_HD float decode_size(float offset, float std, float clip) {
  const float scaled = offset * std;
  return clip > 0 ? smaller(scaled, clip) : scaled;
}

// Corners of the box that `offsets` describe relative to an anchor in center format. The order of
// operations is MXNet's.
CVOPS_HD Box decode_box(Box anchor, Box offsets, BoxDecode op) {
  const float x = offsets.x1 * op.std_x * anchor.x2 + anchor.x1;
  const float y = offsets.y1 * op.std_y * anchor.y2 + anchor.y1;
  const float w = exp_of(decode_size(offsets.x2, op.std_w, op.clip)) * anchor.x2 * 0.5f;
  const float h = exp_of(decode_size(offsets.y2, op.std_h, op.clip)) * anchor.y2 * 0.5f;
  return {x - w, y - h, x + w, y + h};
}

}  // namespace cvops

CVOPS_KERNEL box_decode(float* out, const float* data, const float* anchors, int batch, int num,
                        cvops::BoxDecode op);

#ifdef __CUDACC__
// out and data (B, N, 4), anchors (N, 4). Grid (tiles, images).
extern "C" __global__ void __launch_bounds__(256)
    box_decode(float* __restrict__ out, const float* __restrict__ data,
               const float* __restrict__ anchors, int batch, int num, const cvops::BoxDecode op) {
  using namespace cvops;
  const int64 i = (int64)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= num) return;
  const Box anchor = decode_anchor(load_box(anchors, i), op.corner);
  for (int64 b = blockIdx.y; b < batch; b += gridDim.y) {
    store_box(out, b * num + i, decode_box(anchor, load_box(data, b * num + i), op));
  }
}
#endif
