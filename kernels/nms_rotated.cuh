// Suppression of rotated boxes in descending score order. See nms/exact.cuh.
#pragma once
#include "nms/exact.cuh"
#include "rotated_box.cuh"
#include "sort_key.cuh"

namespace cvops {

CVOPS_HD RotatedBox nms_rotated_box(const float* row, NmsColumns columns, RotatedFormat format) {
  return rotated_box(row + columns.coord, format);
}

// A rotated box for the cheap tests. The area is NaN if products of such areas may be denormal or
// infinite: every test then passes.
CVOPS_HD SizedBox nms_bounds(const RotatedBox& b) {
  const double area = b.area();
  const bool is_ordinary = area == 0 || (area >= 1e-30 && area <= 1e37);
  return {bounds_of(b), is_ordinary ? (float)area : float_of(0x7fc00000)};
}

CVOPS_HD bool suppresses(const RotatedBox& kept, const RotatedBox& other, const NmsRule& rule) {
  return rotated_iou(kept, other) > rule.threshold;
}

}  // namespace cvops

CVOPS_KERNEL nms_rotated_gather(cvops::NmsBuffers nms, cvops::RotatedBox* rotated,
                                const float* data, const cvops::uint64* keys, const int* counts,
                                int num, int topk, cvops::NmsColumns columns,
                                cvops::RotatedFormat format);
CVOPS_KERNEL nms_rotated_suppress(cvops::NmsBuffers nms, const cvops::RotatedBox* rotated,
                                  cvops::NmsChunk buffers, const cvops::uint64* order, int num,
                                  int first, int chunk, cvops::NmsRule rule);
CVOPS_KERNEL nms_rotated_mask(cvops::NmsBuffers nms, const cvops::RotatedBox* rotated,
                              cvops::NmsChunk buffers, int num, int first, int chunk,
                              cvops::NmsRule rule);
CVOPS_KERNEL nms_rotated_resolve(cvops::NmsBuffers nms, cvops::NmsChunk buffers, int num, int first,
                                 int chunk);

#ifdef __CUDACC__
// Boxes, bounds, areas and classes of the first min(counts[b], topk) rows in key order. It also
// initializes the other buffers. rotated (B, N). Grid (B, tiles).
extern "C" __global__ void __launch_bounds__(256)
    nms_rotated_gather(const cvops::NmsBuffers nms, cvops::RotatedBox* __restrict__ rotated,
                       const float* __restrict__ data, const unsigned long long* __restrict__ keys,
                       const int* __restrict__ counts, int num, int topk,
                       const cvops::NmsColumns columns, const cvops::RotatedFormat format) {
  using namespace cvops;
  wait_for_earlier_launches();
  const int i = blockIdx.y * blockDim.x + threadIdx.x, batch = blockIdx.x;
  const int count = min(counts[batch], topk);
  nms.begin(batch, num, i, count);
  if (i >= count) return;
  const int64 first = (int64)batch * num;
  const float* row = data + (first + index_of(keys[first + i])) * columns.width;
  const RotatedBox box = nms_rotated_box(row, columns, format);
  rotated[first + i] = box;
  nms.store(first + i, nms_bounds(box), columns.id < 0 ? 0 : truncated(row[columns.id]));
}

// See nms_suppress_exactly.
extern "C" __global__ void __launch_bounds__(256, 3)
    nms_rotated_suppress(const cvops::NmsBuffers nms, const cvops::RotatedBox* __restrict__ rotated,
                         const cvops::NmsChunk buffers,
                         const unsigned long long* __restrict__ order, int num, int first,
                         int chunk, const cvops::NmsRule rule) {
  cvops::wait_for_earlier_launches();
  cvops::nms_suppress_exactly(nms, rotated, buffers, order, num, first, chunk, rule);
}

// See nms_mask_exactly.
extern "C" __global__ void __launch_bounds__(256, 3)
    nms_rotated_mask(const cvops::NmsBuffers nms, const cvops::RotatedBox* __restrict__ rotated,
                     const cvops::NmsChunk buffers, int num, int first, int chunk,
                     const cvops::NmsRule rule) {
  cvops::wait_for_earlier_launches();
  cvops::nms_mask_exactly(nms, rotated, buffers, num, first, chunk, rule);
}

// Resolves the chunk that begins at `first`. Grid (B), kNmsThreads threads.
extern "C" __global__ void __launch_bounds__(512, 2)
    nms_rotated_resolve(const cvops::NmsBuffers nms, const cvops::NmsChunk buffers, int num,
                        int first, int chunk) {
  using namespace cvops;
  wait_for_earlier_launches();
  const int batch = blockIdx.x, count = nms.counts[batch];
  if (first > 0 && first >= count) return;
  nms_resolve_chunk(nms.kept + batch * ceil_div(num, 64),
                    nms.kept_before + batch * (ceil_div(num, 64) + 1),
                    buffers.list + (int64)batch * chunk, buffers.list_counts + batch,
                    nms.suppressed + batch * ceil_div(num, 32),
                    buffers.mask + (int64)batch * (chunk / 32) * chunk,
                    buffers.words + (int64)batch * chunk * 8, count, num, first, chunk);
}
#endif
