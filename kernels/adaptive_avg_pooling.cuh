// adaptive_avg_pooling: mean of the pixels of each bin in a grid of bins over a map, and the
// gradient.
//
// A bin adds its pixels by rows, in the order of MXNet. If the grid has one column of bins, the
// pixels of a bin are adjacent in memory: the map then counts as one row.
//
// Forward: a thread adds the pixels of one bin. The threads of a block first copy a piece of the
// row of some planes to shared memory, with adjacent threads on adjacent pixels.
//
// Backward: a thread has a column of some planes and some rows. Rows in the same bins have the same
// gradient, which the thread computes once. There are no atomic additions.
#pragma once
#include "range.cuh"

namespace cvops {

// Pixels of bin i of an axis. Adjacent bins overlap if `size` is not a multiple of `bins`. size *
// bins is less than 2^31.
CVOPS_HD Range pixels_of_bin(int i, int size, int bins) {
  return {(int)((uint32)i * (uint32)size / (uint32)bins),
          (int)(((uint32)(i + 1) * (uint32)size + (uint32)bins - 1) / (uint32)bins)};
}

// Bins of pixel i of an axis: the same rule with pixels and bins exchanged.
CVOPS_HD Range bins_of_pixel(int i, int size, int bins) { return pixels_of_bin(i, bins, size); }

// Sizes of a map and of its grid of bins.
struct AdaptivePooling {
  int height, width, out_height, out_width;

  // True if the map counts as one row of height * width pixels, and the grid as one row of bins.
  CVOPS_HD bool one_row() const { return out_width == 1; }

  // Rows of bins; bins of a row; rows of pixels; pixels of a row.
  CVOPS_HD int bands() const { return one_row() ? 1 : out_height; }
  CVOPS_HD int bins() const { return one_row() ? out_height : out_width; }
  CVOPS_HD int rows() const { return one_row() ? 1 : height; }
  CVOPS_HD int columns() const { return one_row() ? height * width : width; }

  CVOPS_HD Range rows_of_band(int band) const {
    return one_row() ? Range{0, 1} : pixels_of_bin(band, height, out_height);
  }
  CVOPS_HD Range columns_of_bin(int bin) const {
    if (!one_row()) return pixels_of_bin(bin, width, out_width);
    const Range rows = pixels_of_bin(bin, height, out_height);
    return {rows.begin * width, rows.end * width};
  }
  CVOPS_HD Range bands_of_row(int row) const {
    return one_row() ? Range{0, 1} : bins_of_pixel(row, height, out_height);
  }
  CVOPS_HD Range bins_of_column(int column) const {
    return one_row() ? bins_of_pixel(column / width, height, out_height)
                     : bins_of_pixel(column, width, out_width);
  }
};

// Height and width of a bin in pixels.
struct BinSize {
  float height, width;
};

CVOPS_HD BinSize bin_size(const AdaptivePooling& op, Range rows, Range columns) {
  const int length = columns.end - columns.begin;
  if (op.one_row()) return {(float)(length / op.width), (float)op.width};
  return {(float)(rows.end - rows.begin), (float)length};
}

// Mean of a bin from its sum; gradient of a pixel from that of a bin. MXNet divides in these
// orders.
CVOPS_HD float bin_mean(float sum, BinSize size) { return sum / size.width / size.height; }
CVOPS_HD float pixel_grad(float grad, BinSize size) { return grad / size.height / size.width; }

// Loads of a thread in flight; planes and rows of a thread of the backward kernel.
constexpr int kPoolLoads = 4, kPoolPlanes = 4, kPoolRows = CVOPS_STEP(8, 2);

}  // namespace cvops

CVOPS_KERNEL adaptive_avg_pooling(float* out, const float* data, cvops::int64 planes,
                                  cvops::AdaptivePooling op, int group, int bins_at_once,
                                  int columns_at_once);
CVOPS_KERNEL adaptive_avg_pooling_backward(float* grad, const float* out_grad, cvops::int64 planes,
                                           cvops::AdaptivePooling op);

#ifdef __CUDACC__
namespace cvops {

// Copies `columns` pixels of `planes` rows to shared memory. The rows are from_pitch apart in
// `from`, and to_pitch in `to`.
__device__ __forceinline__ void copy_rows(float* to, int to_pitch, const float* __restrict__ from,
                                          int64 from_pitch, int planes, int columns) {
  const int threads = (int)blockDim.x;
  const int plane_step = threads / columns, column_step = threads - plane_step * columns;
  int plane = (int)threadIdx.x / columns;
  int column = (int)threadIdx.x - plane * columns;
  while (plane < planes) {
    float values[kPoolLoads];
    int at[kPoolLoads];
#pragma unroll
    for (int n = 0; n < kPoolLoads; ++n) {
      const bool exists = plane < planes;
      values[n] = exists ? from[plane * from_pitch + column] : 0.0f;
      at[n] = exists ? plane * to_pitch + padded(column) : -1;
      plane += plane_step;
      column += column_step;
      if (column >= columns) {
        column -= columns;
        ++plane;
      }
    }
#pragma unroll
    for (int n = 0; n < kPoolLoads; ++n) {
      if (at[n] >= 0) to[at[n]] = values[n];
    }
  }
}

}  // namespace cvops

// out (planes, out_height, out_width), data (planes, height, width). A work item is `group` planes,
// a band, and `bins_at_once` bins of it: at most one bin per thread. Shared memory: columns_at_once
// pixels of each plane, at `padded` indices.
extern "C" __global__ void __launch_bounds__(256, 3)
    adaptive_avg_pooling(float* __restrict__ out, const float* __restrict__ data, long long planes,
                         const cvops::AdaptivePooling op, int group, int bins_at_once,
                         int columns_at_once) {
  using namespace cvops;
  wait_for_earlier_launches();
  CVOPS_DYNAMIC_SHARED(float, piece);
  const int me = (int)threadIdx.x, bands = op.bands(), bins = op.bins(), width = op.columns();
  const int64 map = (int64)op.height * op.width, grid = (int64)op.out_height * op.out_width;
  const int pitch = padded(columns_at_once) | 1;  // odd: the planes use different banks
  const int tiles = (int)ceil_div(bins, bins_at_once);
  const int64 items = ceil_div(planes, group) * bands * tiles;
  for (int64 item = blockIdx.x; item < items; item += gridDim.x) {
    const int tile = (int)(item % tiles), band = (int)(item / tiles % bands);
    const int64 first = item / tiles / bands * group;
    const int num = (int)(planes - first < group ? planes - first : group);
    const int first_bin = tile * bins_at_once;
    const int num_bins = bins - first_bin < bins_at_once ? bins - first_bin : bins_at_once;
    const Range rows = op.rows_of_band(band);
    const Range all = {op.columns_of_bin(first_bin).begin,
                       op.columns_of_bin(first_bin + num_bins - 1).end};
    const int plane = me / num_bins, bin = first_bin + me - plane * num_bins;
    const bool active = plane < num;
    const Range columns = active ? op.columns_of_bin(bin) : Range{0, 0};
    float sum = 0.0f;
    for (int row = rows.begin; row < rows.end; ++row) {
      for (int left = all.begin; left < all.end; left += columns_at_once) {
        const int right = all.end - left < columns_at_once ? all.end : left + columns_at_once;
        __syncthreads();
        copy_rows(piece, pitch, data + first * map + (int64)row * width + left, map, num,
                  right - left);
        __syncthreads();
        const int begin = columns.begin > left ? columns.begin : left;
        const int end = columns.end < right ? columns.end : right;
        const float* const from = piece + plane * pitch;
#pragma unroll 4
        for (int x = begin - left; x < end - left; ++x) sum += from[padded(x)];
      }
    }
    if (active) {
      out[(first + plane) * grid + (int64)band * bins + bin] =
          bin_mean(sum, bin_size(op, rows, columns));
    }
  }
}

// grad (planes, height, width), out_grad (planes, out_height, out_width). A thread has kPoolPlanes
// planes, kPoolRows rows and one column.
extern "C" __global__ void __launch_bounds__(256, 3)
    adaptive_avg_pooling_backward(float* __restrict__ grad, const float* __restrict__ out_grad,
                                  long long planes, const cvops::AdaptivePooling op) {
  using namespace cvops;
  wait_for_earlier_launches();
  const int rows = op.rows(), width = op.columns(), bins = op.bins();
  const int64 map = (int64)op.height * op.width, grid = (int64)op.out_height * op.out_width;
  const int parts = (int)ceil_div(rows, kPoolRows);
  const int64 total = ceil_div(planes, kPoolPlanes) * parts * width;
  for (int64 k = blockIdx.x * (int64)blockDim.x + threadIdx.x; k < total;
       k += (int64)gridDim.x * blockDim.x) {
    const int64 line = k / width, first = line / parts * kPoolPlanes;
    const int column = (int)(k - line * width);
    const int top = (int)(line % parts) * kPoolRows;
    const int bottom = rows - top < kPoolRows ? rows : top + kPoolRows;
    const int num = (int)(planes - first < kPoolPlanes ? planes - first : kPoolPlanes);
    const Range across = op.bins_of_column(column);
    Range known = {-1, -1};
    float sums[kPoolPlanes];
    for (int row = top; row < bottom; ++row) {
      const Range down = op.bands_of_row(row);
      if (down.begin != known.begin || down.end != known.end) {
        known = down;
#pragma unroll
        for (int n = 0; n < kPoolPlanes; ++n) sums[n] = 0.0f;
        for (int band = down.begin; band < down.end; ++band) {
          for (int bin = across.begin; bin < across.end; ++bin) {
            const BinSize size = bin_size(op, op.rows_of_band(band), op.columns_of_bin(bin));
            const float* const from = out_grad + first * grid + (int64)band * bins + bin;
#pragma unroll
            for (int n = 0; n < kPoolPlanes; ++n) {
              sums[n] += pixel_grad(from[(n < num ? n : 0) * grid], size);
            }
          }
        }
      }
      float* const to = grad + first * map + (int64)row * width + column;
#pragma unroll
      for (int n = 0; n < kPoolPlanes; ++n) {
        if (n < num) to[n * map] = sums[n];
      }
    }
  }
}
#endif
