// box_iou_rotated: out[i, j] = intersection over union of the rotated boxes lhs[i] and rhs[j].
//
// Most pairs of boxes are apart. A block first compares the bounds of the pairs of a tile, writes
// zeros and lists the pairs whose bounds overlap. Then its threads compute the listed pairs, so
// that all lanes of a warp do the same work.
#pragma once
#include "rotated_box.cuh"
#include "warp.cuh"

namespace cvops {

// Maximum number of columns, rows and pairs of a tile.
constexpr int kRotatedColumns = CVOPS_STEP(64, 8), kRotatedRows = CVOPS_STEP(128, 16);
constexpr int kRotatedPairs = CVOPS_STEP(4096, 64);

// Shape of a tile for a number of columns.
CVOPS_HD int rotated_tile_columns(int num_rhs) {
  return num_rhs < kRotatedColumns ? num_rhs : kRotatedColumns;
}
CVOPS_HD int rotated_tile_rows(int num_rhs) {
  const int rows = kRotatedPairs / rotated_tile_columns(num_rhs);
  return rows < kRotatedRows ? rows : kRotatedRows;
}

}  // namespace cvops

CVOPS_KERNEL box_iou_rotated(float* out, const float* lhs, const float* rhs, int num_lhs,
                             int num_rhs, cvops::RotatedFormat format);

#ifdef __CUDACC__
// out (M, N), lhs (M, 5), rhs (N, 5). Grid (row tiles * column tiles), columns first.
extern "C" __global__ void __launch_bounds__(256, 3)
    box_iou_rotated(float* __restrict__ out, const float* __restrict__ lhs,
                    const float* __restrict__ rhs, int num_lhs, int num_rhs,
                    const cvops::RotatedFormat format) {
  using namespace cvops;
  wait_for_earlier_launches();
  __shared__ RotatedBox boxes[kRotatedRows + kRotatedColumns];  // rows, then columns
  __shared__ Box bounds[kRotatedRows + kRotatedColumns];
  __shared__ unsigned short list[kRotatedPairs];
  __shared__ int num_listed;
  const int t = threadIdx.x, threads = blockDim.x;
  int num_columns = rotated_tile_columns(num_rhs), num_rows = rotated_tile_rows(num_rhs);
  const int tiles = (int)ceil_div(num_rhs, num_columns);
  const int first_row = blockIdx.x / tiles * num_rows,
            first_column = blockIdx.x % tiles * num_columns;
  num_rows = min(num_rows, num_lhs - first_row);
  num_columns = min(num_columns, num_rhs - first_column);
  lhs += (int64)kRotatedNumbers * first_row;
  rhs += (int64)kRotatedNumbers * first_column;
  out += (int64)first_row * num_rhs + first_column;
  if (t == 0) num_listed = 0;
  for (int k = t; k < num_rows + num_columns; k += threads) {
    const float* from =
        k < num_rows ? lhs + kRotatedNumbers * k : rhs + kRotatedNumbers * (k - num_rows);
    boxes[k] = rotated_box(from, format);
    bounds[k] = bounds_of(boxes[k]);
  }
  __syncthreads();
  const int pairs = num_rows * num_columns;
  for (int first = 0; first < pairs; first += threads) {  // the same steps in all threads
    const int pair = first + t, row = pair / num_columns, column = pair - row * num_columns;
    bool is_near = false;
    if (pair < pairs) {
      is_near = may_overlap(bounds[row], bounds[num_rows + column]);
      if (!is_near) __stcs(out + ((int64)row * num_rhs + column), 0.0f);
    }
    const int at = warp_append(&num_listed, is_near);
    if (is_near) list[at] = (unsigned short)pair;
  }
  __syncthreads();
  for (int k = t; k < num_listed; k += threads) {
    const int pair = list[k], row = pair / num_columns, column = pair - row * num_columns;
    const float iou = rotated_iou(boxes[row], boxes[num_rows + column]);
    __stcs(out + ((int64)row * num_rhs + column), iou);
  }
}
#endif
