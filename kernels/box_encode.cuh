// box_encode: offsets (x, y, width, height) from anchors to their matched boxes.
#pragma once
#include "box_offsets.cuh"

namespace cvops {

// samples and matches (B, N), anchors (B, N, 4), refs (B, M, 4), means (4), stds (4).
struct EncodeInputs {
  const float *samples, *matches, *anchors, *refs, *means, *stds;
};

CVOPS_HD EncodeScale encode_scale(EncodeInputs in) {
  return {load_box(in.means, 0), load_box(in.stds, 0)};
}

CVOPS_HD bool is_positive(float sample) { return sample > 0.5f; }

}  // namespace cvops

CVOPS_KERNEL box_encode(float* targets, float* masks, cvops::EncodeInputs in, int batch, int num,
                        int num_refs);

#ifdef __CUDACC__
// targets and masks (B, N, 4). A match out of range becomes the first or the last box; without
// boxes all rows are 0. Grid (tiles, images).
extern "C" __global__ void __launch_bounds__(256)
    box_encode(float* __restrict__ targets, float* __restrict__ masks, const cvops::EncodeInputs in,
               int batch, int num, int num_refs) {
  using namespace cvops;
  const int64 i = (int64)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= num) return;
  const EncodeScale scale = encode_scale(in);
  for (int64 b = blockIdx.y; b < batch; b += gridDim.y) {
    const int64 row = b * num + i;
    Box target = {0, 0, 0, 0}, mask = {0, 0, 0, 0};
    if (num_refs > 0 && is_positive(in.samples[row])) {
      const int match = min(max(truncated(in.matches[row]), 0), num_refs - 1);
      const Box ref = load_box(in.refs, b * num_refs + match);
      target = encode_box(load_box(in.anchors, row), ref, scale);
      mask = {1, 1, 1, 1};
    }
    store_box(targets, row, target);
    store_box(masks, row, mask);
  }
}
#endif
