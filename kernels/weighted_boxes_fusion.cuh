// weighted_boxes_fusion: boxes that overlap become one box, their mean weighted by their scores.
// Candidates: box_nms.cuh; sorting: sort.cuh. Order: candidates -> weighted_boxes_fusion -> sort_*
// -> weighted_boxes_fusion_write.
//
// The algorithm is sequential: each candidate, in the order of scores, joins the cluster whose
// fused box has the highest IoU with it, or begins a cluster. One block per set takes all steps. A
// step is one pass over the clusters and one barrier. The thread that compares a cluster also
// changes it, so that no other thread reads a change.
#pragma once
#include "nms/rows.cuh"
#include "nms/rule.cuh"
#include "sort_key.cuh"
#include "warp.cuh"

namespace cvops {

struct BoxFusion {
  float threshold;
  int num_models;
  int best_score;  // the score of a cluster is the highest one, not the mean
  int by_class, center;
};

// The sums of a cluster: coordinates weighted by scores, scores, boxes.
struct FusionSums {
  Box weighted;
  float score;
  int count;
};

CVOPS_HD FusionSums fusion_sums(Box b, float score) {
  return {{score * b.x1, score * b.y1, score * b.x2, score * b.y2}, score, 1};
}

CVOPS_HD FusionSums operator+(const FusionSums& a, const FusionSums& b) {
  return {{a.weighted.x1 + b.weighted.x1, a.weighted.y1 + b.weighted.y1,
           a.weighted.x2 + b.weighted.x2, a.weighted.y2 + b.weighted.y2},
          a.score + b.score,
          a.count + b.count};
}

// The box of a row, in the format of the input.
CVOPS_HD Box row_box(const float* row, const NmsColumns& columns) {
  const float* c = row + columns.coord;
  return {c[0], c[1], c[2], c[3]};
}

// The fused box of a cluster of two boxes or more, in the format of the input.
CVOPS_HD Box fused_box(const FusionSums& sums) {
  return {sums.weighted.x1 / sums.score, sums.weighted.y1 / sums.score,
          sums.weighted.x2 / sums.score, sums.weighted.y2 / sums.score};
}

// IoU of the fused box of a cluster and a candidate.
CVOPS_HD float fusion_iou(const SizedBox& fused, const SizedBox& b, const BoxFusion& op) {
  const float overlap = intersection(fused.box, b.box, op.center);
  return overlap / (fused.area + b.area - overlap);
}

// The score of a cluster. `best` is its highest score.
CVOPS_HD float fusion_score(const FusionSums& sums, float best, const BoxFusion& op) {
  const float score = op.best_score ? best : sums.score / (float)sums.count;
  const int models = sums.count < op.num_models ? sums.count : op.num_models;
  return score * (float)models / (float)op.num_models;
}

// The clusters of each set, in the order of their first boxes. Their fused boxes are in the boxes,
// areas and classes of NmsBuffers: cluster i takes the place of candidate i, which no step needs
// any more.
struct FusionBuffers {
  float* weighted;           // (B, N, 4)
  float* scores;             // (B, N)
  int *members, *first_row;  // (B, N): number of boxes; row of the first box in data
  uint64* keys;              // (B, N): the keys of the scores of the clusters
};

}  // namespace cvops

CVOPS_KERNEL weighted_boxes_fusion(cvops::FusionBuffers clusters, int* counts,
                                   const cvops::uint64* sorted, cvops::NmsBuffers nms,
                                   const float* data, int num, cvops::NmsColumns columns,
                                   cvops::BoxFusion op);
CVOPS_KERNEL weighted_boxes_fusion_write(float* out, const float* data, const cvops::uint64* sorted,
                                         const int* counts, const float* boxes,
                                         const int* first_row, int num, int rows,
                                         cvops::NmsColumns columns);

#ifdef __CUDACC__
namespace cvops {

constexpr int kFusionThreads = 1024;

}  // namespace cvops

// clusters, and counts (B): their number. sorted (B, N): the keys of the nms.counts[b] candidates.
// nms: their boxes, areas and classes; then boxes has the fused boxes in the format of the input.
// Grid (B).
extern "C" __global__ void __launch_bounds__(1024, 1)
    weighted_boxes_fusion(const cvops::FusionBuffers clusters, int* __restrict__ counts,
                          const unsigned long long* __restrict__ sorted,
                          const cvops::NmsBuffers nms, const float* __restrict__ data, int num,
                          const cvops::NmsColumns columns, const cvops::BoxFusion op) {
  using namespace cvops;
  wait_for_earlier_launches();
  // Two buffers: a warp may write the next step's key while another one reads this step's.
  __shared__ uint64 best_of_warp[2][kFusionThreads / 32];
  const int batch = blockIdx.x, t = threadIdx.x, lane = t % 32, warp = t / 32;
  const int64 begin = (int64)batch * num;
  const int count = nms.counts[batch];
  sorted += begin;
  data += begin * columns.width;
  int found = 0;  // clusters
  for (int i = 0; i < count; ++i) {
    const SizedBox own = {load_box(nms.boxes, begin + i), nms.areas[begin + i]};
    const int of_class = op.by_class ? nms.classes[begin + i] : 0;
    float most = op.threshold;
    int best = -1;
    for (int c = t; c < found; c += kFusionThreads) {
      const SizedBox fused = {load_box(nms.boxes, begin + c), nms.areas[begin + c]};
      const float iou = fusion_iou(fused, own, op);
      if (!(iou > most) || (op.by_class && nms.classes[begin + c] != of_class)) continue;
      most = iou, best = c;
    }
    // The highest IoU, then the lowest cluster; 0 for none.
    uint64 key = best < 0 ? 0 : (uint64)bits_of(most) << 32 | ~(uint32)best;
    key = warp_max(key);
    uint64* const best_of = best_of_warp[i % 2];
    if (lane == 0) best_of[warp] = key;
    __syncthreads();
    key = warp_max(best_of[lane]);
    const int to = key ? (int)~(uint32)key : found;
    found += key == 0;
    if (to % kFusionThreads != t) continue;
    const int row = (int)index_of(sorted[i]);
    const int64 at = begin + to;
    Box box = row_box(data + (int64)row * columns.width, columns);
    FusionSums sums = fusion_sums(box, score_of(sorted[i]));
    if (key) {
      const FusionSums before = {load_box(clusters.weighted, at), clusters.scores[at],
                                 clusters.members[at]};
      sums = before + sums;
      box = fused_box(sums);
    } else {
      clusters.first_row[at] = row;
    }
    store_box(clusters.weighted, at, sums.weighted);
    clusters.scores[at] = sums.score, clusters.members[at] = sums.count;
    nms.store(at, sized(box, op.center), of_class);
  }
  // No step reads another thread's cluster, nor do these.
  for (int c = t; c < found; c += kFusionThreads) {
    const int64 at = begin + c;
    const FusionSums sums = {load_box(clusters.weighted, at), clusters.scores[at],
                             clusters.members[at]};
    const float* row = data + (int64)clusters.first_row[at] * columns.width;
    const float best = row[columns.score];
    store_box(nms.boxes, at, sums.count > 1 ? fused_box(sums) : row_box(row, columns));
    clusters.keys[at] = sort_key(fusion_score(sums, best, op), (uint32)c);
  }
  if (t == 0) counts[batch] = found;
}

// out (B, rows, width): the clusters of the first counts[b] keys: the row of the first box with the
// fused box, and with the score of the key; then rows of -1. Grid (B, tiles).
extern "C" __global__ void __launch_bounds__(256)
    weighted_boxes_fusion_write(float* __restrict__ out, const float* __restrict__ data,
                                const unsigned long long* __restrict__ sorted,
                                const int* __restrict__ counts, const float* __restrict__ boxes,
                                const int* __restrict__ first_row, int num, int rows,
                                const cvops::NmsColumns columns) {
  using namespace cvops;
  wait_for_earlier_launches();
  const int batch = blockIdx.x, count = counts[batch], width = columns.width;
  const int64 begin = (int64)batch * num, elements = (int64)rows * width;
  out += batch * elements;
  const int64 threads = (int64)gridDim.y * blockDim.x;
  for (int64 k = blockIdx.y * (int64)blockDim.x + threadIdx.x; k < elements; k += threads) {
    const int row = (int)(k / width), c = (int)(k - (int64)row * width);
    if (row >= count) {
      out[k] = -1;
      continue;
    }
    const uint64 key = sorted[begin + row];
    const int64 at = begin + index_of(key);
    const int axis = c - columns.coord;
    out[k] = c == columns.score      ? score_of(key)
             : 0 <= axis && axis < 4 ? boxes[4 * at + axis]
                                     : data[(begin + first_row[at]) * width + c];
  }
}
#endif
