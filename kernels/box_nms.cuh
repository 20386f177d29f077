// Kernels specific to box_nms. Sorting: sort.cuh; suppression: nms.cuh.
//
// - Default: box_nms_score -> sort_* -> box_nms_gather -> nms_* -> box_nms_write.
// - `topk` rows for one tile of the sort: box_nms_score -> box_nms_order -> nms_* -> box_nms_write.
// - Few rows: box_nms_rank -> nms_* -> box_nms_write.
// - Rows for one block: box_nms_block.
// - No row may take part (topk 0): box_nms_copy. MXNet then returns all rows unchanged.
//
// Backward: the gradient of a row is the gradient of the result row that came from it, or 0. The
// index is inverted first, so that adjacent threads write each row once. The inverse uses no
// scratch memory: the first number of each gradient row holds the source row until the row is
// written.
#pragma once
#include "box_nms_output.cuh"
#include "nms/block.cuh"
#include "nms/double_box.cuh"
#include "nms/rows.cuh"
#include "sort_key.cuh"
#include "warp.cuh"

namespace cvops {

// Maximum number of rows in a set, and of pairs in all sets, for the ranking by comparison of all
// pairs. A GPU does that number of comparisons in the time of one or two launches.
constexpr int kNmsFew = CVOPS_STEP(5120, 96);
constexpr int64 kNmsFewPairs = CVOPS_STEP(1 << 25, 1 << 14);

// Maximum number of rows in a set whose ranking and suppression one block does in the time of three
// launches.
constexpr int kNmsBlockRows = CVOPS_STEP(320, 40);

CVOPS_HD bool nms_are_few(int64 batch, int64 num) {
  return num <= kNmsFew && batch * num * num <= kNmsFewPairs;
}

}  // namespace cvops

CVOPS_KERNEL box_nms_score(cvops::uint64* keys, int* tile_counts, const float* data, int num,
                           cvops::NmsColumns columns, float valid_thresh, float background_id);
CVOPS_KERNEL box_nms_gather(cvops::NmsBuffers nms, const float* data, const cvops::uint64* keys,
                            const int* counts, int num, int topk, cvops::NmsColumns columns,
                            int center);
CVOPS_KERNEL box_nms_order(cvops::NmsBuffers nms, cvops::uint64* sorted, int* counts,
                           const cvops::uint64* keys, const float* data, int num, int topk,
                           cvops::NmsColumns columns, int center);
CVOPS_KERNEL box_nms_rank(cvops::uint64* keys, int* counts, cvops::NmsBuffers nms,
                          const float* data, int num, int topk, cvops::NmsColumns columns,
                          float valid_thresh, float background_id, int center);
CVOPS_KERNEL box_nms_score_f64(cvops::uint64* keys, int* tile_counts, const double* data, int num,
                               cvops::NmsColumns columns, float valid_thresh, float background_id);
CVOPS_KERNEL box_nms_gather_f64(cvops::NmsBuffers nms, cvops::DoubleBox* boxes, const double* data,
                                const cvops::uint64* keys, const int* counts, int num, int topk,
                                cvops::NmsColumns columns, int center);
CVOPS_KERNEL box_nms_block(float* out, int* index, const float* data, int num, int topk,
                           cvops::NmsColumns columns, float valid_thresh, float background_id,
                           cvops::NmsRule rule, int conversion, int with_index);
CVOPS_KERNEL box_nms_write(float* out, int* index, const float* data, const cvops::uint64* keys,
                           const cvops::uint64* kept, const int* kept_before, const int* counts,
                           int num, int topk, cvops::NmsColumns columns, int conversion,
                           int with_index);
CVOPS_KERNEL box_nms_write_f64(double* out, int* index, const double* data,
                               const cvops::uint64* keys, const cvops::uint64* kept,
                               const int* kept_before, const int* counts, int num, int topk,
                               cvops::NmsColumns columns, int conversion, int with_index);
CVOPS_KERNEL box_nms_copy(float* out, int* index, const float* data, cvops::int64 rows, int num,
                          int width, int with_index);
CVOPS_KERNEL box_nms_copy_f64(double* out, int* index, const double* data, cvops::int64 rows,
                              int num, int width, int with_index);
CVOPS_KERNEL box_nms_backward_clear(int* sources, cvops::int64 rows, cvops::int64 stride);
CVOPS_KERNEL box_nms_backward_invert(int* sources, const int* index, cvops::int64 rows, int num,
                                     cvops::int64 stride);
CVOPS_KERNEL box_nms_backward(float* grad, const float* out_grad, cvops::int64 rows, int num,
                              int width);
CVOPS_KERNEL box_nms_backward_f64(double* grad, const double* out_grad, cvops::int64 rows, int num,
                                  int width);

#ifdef __CUDACC__
namespace cvops {

__device__ __forceinline__ void box_nms_store(const NmsBuffers& nms, int64 at, const float* row,
                                              NmsColumns columns, bool center) {
  nms.store(at, nms_box(row, columns, center), columns.id < 0 ? 0 : truncated(row[columns.id]));
}

// Upper half of a sort key, which orders the scores. A row that is left out has the largest one.
__device__ __forceinline__ uint32 score_order(const float* row, bool is_valid,
                                              const NmsColumns& columns) {
  return is_valid ? (uint32)(sort_key(row[columns.score], 0) >> 32) : ~0u;
}

// count += a < b. The compilers take three instructions for the comparison and the sum.
__device__ __forceinline__ void count_if_lower(int& count, uint32 a, uint32 b) {
#ifdef __CUDA_ARCH__
  asm("{\n"
      "  .reg .pred lower;\n"
      "  setp.lt.u32 lower, %1, %2;\n"
      "  @lower add.s32 %0, %0, 1;\n"
      "}"
      : "+r"(count)
      : "r"(a), "r"(b));
#else
  count += a < b;
#endif
}

// Number of rows that precede row i by their score or, if it is equal, by their index. Rows 4 begin
// to 4 end - 1 count; `orders` has the score_order() of four rows.
__device__ __forceinline__ int rows_before(const uint4* orders, int begin, int end, int i) {
  const uint32* const single = reinterpret_cast<const uint32*>(orders);
  const uint32 own = single[i];
  const int own_four = i / 4;
  int before = 0;
#pragma unroll 4
  for (int k = begin; k < end; ++k) {
    const uint4 four = orders[k];
    const uint32 bound = own + (k < own_four);
    count_if_lower(before, four.x, bound), count_if_lower(before, four.y, bound);
    count_if_lower(before, four.z, bound), count_if_lower(before, four.w, bound);
  }
  if (begin <= own_four && own_four < end) {
#pragma unroll 1
    for (int k = 4 * own_four; k < i; ++k) before += single[k] == own;
  }
  return before;
}

}  // namespace cvops

// keys (B, N) of the valid rows of data (B, N, width); tile_counts: valid rows per tile. Grid (B,
// tiles).
extern "C" __global__ void __launch_bounds__(256)
    box_nms_score(unsigned long long* __restrict__ keys, int* __restrict__ tile_counts,
                  const float* __restrict__ data, int num, const cvops::NmsColumns columns,
                  float valid_thresh, float background_id) {
  using namespace cvops;
  wait_for_earlier_launches();
  const int i = blockIdx.y * kCompactTile + threadIdx.x, batch = blockIdx.x;
  const float* row = data + ((int64)batch * num + i) * columns.width;
  const bool valid = i < num && nms_is_valid(row, columns, valid_thresh, background_id);
  if (i < num) keys[(int64)batch * num + i] = valid ? sort_key(row[columns.score], i) : kNoKey;
  const int count = __syncthreads_count(valid);
  if (threadIdx.x == 0) tile_counts[(int64)batch * gridDim.y + blockIdx.y] = count;
}

// Boxes, areas and classes of the first min(counts[b], limit) rows in key order. It also
// initializes the other buffers of nms.cuh. Grid (B, tiles).
extern "C" __global__ void __launch_bounds__(256)
    box_nms_gather(const cvops::NmsBuffers nms, const float* __restrict__ data,
                   const unsigned long long* __restrict__ keys, const int* __restrict__ counts,
                   int num, int topk, const cvops::NmsColumns columns, int center) {
  using namespace cvops;
  wait_for_earlier_launches();
  const int i = blockIdx.y * blockDim.x + threadIdx.x, batch = blockIdx.x;
  const int count = min(counts[batch], topk);
  nms.begin(batch, num, i, count);
  if (i >= count) return;
  const int64 first = (int64)batch * num;
  box_nms_store(nms, first + i, data + (first + index_of(keys[first + i])) * columns.width, columns,
                center);
}

// The best rows in one launch, for topk <= kSortTile. keys (B, N), with kNoKey; sorted (B, N): the
// keys in order; counts (B): their number; other outputs as in box_nms_gather. Grid (B), 1024
// threads.
extern "C" __global__ void __launch_bounds__(1024, 1)
    box_nms_order(const cvops::NmsBuffers nms, unsigned long long* __restrict__ sorted,
                  int* __restrict__ counts, const unsigned long long* __restrict__ keys,
                  const float* __restrict__ data, int num, int topk,
                  const cvops::NmsColumns columns, int center) {
  using namespace cvops;
  wait_for_earlier_launches();
  __shared__ BestKeys<kSortTile> best;
  const int batch = blockIdx.x, t = threadIdx.x;
  const int64 first = (int64)batch * num;
  const int count = best.find([&](int i) { return keys[first + i]; }, num, topk);
  if (t == 0) counts[batch] = count;
  for (int i = t; i < ceil_div(num, 32); i += blockDim.x) nms.begin(batch, num, i, count);
  for (int i = t; i < count; i += blockDim.x) {
    sorted[first + i] = best[i];
    box_nms_store(nms, first + i, data + (first + index_of(best[i])) * columns.width, columns,
                  center);
  }
}

// Keys of the first sort of doubles: see nms_f64.cuh. Otherwise as box_nms_score.
extern "C" __global__ void __launch_bounds__(256, 1)
    box_nms_score_f64(unsigned long long* __restrict__ keys, int* __restrict__ tile_counts,
                      const double* __restrict__ data, int num, const cvops::NmsColumns columns,
                      float valid_thresh, float background_id) {
  using namespace cvops;
  wait_for_earlier_launches();
  const int i = blockIdx.y * kCompactTile + threadIdx.x, batch = blockIdx.x;
  const double* row = data + ((int64)batch * num + i) * columns.width;
  const bool valid = i < num && nms_is_valid(row, columns, valid_thresh, background_id);
  if (i < num) keys[(int64)batch * num + i] = valid ? low_key(row[columns.score], i) : kNoKey;
  const int count = __syncthreads_count(valid);
  if (threadIdx.x == 0) tile_counts[(int64)batch * gridDim.y + blockIdx.y] = count;
}

// As box_nms_gather, for boxes (B, N) of doubles and their bounds.
extern "C" __global__ void __launch_bounds__(256, 1)
    box_nms_gather_f64(const cvops::NmsBuffers nms, cvops::DoubleBox* __restrict__ boxes,
                       const double* __restrict__ data, const unsigned long long* __restrict__ keys,
                       const int* __restrict__ counts, int num, int topk,
                       const cvops::NmsColumns columns, int center) {
  using namespace cvops;
  wait_for_earlier_launches();
  const int i = blockIdx.y * blockDim.x + threadIdx.x, batch = blockIdx.x;
  const int count = min(counts[batch], topk);
  nms.begin(batch, num, i, count);
  if (i >= count) return;
  const int64 first = (int64)batch * num;
  const double* row = data + (first + index_of(keys[first + i])) * columns.width;
  const DoubleBox box = nms_box(row, columns, center);
  boxes[first + i] = box;
  nms.store(first + i, nms_bounds(box), columns.id < 0 ? 0 : truncated(row[columns.id]));
}

// Score, sort and gather in one launch, for at most kNmsFew rows. The position of a row is the
// number of rows before it. keys (B, N): sorted keys of the valid rows; counts (B): their number;
// other outputs as in box_nms_gather. Grid (B, tiles of 32 rows), 1024 threads. A lane holds a row;
// each warp compares it with one split of the rows.
extern "C" __global__ void __launch_bounds__(1024, 1)
    box_nms_rank(unsigned long long* __restrict__ keys, int* __restrict__ counts,
                 const cvops::NmsBuffers nms, const float* __restrict__ data, int num, int topk,
                 const cvops::NmsColumns columns, float valid_thresh, float background_id,
                 int center) {
  using namespace cvops;
  wait_for_earlier_launches();
  static_assert(kNmsFew % 4 == 0, "see rows_before");
  __shared__ uint4 orders[kNmsFew / 4];
  __shared__ int positions[32], num_valid;
  const int batch = blockIdx.x, t = threadIdx.x, lane = t % 32, warp = t / 32;
  const int64 first = (int64)batch * num;
  data += first * columns.width;
  if (t < 32) positions[t] = 0;
  if (t == 0) num_valid = 0;
  int valid = 0;
  const int fours = (int)ceil_div(num, 4);
  for (int i = t; i < 4 * fours; i += blockDim.x) {
    const float* row = data + (int64)i * columns.width;
    const bool is_valid = i < num && nms_is_valid(row, columns, valid_thresh, background_id);
    reinterpret_cast<uint32*>(orders)[i] = score_order(row, is_valid, columns);
    valid += is_valid;
  }
  __syncthreads();
  valid = warp_sum(valid);
  if (lane == 0) atomicAdd(&num_valid, valid);
  const int i = 32 * blockIdx.y + lane, each = (int)ceil_div(fours, 32);
  const uint32 order = i < num ? reinterpret_cast<const uint32*>(orders)[i] : ~0u;
  if (order != ~0u) {
    atomicAdd(&positions[lane], rows_before(orders, warp * each, min(fours, (warp + 1) * each), i));
  }
  __syncthreads();
  const int count = min(num_valid, topk), position = positions[lane];
  nms.begin(batch, num, blockIdx.y * blockDim.x + t, count);
  if (blockIdx.y == 0 && t == 0) counts[batch] = num_valid;
  if (warp > 0 || order == ~0u) return;
  keys[first + position] = (uint64)order << 32 | i;
  if (position < count) {
    box_nms_store(nms, first + position, data + (int64)i * columns.width, columns, center);
  }
}

// All steps of at most kNmsBlockRows rows in one launch. Outputs as in box_nms_write. Grid (B), one
// warp or more for 32 rows: see nms_block_threads.
extern "C" __global__ void __launch_bounds__(1024, 1)
    box_nms_block(float* __restrict__ out, int* __restrict__ index, const float* __restrict__ data,
                  int num, int topk, const cvops::NmsColumns columns, float valid_thresh,
                  float background_id, const cvops::NmsRule rule, int conversion, int with_index) {
  using namespace cvops;
  wait_for_earlier_launches();
  static_assert(kNmsBlockRows % 4 == 0, "see rows_before");
  __shared__ uint4 orders[kNmsBlockRows / 4];
  __shared__ int positions[kNmsBlockRows], sources[kNmsBlockRows];
  __shared__ int comes_from[kNmsBlockRows];  // input row of each output row, or -1
  __shared__ NmsBlock nms;
  const int t = threadIdx.x, width = columns.width;
  data += (int64)blockIdx.x * num * width;
  out += (int64)blockIdx.x * num * width;
  const float* row = data + t * width;
  const bool valid = t < num && nms_is_valid(row, columns, valid_thresh, background_id);
  const int fours = (int)ceil_div(num, 4);
  if (t < 4 * fours) reinterpret_cast<uint32*>(orders)[t] = score_order(row, valid, columns);
  if (t < num) positions[t] = 0;
  const int count = min(__syncthreads_count(valid), topk);
  // The position of a row is the number of rows before it. A thread compares one row with a part.
  const int stride = 32 * (int)ceil_div(num, 32), parts = blockDim.x / stride;
  const int i = t % stride, part = t / stride, each = (int)ceil_div(fours, parts);
  if (i < num && part < parts && reinterpret_cast<const uint32*>(orders)[i] != ~0u) {
    atomicAdd(&positions[i], rows_before(orders, part * each, min(fours, (part + 1) * each), i));
  }
  __syncthreads();
  if (valid && positions[t] < count) {
    const int position = positions[t];
    sources[position] = t;
    nms.set(position, nms_box(row, columns, rule.center),
            columns.id < 0 ? 0 : truncated(row[columns.id]), rule);
  }
  __syncthreads();
  nms.suppress(count, rule);
  if (t < num) {
    const OutputRow to = nms.output_row(t, count);
    const int from = to.is_kept ? sources[t] : -1;
    comes_from[to.row] = from;
    if (with_index) index[(int64)blockIdx.x * num + to.row] = from;
  }
  __syncthreads();
  for (int k = t; k < num * width; k += blockDim.x) {
    const int from = comes_from[k / width];
    out[k] = from < 0 ? -1 : nms_converted(data + from * width, columns, conversion, k % width);
  }
}

// out (B, N, width): the kept rows in key order, then rows of -1. index (B, N): the input row of
// each output row, or -1; not written unless `with_index`. Grid (B, tiles). Each thread of a block
// first finds the destination of one row. Then the threads write these rows, adjacent numbers by
// adjacent threads.
extern "C" __global__ void __launch_bounds__(256, 4)
    box_nms_write(float* __restrict__ out, int* __restrict__ index, const float* __restrict__ data,
                  const unsigned long long* __restrict__ keys,
                  const unsigned long long* __restrict__ kept, const int* __restrict__ kept_before,
                  const int* __restrict__ counts, int num, int topk,
                  const cvops::NmsColumns columns, int conversion, int with_index) {
  cvops::wait_for_earlier_launches();
  cvops::write_rows(out, index, data, keys, kept, kept_before, counts, num, topk, columns,
                    conversion, with_index);
}

extern "C" __global__ void __launch_bounds__(256, 1)
    box_nms_write_f64(double* __restrict__ out, int* __restrict__ index,
                      const double* __restrict__ data, const unsigned long long* __restrict__ keys,
                      const unsigned long long* __restrict__ kept,
                      const int* __restrict__ kept_before, const int* __restrict__ counts, int num,
                      int topk, const cvops::NmsColumns columns, int conversion, int with_index) {
  cvops::wait_for_earlier_launches();
  cvops::write_rows(out, index, data, keys, kept, kept_before, counts, num, topk, columns,
                    conversion, with_index);
}

// out = data, with `rows` rows in sets of `num`.
extern "C" __global__ void __launch_bounds__(256)
    box_nms_copy(float* __restrict__ out, int* __restrict__ index, const float* __restrict__ data,
                 long long rows, int num, int width, int with_index) {
  cvops::wait_for_earlier_launches();
  cvops::copy_rows(out, index, data, rows, num, width, with_index);
}

extern "C" __global__ void __launch_bounds__(256, 1)
    box_nms_copy_f64(double* __restrict__ out, int* __restrict__ index,
                     const double* __restrict__ data, long long rows, int num, int width,
                     int with_index) {
  cvops::wait_for_earlier_launches();
  cvops::copy_rows(out, index, data, rows, num, width, with_index);
}

// sources (rows, stride): sets the first column to -1, which means no source.
extern "C" __global__ void __launch_bounds__(256)
    box_nms_backward_clear(int* __restrict__ sources, long long rows, long long stride) {
  using namespace cvops;
  wait_for_earlier_launches();
  const int64 threads = (int64)gridDim.x * blockDim.x;
  for (int64 row = blockIdx.x * (int64)blockDim.x + threadIdx.x; row < rows; row += threads) {
    sources[row * stride] = -1;
  }
}

// Inverse of index (rows, in sets of `num`). If several output rows name a row, the last one
// counts.
extern "C" __global__ void __launch_bounds__(256)
    box_nms_backward_invert(int* __restrict__ sources, const int* __restrict__ index,
                            long long rows, int num, long long stride) {
  using namespace cvops;
  wait_for_earlier_launches();
  const int64 threads = (int64)gridDim.x * blockDim.x;
  for (int64 row = blockIdx.x * (int64)blockDim.x + threadIdx.x; row < rows; row += threads) {
    const int at = index[row], i = (int)(row % num);
    if (at >= 0 && at < num) atomicMax(&sources[(row - i + at) * stride], i);
  }
}

// grad (rows, width), whose first column holds the inverse, from out_grad (rows, width). A block
// processes blockDim.x rows at a time.
extern "C" __global__ void __launch_bounds__(256)
    box_nms_backward(float* __restrict__ grad, const float* __restrict__ out_grad, long long rows,
                     int num, int width) {
  cvops::wait_for_earlier_launches();
  cvops::copy_gradients(grad, out_grad, rows, num, width);
}

extern "C" __global__ void __launch_bounds__(256, 1)
    box_nms_backward_f64(double* __restrict__ grad, const double* __restrict__ out_grad,
                         long long rows, int num, int width) {
  cvops::wait_for_earlier_launches();
  cvops::copy_gradients(grad, out_grad, rows, num, width);
}
#endif
