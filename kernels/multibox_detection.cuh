// Kernels specific to multibox_detection. Sorting: sort.cuh; suppression: nms.cuh. Anchors for one
// block: multibox_detection_block. Otherwise multibox_detection_score, the order and the
// suppression, then multibox_detection_write. Between them are, depending on `topk`:
//
// - Anchors for one block: multibox_detection_suppress.
// - A tile of the sort: multibox_detection_order -> nms_*.
// - More: sort_* -> multibox_detection_gather -> nms_*.
//
// Rows beyond `topk`, and all rows without suppression, also need sort_compact.
#pragma once
#include "box.cuh"
#include "exp_log.cuh"
#include "nms/block.cuh"
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
CVOPS_KERNEL multibox_detection_order(cvops::NmsBuffers nms, cvops::uint64* sorted, int* counts,
                                      const cvops::uint64* keys, int uncounted, const int* ids,
                                      const float* loc_pred, const float* anchors, int num,
                                      int topk, cvops::Variances variances, int clip);
CVOPS_KERNEL multibox_detection_suppress(cvops::NmsBuffers nms, cvops::uint64* sorted, int* counts,
                                         const cvops::uint64* keys, int uncounted, const int* ids,
                                         const float* loc_pred, const float* anchors, int num,
                                         int topk, cvops::Variances variances, int clip,
                                         cvops::NmsRule rule);
CVOPS_KERNEL multibox_detection_block(float* out, const float* cls_prob, const float* loc_pred,
                                      const float* anchors, int num_classes, int num, int topk,
                                      float threshold, cvops::Variances variances, int clip,
                                      cvops::NmsRule rule);
CVOPS_KERNEL multibox_detection_write(float* out, const cvops::uint64* keys,
                                      const cvops::uint64* sorted, const cvops::uint64* kept,
                                      const float* boxes, const int* counts, const int* ids,
                                      const float* cls_prob, const float* loc_pred,
                                      const float* anchors, int num_classes, int num, int topk,
                                      int cuts, cvops::Variances variances, int clip);

#ifdef __CUDACC__
namespace cvops {

// A class after the background, or -1, and its score.
struct BestClass {
  int id;
  float score;

  __device__ __forceinline__ bool is_candidate(float threshold) const {
    return id >= 0 && !(score < threshold);
  }
};

// Best class of an anchor: the first one with the largest score. prob (num_classes, num) begins at
// the anchor.
__device__ __forceinline__ BestClass best_class(const float* __restrict__ prob, int num_classes,
                                                int num) {
  BestClass best = {-1, -1};
#pragma unroll 4
  for (int c = 1; c < num_classes; ++c) {
    float p = prob[(int64)c * num];
    if (p > best.score) best = {c - 1, p};
  }
  return best;
}

// Box of an anchor in image `batch`.
__device__ __forceinline__ Box anchor_box(const float* __restrict__ loc_pred,
                                          const float* __restrict__ anchors, int batch, int num,
                                          int anchor, const Variances& variances, int clip) {
  const Box offsets = load_box(loc_pred, (int64)batch * num + anchor);
  return detection_box(load_box(anchors, anchor), offsets, variances, clip);
}

// Writes row i of all rows (24 bytes, aligned to 8).
__device__ __forceinline__ void store_detection(float* out, int64 i, float id, float score, Box b) {
  float2* row = reinterpret_cast<float2*>(out) + 3 * i;
  row[0] = make_float2(id, score);
  row[1] = make_float2(b.x1, b.y1);
  row[2] = make_float2(b.x2, b.y2);
}

// Sorts the best `topk` keys of an image and returns their number. keys (B, N): the first counts[b]
// of an image, or `uncounted` keys with kNoKey among them. counts[b] then becomes the result.
template <int kMost>
__device__ __forceinline__ int order_anchors(BestKeys<kMost>& best, int* counts, const uint64* keys,
                                             int uncounted, int num, int topk) {
  const int batch = blockIdx.x;
  keys += (int64)batch * num;
  const auto key_at = [&](int i) { return keys[i]; };
  const int count = best.find(key_at, uncounted ? uncounted : counts[batch], topk);
  if (uncounted && threadIdx.x == 0) counts[batch] = count;
  return count;
}

}  // namespace cvops

// Best class of each anchor: ids (B, A), where 0 is the first class after the background; keys (B,
// A) of the anchors above the threshold; tile_counts: their number per tile. cls_prob (B, C, A).
// Grid (B, tiles).
extern "C" __global__ void __launch_bounds__(256)
    multibox_detection_score(unsigned long long* __restrict__ keys, int* __restrict__ ids,
                             int* __restrict__ tile_counts, const float* __restrict__ cls_prob,
                             int num_classes, int num, float threshold) {
  using namespace cvops;
  wait_for_earlier_launches();
  const int i = blockIdx.y * kCompactTile + threadIdx.x, batch = blockIdx.x;
  BestClass best = {-1, -1};
  if (i < num) {
    best = best_class(cls_prob + (int64)batch * num_classes * num + i, num_classes, num);
  }
  const bool valid = best.is_candidate(threshold);
  if (i < num) {
    keys[(int64)batch * num + i] = valid ? sort_key(best.score, i) : kNoKey;
    ids[(int64)batch * num + i] = best.id;
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
  wait_for_earlier_launches();
  const int i = blockIdx.y * blockDim.x + threadIdx.x, batch = blockIdx.x;
  const int count = min(counts[batch], topk);
  nms.begin(batch, num, i, count);
  if (i >= count) return;
  const int64 at = (int64)batch * num + i;
  const int anchor = index_of(keys[at]);
  const Box b = anchor_box(loc_pred, anchors, batch, num, anchor, variances, clip);
  nms.store(at, {b, signed_area(b)}, ids[(int64)batch * num + anchor]);
}

// The best anchors in one launch, for topk <= kSortTile. keys (B, N), uncounted: see order_anchors.
// sorted (B, N): the keys in order; counts (B); other outputs as in multibox_detection_gather. Grid
// (B), 1024 threads.
extern "C" __global__ void __launch_bounds__(1024, 1)
    multibox_detection_order(const cvops::NmsBuffers nms, unsigned long long* __restrict__ sorted,
                             int* __restrict__ counts, const unsigned long long* __restrict__ keys,
                             int uncounted, const int* __restrict__ ids,
                             const float* __restrict__ loc_pred, const float* __restrict__ anchors,
                             int num, int topk, const cvops::Variances variances, int clip) {
  using namespace cvops;
  wait_for_earlier_launches();
  __shared__ BestKeys<kSortTile> best;
  const int batch = blockIdx.x, t = threadIdx.x;
  const int count = order_anchors(best, counts, keys, uncounted, num, topk);
  for (int i = t; i < ceil_div(num, 32); i += blockDim.x) nms.begin(batch, num, i, count);
  for (int i = t; i < count; i += blockDim.x) {
    const int64 at = (int64)batch * num + i;
    const int anchor = (int)index_of(best[i]);
    const Box b = anchor_box(loc_pred, anchors, batch, num, anchor, variances, clip);
    sorted[at] = best[i];
    nms.store(at, {b, signed_area(b)}, ids[(int64)batch * num + anchor]);
  }
}

// The same with the suppression, for topk <= kNmsBlock. Of `nms` it writes the boxes and the words
// of `kept` of the sorted anchors.
extern "C" __global__ void __launch_bounds__(1024, 1) multibox_detection_suppress(
    const cvops::NmsBuffers nms, unsigned long long* __restrict__ sorted, int* __restrict__ counts,
    const unsigned long long* __restrict__ keys, int uncounted, const int* __restrict__ ids,
    const float* __restrict__ loc_pred, const float* __restrict__ anchors, int num, int topk,
    const cvops::Variances variances, int clip, const cvops::NmsRule rule) {
  using namespace cvops;
  wait_for_earlier_launches();
  __shared__ NmsBlockMemory memory;
  const int batch = blockIdx.x, t = threadIdx.x;
  const int64 at = (int64)batch * num + t;
  const int count = order_anchors(memory.keys, counts, keys, uncounted, num, topk);
  const uint64 key = t < count ? memory.keys[t] : kNoKey;
  __syncthreads();  // the boxes overwrite the keys
  if (t < count) {
    const int anchor = (int)index_of(key);
    const Box b = anchor_box(loc_pred, anchors, batch, num, anchor, variances, clip);
    sorted[at] = key;
    store_box(nms.boxes, at, b);
    memory.nms.set(t, {b, signed_area(b)}, ids[(int64)batch * num + anchor], rule);
  }
  __syncthreads();
  memory.nms.suppress(count, rule);
  if (t < ceil_div(count, 64)) nms.kept[batch * ceil_div(num, 64) + t] = memory.nms.kept_word(t);
}

// All steps of at most kNmsBlock anchors in one launch. out: as in multibox_detection_write. Grid
// (B), one warp or more for 32 anchors: see nms_block_threads.
extern "C" __global__ void __launch_bounds__(1024, 1)
    multibox_detection_block(float* __restrict__ out, const float* __restrict__ cls_prob,
                             const float* __restrict__ loc_pred, const float* __restrict__ anchors,
                             int num_classes, int num, int topk, float threshold,
                             const cvops::Variances variances, int clip,
                             const cvops::NmsRule rule) {
  using namespace cvops;
  wait_for_earlier_launches();
  __shared__ NmsBlockMemory memory;
  __shared__ int ids[kNmsBlock];         // of the anchors
  __shared__ int candidates[kNmsBlock];  // anchors of the candidates, in anchor order
  __shared__ uint32 valid[NmsBlock::kWords];
  const int batch = blockIdx.x, t = threadIdx.x, lane = t % 32, warp = t / 32;
  cls_prob += (int64)batch * num_classes * num;
  BestClass best = {-1, -1};
  if (t < num) best = best_class(cls_prob + t, num_classes, num);
  const bool is_candidate = best.is_candidate(threshold);
  const uint32 here = __ballot_sync(kWarp, is_candidate);
  if (lane == 0 && warp < NmsBlock::kWords) valid[warp] = here;
  if (t < num) {
    ids[t] = best.id;
    memory.keys[t] = is_candidate ? sort_key(best.score, t) : kNoKey;
  }
  const int all = __syncthreads_count(is_candidate), count = min(all, topk);
  if (is_candidate) {
    int before = lanes_before(here, lane);
    for (int w = 0; w < warp; ++w) before += __popc(valid[w]);
    candidates[before] = t;
  }
  memory.keys.sort(num);
  int anchor = t < count ? (int)index_of(memory.keys[t]) : t < all ? candidates[t] : -1;
  __syncthreads();  // the boxes overwrite the keys
  float id = -1, score = -1;
  Box b = {-1, -1, -1, -1};
  if (anchor >= 0) {
    b = anchor_box(loc_pred, anchors, batch, num, anchor, variances, clip);
    score = cls_prob[(int64)(ids[anchor] + 1) * num + anchor];
    if (t < count) memory.nms.set(t, {b, signed_area(b)}, ids[anchor], rule);
  }
  __syncthreads();
  memory.nms.suppress(count, rule);
  if (t >= num) return;
  if (memory.nms.is_kept(t, count)) id = (float)ids[anchor];
  store_detection(out, (int64)batch * num + t, id, score, b);
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
  wait_for_earlier_launches();
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
    b = in_order ? load_box(boxes, at)
                 : anchor_box(loc_pred, anchors, batch, num, anchor, variances, clip);
  }
  store_detection(out, at, id, score, b);
}
#endif
