// box_iou: out[i, j] = intersection over union of lhs[i] and rhs[j].
//
// A thread holds four columns in registers and iterates over rows. The op writes much more than it
// reads, so the instructions per pair between stores limit its speed. If rows are aligned to 16
// bytes, a thread stores four adjacent columns at once. Otherwise its columns are `across` apart,
// so that adjacent threads store adjacent columns.
#pragma once
#include "box.cuh"

namespace cvops {

CVOPS_HD float box_iou_of(SizedBox lhs, SizedBox rhs, bool center) {
  float overlap = intersection(lhs.box, rhs.box, center);
  return overlap <= 0 ? 0.0f : overlap / (lhs.area + rhs.area - overlap);
}

}  // namespace cvops

CVOPS_KERNEL box_iou(float* out, const float* lhs, const float* rhs, int num_lhs, int num_rhs,
                     int center);

#ifdef __CUDACC__
namespace cvops {

// The threads of a block cover columns first, four each; the remaining factor covers rows. With
// `kWhole`, the columns of a thread are adjacent.
template <bool kWhole>
__device__ __forceinline__ void iou_tile(float* out, const float* lhs, const float* rhs,
                                         int num_lhs, int num_rhs, int center) {
  const int quads = (num_rhs - 1) / 4 + 1, threads = blockDim.x;
  const int across = quads < threads ? quads : threads, rows = threads / across;
  const int me = threadIdx.x % across, down = threadIdx.x / across;
  const int64 stride = 4ll * gridDim.y * across;
  for (int64 first = 4ll * blockIdx.y * across; first < num_rhs; first += stride) {
    const int64 begin = first + (kWhole ? 4 * me : me);
    const int step = kWhole ? 1 : across;
    if (down >= rows || begin >= num_rhs) continue;
    SizedBox columns[4];
#pragma unroll
    for (int n = 0; n < 4; ++n) {
      const bool exists = begin + n * step < num_rhs;
      columns[n] = exists ? sized(load_box(rhs, begin + n * step), center) : SizedBox{};
    }
    for (int64 i = (int64)blockIdx.x * rows + down; i < num_lhs; i += (int64)gridDim.x * rows) {
      const SizedBox row = sized(load_box(lhs, i), center);
      float iou[4];
#pragma unroll
      for (int n = 0; n < 4; ++n) iou[n] = box_iou_of(row, columns[n], center);
      float* to = out + i * num_rhs + begin;
      if constexpr (kWhole) {
        __stcs(reinterpret_cast<float4*>(to), make_float4(iou[0], iou[1], iou[2], iou[3]));
      } else {
#pragma unroll
        for (int n = 0; n < 4; ++n) {
          if (begin + n * step < num_rhs) __stcs(to + n * step, iou[n]);
        }
      }
    }
  }
}

}  // namespace cvops

// out (M, N), lhs (M, 4), rhs (N, 4). Grid (row tiles, column tiles).
extern "C" __global__ void __launch_bounds__(256, 4)
    box_iou(float* __restrict__ out, const float* __restrict__ lhs, const float* __restrict__ rhs,
            int num_lhs, int num_rhs, int center) {
  if (num_rhs % 4 == 0) {
    cvops::iou_tile<true>(out, lhs, rhs, num_lhs, num_rhs, center);
  } else {
    cvops::iou_tile<false>(out, lhs, rhs, num_lhs, num_rhs, center);
  }
}
#endif
