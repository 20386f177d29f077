// Kernels specific to multibox_detection. Sorting: sort.cuh; suppression: nms.cuh. Order:
// multibox_detection_score -> sort_* -> multibox_detection_gather -> nms_* ->
// multibox_detection_write. Without suppression only multibox_detection_score, sort_compact and
// multibox_detection_write.
#pragma once
#include "box.cuh"
#include "exp_log.cuh"
#include "nms/rule.cuh"
#include "sort_key.cuh"

namespace cvops {

struct Variances {
  float x, y, w, h;
};

// Clamp to [0, 1]; NaN gives 1.
CVOPS_HD float detection_clip(float x) {
  float below_one = x < 1 ? x : 1.0f;
  return below_one > 0 ? below_one : 0.0f;
}

// Box that `offsets` (x, y, width, height) describe relative to an anchor. The order of operations
// is MXNet's.
CVOPS_HD Box detection_box(Box anchor, Box offsets, Variances variances, bool clip) {
  float width = anchor.x2 - anchor.x1, height = anchor.y2 - anchor.y1;
  float x = offsets.x1 * variances.x * width + (anchor.x1 + anchor.x2) / 2;
  float y = offsets.y1 * variances.y * height + (anchor.y1 + anchor.y2) / 2;
  float half_width = exp_of(offsets.x2 * variances.w) * width / 2;
  float half_height = exp_of(offsets.y2 * variances.h) * height / 2;
  Box b = {x - half_width, y - half_height, x + half_width, y + half_height};
  if (clip) {
    b = {detection_clip(b.x1), detection_clip(b.y1), detection_clip(b.x2), detection_clip(b.y2)};
  }
  return b;
}

}  // namespace cvops

CVOPS_KERNEL multibox_detection_score(cvops::uint64* keys, int* ids, int* tile_counts,
                                      const float* cls_prob, int num_classes, int num,
                                      float threshold);
CVOPS_KERNEL multibox_detection_gather(cvops::NmsBuffers nms, const cvops::uint64* keys,
                                       const int* counts, const int* ids, const float* loc_pred,
                                       const float* anchors, int num, int topk,
                                       cvops::Variances variances, int clip);
CVOPS_KERNEL multibox_detection_write(float* out, const cvops::uint64* keys,
                                      const cvops::uint64* sorted, const cvops::uint64* kept,
                                      const float* boxes, const int* counts, const int* ids,
                                      const float* cls_prob, const float* loc_pred,
                                      const float* anchors, int num_classes, int num, int topk,
                                      int cuts, cvops::Variances variances, int clip);

#ifdef __CUDACC__
// Best class of each anchor: ids (B, A), where 0 is the first class after the background; keys (B,
// A) of the anchors above the threshold; tile_counts: their number per tile. cls_prob (B, C, A).
// Grid (B, tiles).
extern "C" __global__ void __launch_bounds__(256)
    multibox_detection_score(unsigned long long* __restrict__ keys, int* __restrict__ ids,
                             int* __restrict__ tile_counts, const float* __restrict__ cls_prob,
                             int num_classes, int num, float threshold) {
  using namespace cvops;
  const int i = blockIdx.y * kCompactTile + threadIdx.x, batch = blockIdx.x;
  float score = -1;
  int id = -1;
  if (i < num) {
    const float* prob = cls_prob + (int64)batch * num_classes * num + i;
#pragma unroll 4
    for (int c = 1; c < num_classes; ++c) {
      float p = prob[(int64)c * num];
      if (p > score) score = p, id = c - 1;
    }
  }
  const bool valid = id >= 0 && !(score < threshold);
  if (i < num) {
    keys[(int64)batch * num + i] = valid ? sort_key(score, i) : kNoKey;
    ids[(int64)batch * num + i] = id;
  }
  const int count = __syncthreads_count(valid);
  if (threadIdx.x == 0) tile_counts[(int64)batch * gridDim.y + blockIdx.y] = count;
}

// Boxes, areas and classes of the first min(counts[b], limit) anchors in key order. It also
// initializes the other buffers of nms.cuh. Grid (B, tiles).
extern "C" __global__ void __launch_bounds__(256)
    multibox_detection_gather(const cvops::NmsBuffers nms,
                              const unsigned long long* __restrict__ keys,
                              const int* __restrict__ counts, const int* __restrict__ ids,
                              const float* __restrict__ loc_pred, const float* __restrict__ anchors,
                              int num, int topk, const cvops::Variances variances, int clip) {
  using namespace cvops;
  const int i = blockIdx.y * blockDim.x + threadIdx.x, batch = blockIdx.x;
  const int count = min(counts[batch], topk);
  nms.begin(batch, num, i, count);
  if (i >= count) return;
  const int64 at = (int64)batch * num + i;
  const int anchor = index_of(keys[at]);
  const Box offsets = load_box(loc_pred, (int64)batch * num + anchor);
  const Box b = detection_box(load_box(anchors, anchor), offsets, variances, clip);
  nms.store(at, {b, signed_area(b)}, ids[(int64)batch * num + anchor]);
}

// out (B, A, 6). The first `topk` of the counts[b] anchors of an image are in key order.
// Suppressed ones have class -1. The other anchors follow in anchor order (in MXNet, the rows
// before the sort). Their class is -1 if `cuts`. Rows of -1 fill the rest. Without suppression,
// `topk` and `cuts` are 0: all anchors are in anchor order with their class. sorted, kept and
// boxes are then not read.
extern "C" __global__ void __launch_bounds__(256)
    multibox_detection_write(float* __restrict__ out, const unsigned long long* __restrict__ keys,
                             const unsigned long long* __restrict__ sorted,
                             const unsigned long long* __restrict__ kept,
                             const float* __restrict__ boxes, const int* __restrict__ counts,
                             const int* __restrict__ ids, const float* __restrict__ cls_prob,
                             const float* __restrict__ loc_pred, const float* __restrict__ anchors,
                             int num_classes, int num, int topk, int cuts,
                             const cvops::Variances variances, int clip) {
  using namespace cvops;
  const int i = blockIdx.y * blockDim.x + threadIdx.x, batch = blockIdx.x;
  if (i >= num) return;
  const int64 at = (int64)batch * num + i;
  float id = -1, score = -1;
  Box b = {-1, -1, -1, -1};
  if (i < counts[batch]) {
    const bool in_order = i < topk;
    const int anchor = index_of(in_order ? sorted[at] : keys[at]);
    const int best = ids[(int64)batch * num + anchor];
    const bool is_kept =
        in_order ? kept[batch * ceil_div(num, 64) + i / 64] >> (i % 64) & 1 : !cuts;
    if (is_kept) id = (float)best;
    score = cls_prob[((int64)batch * num_classes + best + 1) * num + anchor];
    if (in_order) {
      b = load_box(boxes, at);
    } else {
      const Box offsets = load_box(loc_pred, (int64)batch * num + anchor);
      b = detection_box(load_box(anchors, anchor), offsets, variances, clip);
    }
  }
  float2* row = reinterpret_cast<float2*>(out) + 3 * at;  // 24 bytes, aligned to 8
  row[0] = make_float2(id, score);
  row[1] = make_float2(b.x1, b.y1);
  row[2] = make_float2(b.x2, b.y2);
}
#endif
