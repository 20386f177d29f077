// Suppression of boxes of doubles in descending score order: see nms/exact.cuh. The bounds are
// floats.
//
// A sort key has no room for a double and an index. The keys are sorted twice: by the low half of
// the order of their scores, then by the high half. The second sort keeps the order of the first.
#pragma once
#include "nms/double_box.cuh"
#include "nms/exact.cuh"

CVOPS_KERNEL nms_f64_high_keys(cvops::uint64* keys, const cvops::uint64* sorted,
                               cvops::DoubleScores scores, const int* counts, int num);
CVOPS_KERNEL nms_f64_merge(cvops::uint64* merged, const cvops::uint64* by_low,
                           const cvops::uint64* by_high, const int* counts, int num);
CVOPS_KERNEL nms_f64_suppress(cvops::NmsBuffers nms, const cvops::DoubleBox* boxes,
                              cvops::NmsChunk buffers, const cvops::uint64* order, int num,
                              int first, int chunk, cvops::NmsRule rule);
CVOPS_KERNEL nms_f64_mask(cvops::NmsBuffers nms, const cvops::DoubleBox* boxes,
                          cvops::NmsChunk buffers, int num, int first, int chunk,
                          cvops::NmsRule rule);

#ifdef __CUDACC__
// keys (B, N): the keys of the second sort, from `sorted` by the first one. Grid (B, tiles).
extern "C" __global__ void __launch_bounds__(256, 1)
    nms_f64_high_keys(unsigned long long* __restrict__ keys,
                      const unsigned long long* __restrict__ sorted,
                      const cvops::DoubleScores scores, const int* __restrict__ counts, int num) {
  using namespace cvops;
  wait_for_earlier_launches();
  const int i = blockIdx.y * blockDim.x + threadIdx.x, batch = blockIdx.x;
  if (i >= counts[batch]) return;
  const int64 at = (int64)batch * num + i;
  keys[at] = high_key(scores.at(batch, index_of(sorted[at])), (uint32)i);
}

// merged (B, N): the indices in the order of both sorts. Grid (B, tiles).
extern "C" __global__ void __launch_bounds__(256, 1)
    nms_f64_merge(unsigned long long* __restrict__ merged,
                  const unsigned long long* __restrict__ by_low,
                  const unsigned long long* __restrict__ by_high, const int* __restrict__ counts,
                  int num) {
  using namespace cvops;
  wait_for_earlier_launches();
  const int i = blockIdx.y * blockDim.x + threadIdx.x, batch = blockIdx.x;
  if (i >= counts[batch]) return;
  const int64 first = (int64)batch * num;
  merged[first + i] = index_of(by_low[first + index_of(by_high[first + i])]);
}

// See nms_suppress_exactly.
extern "C" __global__ void __launch_bounds__(256, 1)
    nms_f64_suppress(const cvops::NmsBuffers nms, const cvops::DoubleBox* __restrict__ boxes,
                     const cvops::NmsChunk buffers, const unsigned long long* __restrict__ order,
                     int num, int first, int chunk, const cvops::NmsRule rule) {
  cvops::wait_for_earlier_launches();
  cvops::nms_suppress_exactly(nms, boxes, buffers, order, num, first, chunk, rule);
}

// See nms_mask_exactly.
extern "C" __global__ void __launch_bounds__(256, 1)
    nms_f64_mask(const cvops::NmsBuffers nms, const cvops::DoubleBox* __restrict__ boxes,
                 const cvops::NmsChunk buffers, int num, int first, int chunk,
                 const cvops::NmsRule rule) {
  cvops::wait_for_earlier_launches();
  cvops::nms_mask_exactly(nms, boxes, buffers, num, first, chunk, rule);
}
#endif
