#include "box_iou.h"

#include <algorithm>
#include <memory>

#include "box_iou.cuh"
#include "parallel.h"
#include "simd.h"

namespace cvops {
namespace {

// Columns per block, so that a block stays in the L1 cache; columns per vector.
constexpr int64 kBlock = 1024, kVector = 8;

// Boxes of the columns as a structure of arrays, which the compiler can vectorize.
template <typename T>
struct Columns {
  const T *x1, *y1, *x2, *y2, *area;
};

template <bool kCenter, typename T>
void iou_row(T* __restrict__ out, SizedBoxOf<T> box, Columns<T> columns, int64 vectors) {
  const T *__restrict__ x1 = columns.x1, *__restrict__ y1 = columns.y1,
                           *__restrict__ x2 = columns.x2, *__restrict__ y2 = columns.y2,
                           *__restrict__ area = columns.area;
  for (int64 j = 0; j < vectors * kVector; ++j) {
    const SizedBoxOf<T> column = {{x1[j], y1[j], x2[j], y2[j]}, area[j]};
    out[j] = box_iou_of(box, column, kCenter);
  }
}

// Computes `num` columns of rows of the matrix; rows are `stride` apart. The last vector of a row
// can extend over the beginning of the next row, if that row is computed later and before `end`.
template <bool kCenter, typename T>
void iou_rows(T* out, const T* end, const T* lhs, int64 num_lhs, Columns<T> columns, int64 num,
              int64 stride) {
  const int64 vectors = ceil_div(num, kVector);
  T row[kBlock];
  for (int64 i = 0; i < num_lhs; ++i, out += stride) {
    const SizedBoxOf<T> box = sized(load_box(lhs, i), kCenter);
    const T* room = num < stride ? out + num : end;
    if (out + vectors * kVector <= room) {
      iou_row<kCenter, T>(out, box, columns, vectors);
    } else {
      iou_row<kCenter, T>(row, box, columns, vectors);
      std::copy_n(row, num, out);
    }
  }
}

}  // namespace

template <typename T>
void box_iou(const Cpu&, T* out, const T* lhs, const T* rhs, int64 num_lhs, int64 num_rhs,
             bool center) {
  if (num_lhs == 0 || num_rhs == 0) return;
  constexpr int64 few = 64, pairs = 1 << 14;
  const int64 padded = ceil_div(num_rhs, kVector) * kVector;
  T on_stack[5 * few];
  std::unique_ptr<T[]> on_heap(padded > few ? new T[5 * padded] : nullptr);
  T* x1 = on_heap ? on_heap.get() : on_stack;
  T *y1 = x1 + padded, *x2 = y1 + padded, *y2 = x2 + padded, *area = y2 + padded;
  for (int64 j = 0; j < padded; ++j) {
    const SizedBoxOf<T> b = sized(load_box(rhs, std::min(j, num_rhs - 1)), center);
    x1[j] = b.box.x1, y1[j] = b.box.y1, x2[j] = b.box.x2, y2[j] = b.box.y2, area[j] = b.area;
  }
  const int64 rows = std::max<int64>(ceil_div(pairs, num_rhs), 8);
  parallel_for(ceil_div(num_lhs, rows), 0.25 * rows * num_rhs, [&](int64 part) {
    const int64 first = part * rows, num = std::min(rows, num_lhs - first);
    const T* end = out + (first + num) * num_rhs;
    for (int64 j = 0; j < num_rhs; j += kBlock) {
      const Columns<T> columns = {x1 + j, y1 + j, x2 + j, y2 + j, area + j};
      T* to = out + first * num_rhs + j;
      const int64 of_row = std::min(kBlock, num_rhs - j);
      if (center) {
        simd<iou_rows<true, T>>(to, end, lhs + 4 * first, num, columns, of_row, num_rhs);
      } else {
        simd<iou_rows<false, T>>(to, end, lhs + 4 * first, num, columns, of_row, num_rhs);
      }
    }
  });
}

template void box_iou(const Cpu&, float*, const float*, const float*, int64, int64, bool);
template void box_iou(const Cpu&, double*, const double*, const double*, int64, int64, bool);

}  // namespace cvops
