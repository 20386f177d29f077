// box_encode: offsets (x, y, width, height) from anchors to their matched boxes.
#pragma once
#include "box_offsets.cuh"

namespace cvops {

// samples and matches (B, N), anchors (B, N, 4), refs (B, M, 4), means (4), stds (4).
template <typename T>
struct EncodeInputsOf {
  const T *samples, *matches, *anchors, *refs, *means, *stds;
};

template <typename T>
CVOPS_HD EncodeScaleOf<T> encode_scale(EncodeInputsOf<T> in) {
  return {load_box(in.means, 0), load_box(in.stds, 0)};
}

template <typename T>
CVOPS_HD bool is_positive(T sample) {
  return sample > 0.5f;
}

}  // namespace cvops

CVOPS_KERNEL box_encode(float* targets, float* masks, cvops::EncodeInputsOf<float> in, int batch,
                        int num, int num_refs);
CVOPS_KERNEL box_encode_f64(double* targets, double* masks, cvops::EncodeInputsOf<double> in,
                            int batch, int num, int num_refs);

#ifdef __CUDACC__
namespace cvops {

template <typename T>
__device__ __forceinline__ void encode_boxes(T* __restrict__ targets, T* __restrict__ masks,
                                             const EncodeInputsOf<T>& in, int batch, int num,
                                             int num_refs) {
  const int64 i = (int64)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= num) return;
  const EncodeScaleOf<T> scale = encode_scale(in);
  for (int64 b = blockIdx.y; b < batch; b += gridDim.y) {
    const int64 row = b * num + i;
    BoxOf<T> target = {0, 0, 0, 0}, mask = {0, 0, 0, 0};
    if (num_refs > 0 && is_positive(in.samples[row])) {
      const int match = min(max(truncated(in.matches[row]), 0), num_refs - 1);
      const BoxOf<T> ref = load_box(in.refs, b * num_refs + match);
      target = encode_box(load_box(in.anchors, row), ref, scale);
      mask = {1, 1, 1, 1};
    }
    store_box(targets, row, target);
    store_box(masks, row, mask);
  }
}

}  // namespace cvops

// targets and masks (B, N, 4). A match out of range becomes the first or the last box; without
// boxes all rows are 0. Grid (tiles, images).
extern "C" __global__ void __launch_bounds__(256)
    box_encode(float* __restrict__ targets, float* __restrict__ masks,
               const cvops::EncodeInputsOf<float> in, int batch, int num, int num_refs) {
  cvops::wait_for_earlier_launches();
  cvops::encode_boxes(targets, masks, in, batch, num, num_refs);
}

extern "C" __global__ void __launch_bounds__(256, 1)
    box_encode_f64(double* __restrict__ targets, double* __restrict__ masks,
                   const cvops::EncodeInputsOf<double> in, int batch, int num, int num_refs) {
  cvops::wait_for_earlier_launches();
  cvops::encode_boxes(targets, masks, in, batch, num, num_refs);
}
#endif
