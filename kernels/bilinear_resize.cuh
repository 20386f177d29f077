// bilinear_resize: bilinear interpolation of feature maps to another size, and the gradient.
//
// An output has a position between two pixels of each axis. Positions rise with the outputs, so the
// outputs that touch a pixel are a range.
//
// Forward: a thread holds four columns of some output rows. It interpolates along x once for all
// output rows between the same two rows of pixels, and stores 16 bytes at once where rows are
// aligned.
//
// Backward: a thread has one pixel of some planes. It adds the gradients of its outputs by rows, in
// the order of MXNet. There are no atomic additions.
#pragma once
#include "range.cuh"

namespace cvops {

// One axis: pixels, outputs, and the distance of two outputs in pixels.
struct ResizeAxis {
  int size, out_size;
  float scale;
  bool align_corners;
};

// With align_corners, the first and the last output have the positions of the first and the last
// pixel. Otherwise both maps have the same edges. One output is at the first pixel.
CVOPS_HD ResizeAxis resize_axis(int size, int out_size, bool align_corners) {
  float scale = 0.0f;
  if (out_size > 1) {
    scale =
        align_corners ? (float)(size - 1) / (float)(out_size - 1) : (float)size / (float)out_size;
  }
  return {size, out_size, scale, align_corners};
}

// Two pixels and their weights. They are the same pixel at the end of an axis.
struct ResizeSample {
  int low, high;
  float low_weight, high_weight;
};

// Sample of output i. MXNet computes the position without align_corners in double precision.
CVOPS_HD ResizeSample resize_sample(const ResizeAxis& axis, int i) {
  float position = axis.align_corners ? axis.scale * (float)i
                                      : (float)((double)axis.scale * ((double)i + 0.5) - 0.5);
  if (position < 0.0f) position = 0.0f;
  int low = (int)position;
  if (low > axis.size - 1) low = axis.size - 1;
  const float high_weight = position - (float)low;
  return {low, low < axis.size - 1 ? low + 1 : low, 1.0f - high_weight, high_weight};
}

// First output whose lower pixel is `pixel` or a later one; out_size if there is none.
CVOPS_HD int first_output(const ResizeAxis& axis, int pixel) {
  int begin = 0;
  for (int end = axis.out_size; begin < end;) {
    const int middle = begin + (end - begin) / 2;
    if (resize_sample(axis, middle).low < pixel) {
      begin = middle + 1;
    } else {
      end = middle;
    }
  }
  return begin;
}

// Range of outputs whose samples touch a pixel.
CVOPS_HD Range outputs_of_pixel(const ResizeAxis& axis, int pixel) {
  return {first_output(axis, pixel - 1), first_output(axis, pixel + 1)};
}

// Weighted sum of two pixels, or of two rows.
CVOPS_HD float between(float low, float high, float low_weight, float high_weight) {
  return low_weight * low + high_weight * high;
}

// Sizes of a map before and after.
struct BilinearResize {
  int height, width, out_height, out_width;
  bool align_corners;

  CVOPS_HD ResizeAxis rows() const { return resize_axis(height, out_height, align_corners); }
  CVOPS_HD ResizeAxis columns() const { return resize_axis(width, out_width, align_corners); }
  // True if the result is a copy. Interpolation would multiply an infinite pixel by 0.
  CVOPS_HD bool is_copy() const { return height == out_height && width == out_width; }
};

// Output rows of a thread; planes of a thread of the backward kernel.
constexpr int kResizeRows = CVOPS_STEP(8, 2), kResizePlanes = 4;

}  // namespace cvops

CVOPS_KERNEL bilinear_resize(float* out, const float* data, cvops::int64 planes,
                             cvops::BilinearResize op);
CVOPS_KERNEL bilinear_resize_backward(float* grad, const float* out_grad, cvops::int64 planes,
                                      cvops::BilinearResize op);

#ifdef __CUDACC__
// out (planes, out_height, out_width), data (planes, height, width). op.is_copy() is false.
extern "C" __global__ void __launch_bounds__(256)
    bilinear_resize(float* __restrict__ out, const float* __restrict__ data, long long planes,
                    const cvops::BilinearResize op) {
  using namespace cvops;
  wait_for_earlier_launches();
  const ResizeAxis y_axis = op.rows(), x_axis = op.columns();
  const int quads = (int)ceil_div(op.out_width, 4),
            parts = (int)ceil_div(op.out_height, kResizeRows);
  const bool wide = op.out_width % 4 == 0;
  // Four adjacent columns if a thread can store them at once. Otherwise columns at distance
  // `quads`, so that adjacent threads store adjacent columns.
  const int first = wide ? 4 : 1, step = wide ? 1 : quads;
  const int64 total = planes * parts * quads;
  for (int64 k = blockIdx.x * (int64)blockDim.x + threadIdx.x; k < total;
       k += (int64)gridDim.x * blockDim.x) {
    const int64 line = k / quads, plane = line / parts;
    const int x = first * (int)(k - line * quads);
    const int begin = (int)(line - plane * parts) * kResizeRows;
    const int end = op.out_height - begin < kResizeRows ? op.out_height : begin + kResizeRows;
    ResizeSample columns[4];
#pragma unroll
    for (int n = 0; n < 4; ++n) {
      // A column that does not exist is not stored.
      const int column = x + n * step;
      columns[n] = resize_sample(x_axis, column < op.out_width ? column : op.out_width - 1);
    }
    const float* const map = data + plane * op.height * op.width;
    float* const to = out + plane * op.out_height * op.out_width + x;
    int known = -1;
    float low[4] = {}, high[4] = {};
    for (int y = begin; y < end; ++y) {
      const ResizeSample row = resize_sample(y_axis, y);
      if (row.low != known) {
        known = row.low;
        const float* const upper = map + (int64)row.low * op.width;
        const float* const lower = map + (int64)row.high * op.width;
#pragma unroll
        for (int n = 0; n < 4; ++n) {
          const ResizeSample& c = columns[n];
          low[n] = between(upper[c.low], upper[c.high], c.low_weight, c.high_weight);
          high[n] = between(lower[c.low], lower[c.high], c.low_weight, c.high_weight);
        }
      }
      float value[4];
#pragma unroll
      for (int n = 0; n < 4; ++n) {
        value[n] = between(low[n], high[n], row.low_weight, row.high_weight);
      }
      float* const at = to + (int64)y * op.out_width;
      if (wide) {
        *reinterpret_cast<float4*>(at) = make_float4(value[0], value[1], value[2], value[3]);
      } else {
#pragma unroll
        for (int n = 0; n < 4; ++n) {
          if (x + n * step < op.out_width) at[n * step] = value[n];
        }
      }
    }
  }
}

// grad (planes, height, width), out_grad (planes, out_height, out_width). A thread has one pixel of
// kResizePlanes planes.
extern "C" __global__ void __launch_bounds__(256)
    bilinear_resize_backward(float* __restrict__ grad, const float* __restrict__ out_grad,
                             long long planes, const cvops::BilinearResize op) {
  using namespace cvops;
  wait_for_earlier_launches();
  const ResizeAxis y_axis = op.rows(), x_axis = op.columns();
  const int64 map = (int64)op.height * op.width, out_map = (int64)op.out_height * op.out_width;
  const int64 total = ceil_div(planes, kResizePlanes) * map;
  for (int64 k = blockIdx.x * (int64)blockDim.x + threadIdx.x; k < total;
       k += (int64)gridDim.x * blockDim.x) {
    const int64 group = k / map, first = group * kResizePlanes;
    const int pixel = (int)(k - group * map), y = pixel / op.width, x = pixel - y * op.width;
    const int num = (int)(planes - first < kResizePlanes ? planes - first : kResizePlanes);
    const float* const from = out_grad + first * out_map;
    float sums[kResizePlanes] = {};
    if (op.is_copy()) {
#pragma unroll
      for (int n = 0; n < kResizePlanes; ++n) sums[n] += from[(n < num ? n : 0) * map + pixel];
    } else {
      const Range rows = outputs_of_pixel(y_axis, y), columns = outputs_of_pixel(x_axis, x);
#pragma unroll 1
      for (int i = rows.begin; i < rows.end; ++i) {
        const ResizeSample row = resize_sample(y_axis, i);
#pragma unroll 1
        for (int j = columns.begin; j < columns.end; ++j) {
          const ResizeSample column = resize_sample(x_axis, j);
          float values[kResizePlanes];
#pragma unroll
          for (int n = 0; n < kResizePlanes; ++n) {
            values[n] = from[(n < num ? n : 0) * out_map + (int64)i * op.out_width + j];
          }
          // Both pixels of a sample can be this one, at the end of an axis.
          auto add = [&](bool touches, float row_weight, float column_weight) {
            if (!touches) return;
            const float weight = row_weight * column_weight;
#pragma unroll
            for (int n = 0; n < kResizePlanes; ++n) sums[n] += weight * values[n];
          };
          const bool left = column.low == x, right = column.high == x;
          add(row.low == y && left, row.low_weight, column.low_weight);
          add(row.low == y && right, row.low_weight, column.high_weight);
          add(row.high == y && left, row.high_weight, column.low_weight);
          add(row.high == y && right, row.high_weight, column.high_weight);
        }
      }
    }
    float* const to = grad + first * map + pixel;
#pragma unroll
    for (int n = 0; n < kResizePlanes; ++n) {
      if (n < num) to[n * map] = sums[n];
    }
  }
}
#endif
