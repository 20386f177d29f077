// paste_masks: masks of boxes, resized to their boxes in an image.
//
// A thread writes 16 adjacent pixels with one store. They may be in several rows and masks.
#pragma once
#include "box.cuh"
#include "roi.cuh"

namespace cvops {

// Sizes of masks (num, mask_height, mask_width) and of the result (num, height, width).
struct PasteShape {
  int64 num;
  int mask_height, mask_width, height, width;
};

// One axis of a box in pixels, and the cells of its mask.
struct PasteAxis {
  float first, last;
  int cells;

  // False for an axis without length, with NaN or with an infinite corner.
  CVOPS_HD bool valid() const { return last - first > 0 && last - first <= 3.402823466e38f; }

  // True if the center of a pixel is in the box.
  CVOPS_HD bool contains(int pixel) const {
    const float center = (float)pixel + 0.5f;
    return center >= first && center < last;
  }
};

// Linear interpolation along an axis between the cells low and low + 1. Cells -1 and `cells` are
// outside of the mask.
struct PasteSample {
  int low;
  float low_weight, high_weight;
};

CVOPS_HD PasteSample paste_sample(PasteAxis axis, int pixel) {
  const float center = (float)pixel + 0.5f;
  const float part = (center - axis.first) / (axis.last - axis.first);
  const float at = part * (float)axis.cells - 0.5f;
  const int low = at >= 0 ? clamped((int)at, axis.cells - 1) : -1;
  const float high_weight = at - (float)low;
  return {low, 1.0f - high_weight, high_weight};
}

CVOPS_HD float paste_between(float low, float high, PasteSample at) {
  return at.low_weight * low + at.high_weight * high;
}

// Interpolation along the rows of a mask in one column; 0 outside of the mask.
CVOPS_HD float paste_column(const float* mask, PasteSample y, int column, const PasteShape& shape) {
  if (column < 0 || column >= shape.mask_width) return 0;
  const float* at = mask + column;
  const float low = y.low >= 0 ? at[(int64)y.low * shape.mask_width] : 0.0f;
  const float high =
      y.low + 1 < shape.mask_height ? at[(int64)(y.low + 1) * shape.mask_width] : 0.0f;
  return paste_between(low, high, y);
}

CVOPS_HD bool paste_value(float low, float high, PasteSample x, float threshold) {
  return paste_between(low, high, x) >= threshold;
}

}  // namespace cvops

CVOPS_KERNEL paste_masks(unsigned char* out, const float* masks, const float* boxes,
                         cvops::PasteShape shape, float threshold);

#ifdef __CUDACC__
namespace cvops {

// Four bytes, each 0 or 1, of four bits.
__device__ __forceinline__ uint32 bytes_of(uint32 bits) {
  return (bits & 1) | (bits & 2) << 7 | (bits & 4) << 14 | (bits & 8) << 21;
}

}  // namespace cvops

// out (num, height, width), aligned to 16 bytes; masks, boxes (num, 4). Masks have cells.
extern "C" __global__ void __launch_bounds__(256)
    paste_masks(unsigned char* __restrict__ out, const float* __restrict__ masks,
                const float* __restrict__ boxes, const cvops::PasteShape shape, float threshold) {
  using namespace cvops;
  wait_for_earlier_launches();
  const int64 total = shape.num * shape.height * shape.width;
  const int64 cells = (int64)shape.mask_height * shape.mask_width;
  // The row and the column of the first pixel of the block. A thread then divides 32-bit numbers.
  const int64 first = (int64)blockIdx.x * blockDim.x * 16;
  const int64 first_row = first / shape.width, first_mask = first_row / shape.height;
  const uint32 along = (uint32)(first - first_row * shape.width) + 16 * threadIdx.x;
  const uint32 rows = along / shape.width;
  const uint32 down_to = (uint32)(first_row - first_mask * shape.height) + rows;
  int64 number = first_mask + down_to / shape.height;
  int column = (int)(along - rows * shape.width), y = (int)(down_to % shape.height);
  const int64 begin = first + 16 * (int)threadIdx.x;
  if (begin >= total) return;
  const int count = (int)min(total - begin, 16ll);
  uint32 bits = 0;
  for (int k = 0; k < count;) {
    const int run = min(count - k, shape.width - column);
    const Box box = load_box(boxes, number);
    const PasteAxis across = {box.x1, box.x2, shape.mask_width};
    const PasteAxis down = {box.y1, box.y2, shape.mask_height};
    if (across.valid() && down.valid() && down.contains(y)) {
      const PasteSample in_column = paste_sample(down, y);
      const float* const mask = masks + number * cells;
#pragma unroll 1
      for (int i = 0; i < run; ++i) {
        if (!across.contains(column + i)) continue;
        const PasteSample x = paste_sample(across, column + i);
        const float low = paste_column(mask, in_column, x.low, shape);
        const float high = paste_column(mask, in_column, x.low + 1, shape);
        bits |= (uint32)paste_value(low, high, x, threshold) << (k + i);
      }
    }
    k += run;
    column = 0;
    if (++y == shape.height) y = 0, ++number;
  }
  if (count == 16) {
    *reinterpret_cast<uint4*>(out + begin) =
        make_uint4(bytes_of(bits), bytes_of(bits >> 4), bytes_of(bits >> 8), bytes_of(bits >> 12));
  } else {
    for (int k = 0; k < count; ++k) out[begin + k] = bits >> k & 1;
  }
}
#endif
