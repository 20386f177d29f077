#include "box_iou_rotated.h"

#include <algorithm>
#include <memory>

#include "box_iou_rotated.cuh"
#include "parallel.h"
#include "simd.h"

namespace cvops {
namespace {

// Columns per block, so that their bounds stay in the L1 cache; columns per test of bounds; pairs
// per vector step; pairs that are collected before they are computed.
constexpr int kBlock = 1024, kGroup = 16, kLanes = 16, kPairs = 256;

// Bounds of the columns as a structure of arrays, which the compiler can vectorize.
struct Bounds {
  const float *x1, *y1, *x2, *y2;
};

// Rotated boxes as a structure of arrays.
struct Lanes {
  float x[kLanes], y[kLanes], width[kLanes], height[kLanes];
  double cos[kLanes], sin[kLanes];

  CVOPS_INLINE void set(int k, const RotatedBox& b) {
    x[k] = b.x, y[k] = b.y, width[k] = b.width, height[k] = b.height;
    cos[k] = b.cos, sin[k] = b.sin;
  }
  CVOPS_INLINE RotatedBox operator[](int k) const {
    return {x[k], y[k], width[k], height[k], cos[k], sin[k]};
  }
};

// Pairs whose bounds overlap, and the addresses of their IoU.
struct Pairs {
  const RotatedBox *lhs[kPairs], *rhs[kPairs];
  float* out[kPairs];
  int num = 0;
};

CVOPS_INLINE void compute(Pairs& pairs) {
  Lanes lhs, rhs;
  float iou[kLanes];
  for (int first = 0; first < pairs.num; first += kLanes) {
    const int count = std::min(kLanes, pairs.num - first);
    for (int k = 0; k < kLanes; ++k) {
      const int pair = first + std::min(k, count - 1);
      lhs.set(k, *pairs.lhs[pair]);
      rhs.set(k, *pairs.rhs[pair]);
    }
    for (int k = 0; k < kLanes; ++k) iou[k] = rotated_iou(lhs[k], rhs[k]);
    for (int k = 0; k < count; ++k) *pairs.out[first + k] = iou[k];
  }
  pairs.num = 0;
}

// Computes `num` columns of a row. `rhs` are their boxes, and `bounds` their bounds, which have
// kGroup - 1 more elements.
void iou_row(Pairs& pairs, float* out, const RotatedBox& lhs, const RotatedBox* rhs, Bounds bounds,
             int num) {
  const Box own = bounds_of(lhs);
  std::fill_n(out, num, 0.0f);
  for (int first = 0; first < num; first += kGroup) {
    int passes[kGroup], any = 0;
    CVOPS_VECTORIZED
    for (int k = 0; k < kGroup; ++k) {
      const int j = first + k;
      passes[k] = may_overlap(own, {bounds.x1[j], bounds.y1[j], bounds.x2[j], bounds.y2[j]});
      any |= passes[k];
    }
    if (!any) continue;
    if (pairs.num > kPairs - kGroup) compute(pairs);
    for (int k = 0; k < kGroup; ++k) {
      const int j = first + k;
      pairs.lhs[pairs.num] = &lhs, pairs.rhs[pairs.num] = rhs + j, pairs.out[pairs.num] = out + j;
      pairs.num += passes[k] & (j < num);
    }
  }
}

// Computes `num` columns of `rows` rows of the matrix, which are `stride` apart.
void iou_rows(float* out, const RotatedBox* lhs, int rows, const RotatedBox* rhs, Bounds bounds,
              int num, int64 stride) {
  Pairs pairs;
  for (int i = 0; i < rows; ++i) iou_row(pairs, out + i * stride, lhs[i], rhs, bounds, num);
  compute(pairs);
}

}  // namespace

void box_iou_rotated(const Cpu&, float* out, const float* lhs, const float* rhs, int64 num_lhs,
                     int64 num_rhs, RotatedFormat format) {
  if (num_lhs == 0 || num_rhs == 0) return;
  constexpr int64 most_rows = 64, pairs = 1 << 13;
  const int64 padded = ceil_div(num_rhs, kGroup) * kGroup;
  const std::unique_ptr<RotatedBox[]> columns(new RotatedBox[num_rhs]);
  const std::unique_ptr<float[]> bounds(new float[4 * padded]);
  float *x1 = bounds.get(), *y1 = x1 + padded, *x2 = y1 + padded, *y2 = x2 + padded;
  parallel_for(ceil_div(num_rhs, kBlock), 50.0 * kBlock, [&](int64 block) {
    for (int64 j = block * kBlock; j < std::min(padded, (block + 1) * kBlock); ++j) {
      Box b = {0, 0, 0, 0};
      if (j < num_rhs) {
        columns[j] = rotated_box(rhs + kRotatedNumbers * j, format);
        b = bounds_of(columns[j]);
      }
      x1[j] = b.x1, y1[j] = b.y1, x2[j] = b.x2, y2[j] = b.y2;
    }
  });
  const int64 rows = std::clamp<int64>(ceil_div(pairs, num_rhs), 4, most_rows);
  parallel_for(ceil_div(num_lhs, rows), rows * (50 + 0.5 * num_rhs), [&](int64 part) {
    const int64 first = part * rows, num = std::min(rows, num_lhs - first);
    RotatedBox boxes[most_rows];
    for (int64 i = 0; i < num; ++i) {
      boxes[i] = rotated_box(lhs + kRotatedNumbers * (first + i), format);
    }
    for (int64 j = 0; j < num_rhs; j += kBlock) {
      simd<iou_rows>(out + first * num_rhs + j, boxes, (int)num, columns.get() + j,
                     Bounds{x1 + j, y1 + j, x2 + j, y2 + j},
                     (int)std::min<int64>(kBlock, num_rhs - j), num_rhs);
    }
  });
}

}  // namespace cvops
