// bilinear_upsample: bilinear interpolation of feature maps by an integer scale, and the gradient.
//
// Along an axis, output x lies between the pixels `near` = (x + scale / 2) / scale and near - 1.
// The outputs with the same `near` form a band of `scale` outputs. An axis has one band more than
// pixels; the two bands at the edges are half as long. Pixels outside the map are 0.
//
// Forward: a thread holds four columns of some rows of a band. It interpolates along x once for all
// rows, then only writes, in 16-byte stores where rows are aligned. Each pixel yields scale^2
// outputs, so the kernel is bound by its stores.
//
// Backward: each pixel gathers its square of gradients. A block first sums along y into shared
// memory, with adjacent threads on adjacent columns, then along x. Blocks of two adjacent pixel
// rows read the same gradients. They run concurrently, so the second read is a cache hit.
#pragma once
#include "common.cuh"

namespace cvops {

// Weight of tap t, 0 <= t < 2 scale. An odd scale has one tap fewer: the last weight is 0 and its
// pixel is not read. The numerator is exact, so the weight is rounded once.
template <typename T>
CVOPS_HD T bilinear_weight(int t, int scale) {
  int off = 2 * t - (2 * scale - 1 - scale % 2);
  return (T)(2 * scale - (off < 0 ? -off : off)) / (T)(2 * scale);
}

CVOPS_HD int bilinear_taps(int scale) { return 2 * scale - scale % 2; }

// Weights of output number `of` of a band.
template <typename T>
struct BilinearPair {
  T near, far;
};

template <typename T>
CVOPS_HD BilinearPair<T> bilinear_pair(int of, int scale) {
  return {bilinear_weight<T>(of, scale), bilinear_weight<T>(of + scale, scale)};
}

// Weighted sum of two pixels, along x first, then along y. This order fixes the rounding.
template <typename T>
CVOPS_HD T blended(T near, T far, BilinearPair<T> weight) {
  return near * weight.near + far * weight.far;
}

constexpr int kRowsAtOnce = CVOPS_STEP(8, 2);

}  // namespace cvops

CVOPS_KERNEL bilinear_upsample(float* out, const float* data, cvops::int64 planes, int height,
                               int width, int scale);
CVOPS_KERNEL bilinear_upsample_f64(double* out, const double* data, cvops::int64 planes, int height,
                                   int width, int scale);
CVOPS_KERNEL bilinear_upsample_backward(float* grad, const float* out_grad, cvops::int64 lines,
                                        int height, int width, int scale, int item_lines,
                                        int item_columns);
CVOPS_KERNEL bilinear_upsample_backward_f64(double* grad, const double* out_grad,
                                            cvops::int64 lines, int height, int width, int scale,
                                            int item_lines, int item_columns);

#ifdef __CUDACC__
namespace cvops {

// Interpolation of one row of pixels at output column x. If the row does not exist, its pixels are
// 0. Values beyond the last column are not stored.
template <typename T>
__device__ __forceinline__ T along_x(const T* __restrict__ row, bool exists, int x, int width,
                                     int scale) {
  const int near = (x + scale / 2) / scale;
  const BilinearPair<T> weight = bilinear_pair<T>(x + scale / 2 - near * scale, scale);
  const T right = exists && near < width ? row[near] : T(0);
  const T left = exists && near > 0 && near <= width && weight.far > 0 ? row[near - 1] : T(0);
  return blended(right, left, weight);
}

__device__ __forceinline__ void store_four(float* to, const float (&x)[4]) {
  *reinterpret_cast<float4*>(to) = make_float4(x[0], x[1], x[2], x[3]);
}
__device__ __forceinline__ void store_four(double* to, const double (&x)[4]) {
  reinterpret_cast<double2*>(to)[0] = make_double2(x[0], x[1]);
  reinterpret_cast<double2*>(to)[1] = make_double2(x[2], x[3]);
}

template <typename T>
__device__ __forceinline__ void enlarge(T* __restrict__ out, const T* __restrict__ data,
                                        int64 planes, int height, int width, int scale) {
  const int out_height = height * scale, out_width = width * scale;
  const int quads = (int)ceil_div(out_width, 4), parts = (int)ceil_div(scale, kRowsAtOnce);
  const bool wide = out_width % 4 == 0;
  // Four adjacent columns if a thread can store them at once. Otherwise columns at distance
  // `quads`, so that adjacent threads store adjacent columns.
  const int first = wide ? 4 : 1, step = wide ? 1 : quads;
  const int64 total = planes * (height + 1) * parts * quads;
  for (int64 k = blockIdx.x * (int64)blockDim.x + threadIdx.x; k < total;
       k += (int64)gridDim.x * blockDim.x) {
    const int64 line = k / quads, band = line / parts, plane = band / (height + 1);
    const int x = first * (int)(k - line * quads);
    const int near = (int)(band - plane * (height + 1));
    const T* row = data + (plane * height + near) * width;
    T below[4], above[4];
#pragma unroll
    for (int n = 0; n < 4; ++n) {
      below[n] = along_x(row, near < height, x + n * step, width, scale);
      above[n] = along_x(row - width, near > 0, x + n * step, width, scale);
    }
    const int begin = (int)(line - band * parts) * kRowsAtOnce;
    const int end = begin + kRowsAtOnce < scale ? begin + kRowsAtOnce : scale;
    for (int of = begin; of < end; ++of) {
      const int y = near * scale + of - scale / 2;
      if (y < 0 || y >= out_height) continue;
      const BilinearPair<T> weight = bilinear_pair<T>(of, scale);
      T value[4];
#pragma unroll
      for (int n = 0; n < 4; ++n) {
        value[n] = blended(below[n], weight.far > 0 ? above[n] : T(0), weight);
      }
      T* to = out + (plane * out_height + y) * out_width + x;
      if (wide) {
        store_four(to, value);
      } else {
#pragma unroll
        for (int n = 0; n < 4; ++n) {
          if (x + n * step < out_width) to[n * step] = value[n];
        }
      }
    }
  }
}

template <typename T>
__device__ __forceinline__ void add_bands(T* __restrict__ grad, const T* __restrict__ out_grad,
                                          int64 lines, int height, int width, int scale,
                                          int item_lines, int item_columns, T* shared) {
  T* const weights = shared;
  T* const sums = shared + 2 * scale;
  const int me = (int)threadIdx.x, threads = (int)blockDim.x;
  const int taps = bilinear_taps(scale), out_height = height * scale, out_width = width * scale;
  const int pitch = padded((item_columns + 1) * scale);
  for (int t = me; t < taps; t += threads) weights[t] = bilinear_weight<T>(t, scale);
  __syncthreads();

  const int across = (int)ceil_div(width, item_columns);
  const int64 items = ceil_div(lines, item_lines) * across;
  for (int64 item = blockIdx.x; item < items; item += gridDim.x) {
    const int64 first_line = item / across * item_lines;
    const int first_column = (int)(item % across) * item_columns;
    const int rows = (int)(lines - first_line < item_lines ? lines - first_line : item_lines);
    const int columns = width - first_column < item_columns ? width - first_column : item_columns;
    const int out_columns = (columns - 1) * scale + taps;
    for (int i = me; i < rows * out_columns; i += threads) {
      const int row = i / out_columns, column = i - row * out_columns;
      const int64 plane = (first_line + row) / height;
      const int top = (int)(first_line + row - plane * height) * scale - scale / 2;
      const int x = first_column * scale - scale / 2 + column;
      T sum = 0.0f;
      if (x >= 0 && x < out_width) {
        const int begin = top < 0 ? -top : 0;
        const int end = out_height - top < taps ? out_height - top : taps;
        const T* from = out_grad + (plane * out_height + top + begin) * out_width + x;
#pragma unroll 8
        for (int t = begin; t < end; ++t, from += out_width) sum += *from * weights[t];
      }
      sums[row * pitch + padded(column)] = sum;
    }
    __syncthreads();
    if (me < rows * columns) {
      const int row = me / columns, column = me - row * columns;
      T sum = 0.0f;
#pragma unroll 8
      for (int t = 0; t < taps; ++t) {
        sum += sums[row * pitch + padded(column * scale + t)] * weights[t];
      }
      grad[(first_line + row) * width + first_column + column] = sum;
    }
    __syncthreads();
  }
}

}  // namespace cvops

// out (planes, height * scale, width * scale), data (planes, height, width).
extern "C" __global__ void __launch_bounds__(256)
    bilinear_upsample(float* __restrict__ out, const float* __restrict__ data, long long planes,
                      int height, int width, int scale) {
  cvops::wait_for_earlier_launches();
  cvops::enlarge(out, data, planes, height, width, scale);
}

extern "C" __global__ void __launch_bounds__(256, 1)
    bilinear_upsample_f64(double* __restrict__ out, const double* __restrict__ data,
                          long long planes, int height, int width, int scale) {
  cvops::wait_for_earlier_launches();
  cvops::enlarge(out, data, planes, height, width, scale);
}

// grad (lines / height, height, width), out_grad (lines / height, height * scale, width * scale). A
// work item is item_lines lines by item_columns columns: at most one pixel per thread. Shared
// memory: the weights, then the column sums of each line at `padded` indices.
extern "C" __global__ void __launch_bounds__(256)
    bilinear_upsample_backward(float* __restrict__ grad, const float* __restrict__ out_grad,
                               long long lines, int height, int width, int scale, int item_lines,
                               int item_columns) {
  cvops::wait_for_earlier_launches();
  CVOPS_DYNAMIC_SHARED(float, shared);
  cvops::add_bands(grad, out_grad, lines, height, width, scale, item_lines, item_columns, shared);
}

extern "C" __global__ void __launch_bounds__(256, 1)
    bilinear_upsample_backward_f64(double* __restrict__ grad, const double* __restrict__ out_grad,
                                   long long lines, int height, int width, int scale,
                                   int item_lines, int item_columns) {
  cvops::wait_for_earlier_launches();
  CVOPS_DYNAMIC_SHARED(double, shared_f64);
  cvops::add_bands(grad, out_grad, lines, height, width, scale, item_lines, item_columns,
                   shared_f64);
}
#endif
