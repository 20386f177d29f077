// soft_nms: a kept box lowers the scores of the boxes that it overlaps, instead of suppressing
// them. Candidates: box_nms.cuh.
//
// The algorithm is sequential: each step keeps the candidate with the highest score, then lowers
// the scores of the others. One block per set takes all steps, without a launch or a wait for
// other blocks. A step is one pass over the candidates and one barrier. The pass lowers the scores
// and finds the next candidate.
#pragma once
#include "exp_log.cuh"
#include "nms/rows.cuh"
#include "nms/rule.cuh"
#include "sort_key.cuh"
#include "warp.cuh"

namespace cvops {

// The factor of a score is 1 - iou if the IoU is above the threshold, or exp(-iou^2 / sigma) if
// `gaussian`.
struct SoftNms {
  float threshold, sigma;
  int gaussian, by_class, center;
};

// Factor of the score of a candidate that overlaps a kept box of its class. It is 1 for a NaN.
CVOPS_HD float soft_nms_factor(float iou, SoftNms op) {
  const float linear = iou > op.threshold ? 1.0f - iou : 1.0f;
  const float factor = op.gaussian ? exp_of(-(iou * iou) / op.sigma) : linear;
  return iou == iou ? factor : 1.0f;
}

}  // namespace cvops

CVOPS_KERNEL soft_nms(float* out, int* index, cvops::uint64* keys, cvops::NmsBuffers nms,
                      const float* data, int num, int rows, cvops::NmsColumns columns,
                      cvops::SoftNms op, float valid_thresh, int with_index);

#ifdef __CUDACC__
namespace cvops {

constexpr int kSoftNmsThreads = 1024;

}  // namespace cvops

// out (B, rows, width): the kept rows with their last scores, in order, then rows of -1. index (B,
// rows): their rows in data, or -1; not written unless `with_index`. keys (B, N): the keys of the
// counts[b] candidates, which are overwritten. nms: their boxes, areas and classes. Grid (B).
extern "C" __global__ void __launch_bounds__(1024, 1)
    soft_nms(float* __restrict__ out, int* __restrict__ index,
             unsigned long long* __restrict__ keys, const cvops::NmsBuffers nms,
             const float* __restrict__ data, int num, int rows, const cvops::NmsColumns columns,
             const cvops::SoftNms op, float valid_thresh, int with_index) {
  using namespace cvops;
  wait_for_earlier_launches();
  // Two buffers: a warp may write the next step's key while another one reads this step's.
  __shared__ uint64 best_of_warp[2][kSoftNmsThreads / 32];
  const int batch = blockIdx.x, t = threadIdx.x, lane = t % 32, warp = t / 32;
  const int width = columns.width, count = nms.counts[batch];
  const int64 first = (int64)batch * num;
  const float *const boxes = nms.boxes + 4 * first, *const areas = nms.areas + first;
  const int* const classes = nms.classes + first;
  keys += first;
  data += first * width;
  out += (int64)batch * rows * width;
  index += (int64)batch * rows;
  uint64 mine = kNoKey;
  for (int i = t; i < count; i += kSoftNmsThreads) mine = keys[i] < mine ? keys[i] : mine;
  int row = 0;
  for (; row < rows; ++row) {
    uint64* const best_of = best_of_warp[row % 2];
    mine = ~warp_max(~mine);
    if (lane == 0) best_of[warp] = mine;
    __syncthreads();
    const uint64 best = ~warp_max(~best_of[lane]);
    if (best == kNoKey) break;
    const int from = (int)index_of(best);
    const float* const kept_row = data + (int64)from * width;
    for (int c = t; c < width; c += kSoftNmsThreads) {
      out[(int64)row * width + c] = c == columns.score ? score_of(best) : kept_row[c];
    }
    if (with_index && t == 0) index[row] = from;
    const SizedBox kept = nms_box(kept_row, columns, op.center);
    const int of_class = op.by_class ? truncated(kept_row[columns.id]) : 0;
    mine = kNoKey;
    for (int i = t; i < count; i += kSoftNmsThreads) {
      uint64 key = keys[i];
      if (key == kNoKey) continue;
      if (key == best) {
        key = keys[i] = kNoKey;
      } else if (!op.by_class || classes[i] == of_class) {
        const float score = score_of(key);
        const SizedBox other = {load_box(boxes, i), areas[i]};
        const float overlap = intersection(kept.box, other.box, op.center);
        float now = score;
        if (overlap > 0) {
          now *= soft_nms_factor(overlap / (kept.area + other.area - overlap), op);
        }
        if (now != score) {
          key = keys[i] = now > valid_thresh ? sort_key(now, index_of(key)) : kNoKey;
        }
      }
      mine = key < mine ? key : mine;
    }
  }
  for (int64 k = (int64)row * width + t; k < (int64)rows * width; k += kSoftNmsThreads) out[k] = -1;
  for (int r = row + t; with_index && r < rows; r += kSoftNmsThreads) index[r] = -1;
}
#endif
