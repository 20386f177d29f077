// box_iou: out[i, j] = intersection over union of lhs[i] and rhs[j].
//
// A thread holds four columns in registers and iterates over rows. The op writes much more than it
// reads, so the instructions per pair between stores limit its speed. If rows are aligned to 16
// bytes, a thread stores four adjacent columns at once. Otherwise its columns are `across` apart,
// so that adjacent threads store adjacent columns.
#pragma once
#include "box.cuh"

namespace cvops {

template <typename T>
CVOPS_HD T box_iou_of(SizedBoxOf<T> lhs, SizedBoxOf<T> rhs, bool center) {
  T overlap = intersection(lhs.box, rhs.box, center);
  return overlap <= 0 ? T(0) : overlap / (lhs.area + rhs.area - overlap);
}

}  // namespace cvops

CVOPS_KERNEL box_iou(float* out, const float* lhs, const float* rhs, int num_lhs, int num_rhs,
                     int center);
CVOPS_KERNEL box_iou_f64(double* out, const double* lhs, const double* rhs, int num_lhs,
                         int num_rhs, int center);

#ifdef __CUDACC__
namespace cvops {

// Stores four adjacent values, which are not read again soon.
__device__ __forceinline__ void store_four(float* to, const float (&x)[4]) {
  __stcs(reinterpret_cast<float4*>(to), make_float4(x[0], x[1], x[2], x[3]));
}
__device__ __forceinline__ void store_four(double* to, const double (&x)[4]) {
  __stcs(reinterpret_cast<double2*>(to), make_double2(x[0], x[1]));
  __stcs(reinterpret_cast<double2*>(to) + 1, make_double2(x[2], x[3]));
}

// The threads of a block cover columns first, four each; the remaining factor covers rows. With
// `kWhole`, the columns of a thread are adjacent.
template <bool kWhole, typename T>
__device__ __forceinline__ void iou_tile(T* out, const T* lhs, const T* rhs, int num_lhs,
                                         int num_rhs, int center) {
  const int quads = (num_rhs - 1) / 4 + 1, threads = blockDim.x;
  const int across = quads < threads ? quads : threads, rows = threads / across;
  const int me = threadIdx.x % across, down = threadIdx.x / across;
  const int64 stride = 4ll * gridDim.y * across;
  for (int64 first = 4ll * blockIdx.y * across; first < num_rhs; first += stride) {
    const int64 begin = first + (kWhole ? 4 * me : me);
    const int step = kWhole ? 1 : across;
    if (down >= rows || begin >= num_rhs) continue;
    SizedBoxOf<T> columns[4];
#pragma unroll
    for (int n = 0; n < 4; ++n) {
      const bool exists = begin + n * step < num_rhs;
      columns[n] = exists ? sized(load_box(rhs, begin + n * step), center) : SizedBoxOf<T>{};
    }
    for (int64 i = (int64)blockIdx.x * rows + down; i < num_lhs; i += (int64)gridDim.x * rows) {
      const SizedBoxOf<T> row = sized(load_box(lhs, i), center);
      T iou[4];
#pragma unroll
      for (int n = 0; n < 4; ++n) iou[n] = box_iou_of(row, columns[n], center);
      T* to = out + i * num_rhs + begin;
      if constexpr (kWhole) {
        store_four(to, iou);
      } else {
#pragma unroll
        for (int n = 0; n < 4; ++n) {
          if (begin + n * step < num_rhs) __stcs(to + n * step, iou[n]);
        }
      }
    }
  }
}

template <typename T>
__device__ __forceinline__ void iou_matrix(T* out, const T* lhs, const T* rhs, int num_lhs,
                                           int num_rhs, int center) {
  if (num_rhs % 4 == 0) {
    iou_tile<true>(out, lhs, rhs, num_lhs, num_rhs, center);
  } else {
    iou_tile<false>(out, lhs, rhs, num_lhs, num_rhs, center);
  }
}

}  // namespace cvops

// out (M, N), lhs (M, 4), rhs (N, 4). Grid (row tiles, column tiles).
extern "C" __global__ void __launch_bounds__(256, 4)
    box_iou(float* __restrict__ out, const float* __restrict__ lhs, const float* __restrict__ rhs,
            int num_lhs, int num_rhs, int center) {
  cvops::wait_for_earlier_launches();
  cvops::iou_matrix(out, lhs, rhs, num_lhs, num_rhs, center);
}

extern "C" __global__ void __launch_bounds__(256, 1)
    box_iou_f64(double* __restrict__ out, const double* __restrict__ lhs,
                const double* __restrict__ rhs, int num_lhs, int num_rhs, int center) {
  cvops::wait_for_earlier_launches();
  cvops::iou_matrix(out, lhs, rhs, num_lhs, num_rhs, center);
}
#endif
