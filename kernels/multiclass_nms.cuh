// Kernels specific to multiclass_nms. Top-k: topk.cuh; sorting: sort.cuh; suppression: nms.cuh. A
// candidate is a pair of a class and a box. Its index is class * num_boxes + box. topk_sample and
// topk_collect list the candidates, unless all are few. The rest depends on `topk`:
//
// - Candidates for one block: multiclass_nms_block.
// - A tile of the sort: multiclass_nms_order -> nms_* -> multiclass_nms_write.
// - More: topk_select -> sort_* -> multiclass_nms_gather -> nms_* -> multiclass_nms_write.
#pragma once
#include "box.cuh"
#include "nms/block.cuh"
#include "nms/double_box.cuh"
#include "nms/rule.cuh"
#include "nms/score_filter.cuh"
#include "sort_key.cuh"

CVOPS_KERNEL multiclass_nms_gather(cvops::NmsBuffers nms, const float* boxes_in,
                                   const cvops::uint64* keys, const int* counts, int num_boxes,
                                   int topk, int center);
CVOPS_KERNEL multiclass_nms_order(cvops::NmsBuffers nms, cvops::uint64* sorted, int* counts,
                                  cvops::CandidateList candidates, const float* boxes_in,
                                  const float* scores, int num_classes, int num_boxes, int topk,
                                  cvops::ScoreFilter filter, int center);
CVOPS_KERNEL multiclass_nms_block(float* out, int* out_counts, cvops::CandidateList candidates,
                                  const float* boxes_in, const float* scores, int num_classes,
                                  int num_boxes, int topk, int rows, cvops::ScoreFilter filter,
                                  cvops::NmsRule rule);
CVOPS_KERNEL multiclass_nms_write(float* out, int* out_counts, const float* boxes_in,
                                  const float* scores, const cvops::uint64* keys,
                                  const cvops::uint64* kept, const int* kept_before,
                                  const int* counts, int num_classes, int num_boxes, int topk,
                                  int rows);
CVOPS_KERNEL multiclass_nms_score_f64(cvops::uint64* keys, int* tile_counts, const double* scores,
                                      int num, cvops::ScoreFilter filter);
CVOPS_KERNEL multiclass_nms_gather_f64(cvops::NmsBuffers nms, cvops::DoubleBox* boxes,
                                       const double* boxes_in, const cvops::uint64* keys,
                                       const int* counts, int num, int num_boxes, int topk,
                                       int center);
CVOPS_KERNEL multiclass_nms_write_f64(double* out, int* out_counts, const double* boxes_in,
                                      const double* scores, const cvops::uint64* keys,
                                      const cvops::uint64* kept, const int* kept_before,
                                      const int* counts, int num_classes, int num_boxes, int topk,
                                      int rows);

CVOPS_KERNEL multiclass_nms_clear(int* out_counts, int batch);

#ifdef __CUDACC__
namespace cvops {

__device__ __forceinline__ void store_row(float* row, int of_class, float score, Box b) {
  float2* at = reinterpret_cast<float2*>(row);
  at[0] = make_float2((float)of_class, score);
  at[1] = make_float2(b.x1, b.y1), at[2] = make_float2(b.x2, b.y2);
}
__device__ __forceinline__ void store_row(double* row, int of_class, double score,
                                          BoxOf<double> b) {
  double2* at = reinterpret_cast<double2*>(row);
  at[0] = make_double2(of_class, score);
  at[1] = make_double2(b.x1, b.y1), at[2] = make_double2(b.x2, b.y2);
}

// The box of a candidate.
__device__ __forceinline__ SizedBox candidate_box(const float* boxes_in, int batch, int index,
                                                  int num_boxes, int center) {
  return sized(load_box(boxes_in, (int64)batch * num_boxes + index % num_boxes), center);
}

// Writes a candidate, or a row of -1 if it is not kept. Rows beyond `rows` are left out.
template <typename T>
__device__ __forceinline__ void store_candidate(T* out, OutputRow to, int batch, int index,
                                                const T* boxes_in, const T* scores, int num_classes,
                                                int num_boxes, int rows) {
  if (to.row >= rows) return;
  T* const row = out + 6 * ((int64)batch * rows + to.row);
  if (!to.is_kept) return store_row(row, -1, T(-1), {T(-1), T(-1), T(-1), T(-1)});
  const int of_class = index / num_boxes;
  store_row(row, of_class, scores[(int64)batch * num_classes * num_boxes + index],
            load_box(boxes_in, (int64)batch * num_boxes + index - of_class * num_boxes));
}

// The keys and the buffers have rows of `num` candidates, of which at most `topk` take part.
template <typename T>
__device__ __forceinline__ void write_detections(
    T* __restrict__ out, int* __restrict__ out_counts, const T* __restrict__ boxes_in,
    const T* __restrict__ scores, const uint64* __restrict__ keys, const uint64* __restrict__ kept,
    const int* __restrict__ kept_before, const int* __restrict__ counts, int num, int num_classes,
    int num_boxes, int topk, int rows) {
  const int i = blockIdx.y * blockDim.x + threadIdx.x, batch = blockIdx.x;
  const int words = (int)ceil_div(num, 64);
  kept += (int64)batch * words;
  kept_before += (int64)batch * (words + 1);
  const int all_kept = kept_before[words];
  if (i == 0) out_counts[batch] = min(all_kept, rows);
  if (i >= topk) return;
  const int count = min(counts[batch], topk);
  const OutputRow to = output_row(kept, kept_before, i, count, all_kept);
  const int index = to.is_kept ? (int)index_of(keys[(int64)batch * num + i]) : 0;
  store_candidate(out, to, batch, index, boxes_in, scores, num_classes, num_boxes, rows);
}

}  // namespace cvops

// Boxes, areas and classes of the counts[b] candidates in key order; capacity `topk`. It also
// initializes the other buffers of nms.cuh. boxes_in (B, num_boxes, 4). Grid (B, tiles).
extern "C" __global__ void __launch_bounds__(256)
    multiclass_nms_gather(const cvops::NmsBuffers nms, const float* __restrict__ boxes_in,
                          const unsigned long long* __restrict__ keys,
                          const int* __restrict__ counts, int num_boxes, int topk, int center) {
  using namespace cvops;
  wait_for_earlier_launches();
  const int i = blockIdx.y * blockDim.x + threadIdx.x, batch = blockIdx.x, count = counts[batch];
  nms.begin(batch, topk, i, count);
  if (i >= count) return;
  const int64 at = (int64)batch * topk + i;
  const int index = (int)index_of(keys[at]);
  nms.store(at, candidate_box(boxes_in, batch, index, num_boxes, center), index / num_boxes);
}

// The best candidates of all scores in one launch, for topk <= kSortTile: sorted (B, topk): their
// keys in order; counts (B): their number; other outputs as in multiclass_nms_gather. Grid (B),
// 1024 threads.
extern "C" __global__ void __launch_bounds__(1024, 1)
    multiclass_nms_order(const cvops::NmsBuffers nms, unsigned long long* __restrict__ sorted,
                         int* __restrict__ counts, const cvops::CandidateList candidates,
                         const float* __restrict__ boxes_in, const float* __restrict__ scores,
                         int num_classes, int num_boxes, int topk, const cvops::ScoreFilter filter,
                         int center) {
  using namespace cvops;
  wait_for_earlier_launches();
  __shared__ BestKeys<kSortTile> keys;
  const int batch = blockIdx.x, t = threadIdx.x, num = num_classes * num_boxes;
  const int count = candidates.among(
      batch, scores + (int64)batch * num, num, topk, filter,
      [&](const auto& key_at, int among) { return keys.find(key_at, among, topk); });
  nms.begin(batch, topk, t, count);
  if (t == 0) counts[batch] = count;
  for (int i = t; i < count; i += blockDim.x) {
    const int64 at = (int64)batch * topk + i;
    const int index = (int)index_of(keys[i]);
    sorted[at] = keys[i];
    nms.store(at, candidate_box(boxes_in, batch, index, num_boxes, center), index / num_boxes);
  }
}

// The same with the suppression, for topk <= kNmsBlock. Outputs as in multiclass_nms_write. Grid
// (B), 1024 threads.
extern "C" __global__ void __launch_bounds__(1024, 1)
    multiclass_nms_block(float* __restrict__ out, int* __restrict__ out_counts,
                         const cvops::CandidateList candidates, const float* __restrict__ boxes_in,
                         const float* __restrict__ scores, int num_classes, int num_boxes, int topk,
                         int rows, const cvops::ScoreFilter filter, const cvops::NmsRule rule) {
  using namespace cvops;
  wait_for_earlier_launches();
  __shared__ NmsBlockMemory memory;
  NmsBlock& nms = memory.nms;
  const int batch = blockIdx.x, t = threadIdx.x, num = num_classes * num_boxes;
  const int count = candidates.among(
      batch, scores + (int64)batch * num, num, topk, filter,
      [&](const auto& key_at, int among) { return memory.keys.find(key_at, among, topk); });
  const int index = t < count ? (int)index_of(memory.keys[t]) : 0;
  __syncthreads();  // the boxes overwrite the keys
  if (t < count) {
    nms.set(t, candidate_box(boxes_in, batch, index, num_boxes, rule.center), index / num_boxes,
            rule);
  }
  __syncthreads();
  nms.suppress(count, rule);
  const OutputRow to = nms.output_row(t, count);
  const int all_kept = __syncthreads_count(to.is_kept);
  if (t == 0) out_counts[batch] = min(all_kept, rows);
  if (t < topk) {
    store_candidate(out, to, batch, index, boxes_in, scores, num_classes, num_boxes, rows);
  }
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
  cvops::wait_for_earlier_launches();
  cvops::write_detections(out, out_counts, boxes_in, scores, keys, kept, kept_before, counts, topk,
                          num_classes, num_boxes, topk, rows);
}

// Keys of the first sort of doubles: see nms_f64.cuh. keys (B, num); tile_counts: candidates per
// tile. Grid (B, tiles).
extern "C" __global__ void __launch_bounds__(256, 1)
    multiclass_nms_score_f64(unsigned long long* __restrict__ keys, int* __restrict__ tile_counts,
                             const double* __restrict__ scores, int num,
                             const cvops::ScoreFilter filter) {
  using namespace cvops;
  wait_for_earlier_launches();
  const int i = blockIdx.y * kCompactTile + threadIdx.x, batch = blockIdx.x;
  const int64 at = (int64)batch * num + i;
  const bool valid = i < num && filter.passes(scores[at], i);
  if (i < num) keys[at] = valid ? low_key(scores[at], i) : kNoKey;
  const int count = __syncthreads_count(valid);
  if (threadIdx.x == 0) tile_counts[(int64)batch * gridDim.y + blockIdx.y] = count;
}

// As multiclass_nms_gather, for boxes (B, num) of doubles and their bounds.
extern "C" __global__ void __launch_bounds__(256, 1)
    multiclass_nms_gather_f64(const cvops::NmsBuffers nms, cvops::DoubleBox* __restrict__ boxes,
                              const double* __restrict__ boxes_in,
                              const unsigned long long* __restrict__ keys,
                              const int* __restrict__ counts, int num, int num_boxes, int topk,
                              int center) {
  using namespace cvops;
  wait_for_earlier_launches();
  const int i = blockIdx.y * blockDim.x + threadIdx.x, batch = blockIdx.x;
  const int count = min(counts[batch], topk);
  nms.begin(batch, num, i, count);
  if (i >= count) return;
  const int64 at = (int64)batch * num + i;
  const int index = (int)index_of(keys[at]), of_class = index / num_boxes;
  const int64 from = (int64)batch * num_boxes + index - of_class * num_boxes;
  const DoubleBox box = sized(load_box(boxes_in, from), center);
  boxes[at] = box;
  nms.store(at, nms_bounds(box), of_class);
}

extern "C" __global__ void __launch_bounds__(256, 1)
    multiclass_nms_write_f64(double* __restrict__ out, int* __restrict__ out_counts,
                             const double* __restrict__ boxes_in, const double* __restrict__ scores,
                             const unsigned long long* __restrict__ keys,
                             const unsigned long long* __restrict__ kept,
                             const int* __restrict__ kept_before, const int* __restrict__ counts,
                             int num_classes, int num_boxes, int topk, int rows) {
  cvops::wait_for_earlier_launches();
  cvops::write_detections(out, out_counts, boxes_in, scores, keys, kept, kept_before, counts,
                          num_classes * num_boxes, num_classes, num_boxes, topk, rows);
}

// out_counts (B) = 0, for a result without rows.
extern "C" __global__ void __launch_bounds__(256)
    multiclass_nms_clear(int* __restrict__ out_counts, int batch) {
  cvops::wait_for_earlier_launches();
  const cvops::int64 i = blockIdx.x * (cvops::int64)blockDim.x + threadIdx.x;
  if (i < batch) out_counts[i] = 0;
}
#endif
