// Kernels specific to multiclass_nms. Top-k: topk.cuh; sorting: sort.cuh; suppression: nms.cuh.
// Order: topk_* -> sort_* -> multiclass_nms_gather -> nms_* -> multiclass_nms_write. A candidate
// is a pair of a class and a box. Its index is class * num_boxes + box.
#pragma once
#include "box.cuh"
#include "nms/rule.cuh"
#include "sort_key.cuh"

CVOPS_KERNEL multiclass_nms_gather(cvops::NmsBuffers nms, const float* boxes_in,
                                   const cvops::uint64* keys, const int* counts, int num_boxes,
                                   int topk, int center);
CVOPS_KERNEL multiclass_nms_write(float* out, int* out_counts, const float* boxes_in,
                                  const float* scores, const cvops::uint64* keys,
                                  const cvops::uint64* kept, const int* kept_before,
                                  const int* counts, int num_classes, int num_boxes, int topk,
                                  int rows);

CVOPS_KERNEL multiclass_nms_clear(int* out_counts, int batch);

#ifdef __CUDACC__
// Boxes, areas and classes of the counts[b] candidates in key order; capacity `topk`. It also
// initializes the other buffers of nms.cuh. boxes_in (B, num_boxes, 4). Grid (B, tiles).
extern "C" __global__ void __launch_bounds__(256)
    multiclass_nms_gather(const cvops::NmsBuffers nms, const float* __restrict__ boxes_in,
                          const unsigned long long* __restrict__ keys,
                          const int* __restrict__ counts, int num_boxes, int topk, int center) {
  using namespace cvops;
  const int i = blockIdx.y * blockDim.x + threadIdx.x, batch = blockIdx.x, count = counts[batch];
  nms.begin(batch, topk, i, count);
  if (i >= count) return;
  const int64 at = (int64)batch * topk + i;
  const int index = (int)index_of(keys[at]), of_class = index / num_boxes;
  const int64 from = (int64)batch * num_boxes + index - of_class * num_boxes;
  nms.store(at, sized(load_box(boxes_in, from), center), of_class);
}

// out (B, rows, 6): the first kept candidates in key order, then rows of -1; out_counts (B): number
// of kept candidates, at most `rows`. A thread writes one row. Grid (B, tiles of `topk`, at least
// 1).
extern "C" __global__ void __launch_bounds__(256)
    multiclass_nms_write(float* __restrict__ out, int* __restrict__ out_counts,
                         const float* __restrict__ boxes_in, const float* __restrict__ scores,
                         const unsigned long long* __restrict__ keys,
                         const unsigned long long* __restrict__ kept,
                         const int* __restrict__ kept_before, const int* __restrict__ counts,
                         int num_classes, int num_boxes, int topk, int rows) {
  using namespace cvops;
  const int i = blockIdx.y * blockDim.x + threadIdx.x, batch = blockIdx.x;
  const int words = (int)ceil_div(topk, 64);
  kept += (int64)batch * words;
  kept_before += (int64)batch * (words + 1);
  const int all_kept = kept_before[words];
  if (i == 0) out_counts[batch] = min(all_kept, rows);
  if (i >= topk) return;
  const auto [to, is_kept] = output_row(kept, kept_before, i, counts[batch], all_kept);
  if (to >= rows) return;
  float2 row[3] = {make_float2(-1, -1), make_float2(-1, -1), make_float2(-1, -1)};
  if (is_kept) {
    const int index = (int)index_of(keys[(int64)batch * topk + i]), of_class = index / num_boxes;
    const Box b = load_box(boxes_in, (int64)batch * num_boxes + index - of_class * num_boxes);
    const float score = scores[(int64)batch * num_classes * num_boxes + index];
    row[0] = make_float2((float)of_class, score);
    row[1] = make_float2(b.x1, b.y1), row[2] = make_float2(b.x2, b.y2);
  }
  float2* at = reinterpret_cast<float2*>(out) + 3 * ((int64)batch * rows + to);
  for (int k = 0; k < 3; ++k) at[k] = row[k];
}

// out_counts (B) = 0, for a result without rows.
extern "C" __global__ void __launch_bounds__(256)
    multiclass_nms_clear(int* __restrict__ out_counts, int batch) {
  const cvops::int64 i = blockIdx.x * (cvops::int64)blockDim.x + threadIdx.x;
  if (i < batch) out_counts[i] = 0;
}
#endif
