// Rows of the results and of the gradients of box_nms.
#pragma once
#include "nms/rows.cuh"
#include "sort_key.cuh"

namespace cvops {

// Conversion of the coordinates of a kept row.
enum NmsConversion { kNmsAsIs, kNmsToCenter, kNmsToCorner };

// Number c of an output row. MXNet does not convert a box whose first coordinate is negative.
template <typename T>
CVOPS_HD T nms_converted(const T* row, NmsColumns columns, int conversion, int c) {
  const T* b = row + columns.coord;
  int axis = c - columns.coord;
  if (conversion == kNmsAsIs || axis < 0 || axis > 3 || b[0] < 0) return row[c];
  T low = b[axis % 2], high = b[axis % 2 + 2];
  if (conversion == kNmsToCenter) return axis < 2 ? (low + high) / 2 : high - low;
  return axis < 2 ? low - high / 2 : low + high / 2;
}

}  // namespace cvops

#ifdef __CUDACC__
namespace cvops {

template <typename T>
__device__ __forceinline__ void write_rows(
    T* __restrict__ out, int* __restrict__ index, const T* __restrict__ data,
    const uint64* __restrict__ keys, const uint64* __restrict__ kept,
    const int* __restrict__ kept_before, const int* __restrict__ counts, int num, int topk,
    const NmsColumns& columns, int conversion, int with_index) {
  // Numbers per thread, whose loads overlap.
  constexpr int kAtOnce = 4;
  __shared__ const T* comes_from[256];  // null: a row of -1
  __shared__ T* goes_to[256];
  const int batch = blockIdx.x, words = (int)ceil_div(num, 64), width = columns.width;
  const int t = (int)threadIdx.x, threads = (int)blockDim.x;
  const int count = min(counts[batch], topk);
  kept += (int64)batch * words;
  kept_before += (int64)batch * (words + 1);
  keys += (int64)batch * num;
  data += (int64)batch * num * width;
  out += (int64)batch * num * width;
  const int rows = threads / width, rest = threads % width;
  for (int first = blockIdx.y * threads; first < num; first += gridDim.y * threads) {
    const int i = first + t;
    if (i < num) {
      const int all_kept = kept_before[words];
      const auto [to, is_kept] = output_row(kept, kept_before, i, count, all_kept);
      const int from = is_kept ? (int)index_of(keys[i]) : -1;
      comes_from[t] = is_kept ? data + (int64)from * width : nullptr;
      goes_to[t] = out + (int64)to * width;
      if (with_index) index[(int64)batch * num + to] = from;
    }
    __syncthreads();
    const int here = min(num - first, threads);
    for (int row = t / width, c = t % width; row < here;) {
      T* to[kAtOnce];
      T value[kAtOnce];
#pragma unroll
      for (int k = 0; k < kAtOnce; ++k) {
        to[k] = nullptr, value[k] = -1;
        if (row < here) {
          to[k] = goes_to[row] + c;
          const T* from = comes_from[row];
          if (from) value[k] = nms_converted(from, columns, conversion, c);
        }
        row += rows, c += rest - width;
        if (c < 0) {
          c += width;
        } else {
          ++row;
        }
      }
#pragma unroll
      for (int k = 0; k < kAtOnce; ++k) {
        if (to[k]) *to[k] = value[k];
      }
    }
    __syncthreads();
  }
}

template <typename T>
__device__ __forceinline__ void copy_rows(T* __restrict__ out, int* __restrict__ index,
                                          const T* __restrict__ data, int64 rows, int num,
                                          int width, int with_index) {
  const int64 me = blockIdx.x * (int64)blockDim.x + threadIdx.x;
  const int64 threads = (int64)gridDim.x * blockDim.x;
  for (int64 k = me; k < rows * width; k += threads) out[k] = data[k];
  for (int64 row = me; with_index && row < rows; row += threads) index[row] = (int)(row % num);
}

template <typename T>
__device__ __forceinline__ void copy_gradients(T* __restrict__ grad, const T* __restrict__ out_grad,
                                               int64 rows, int num, int width) {
  __shared__ int sources[256];
  const int me = (int)threadIdx.x, threads = (int)blockDim.x;
  for (int64 first = blockIdx.x * (int64)threads; first < rows;
       first += gridDim.x * (int64)threads) {
    const int count = rows - first < threads ? (int)(rows - first) : threads;
    if (me < count) sources[me] = (int)bits_of(grad[(first + me) * width]);
    __syncthreads();
    for (int64 k = me; k < (int64)count * width; k += threads) {
      const int i = (int)(k / width), source = sources[i];
      const int64 row = first + i, from = row - row % num + source;
      grad[first * width + k] = source < 0 ? T(0) : out_grad[from * width + (k - (int64)i * width)];
    }
    __syncthreads();
  }
}

}  // namespace cvops
#endif
