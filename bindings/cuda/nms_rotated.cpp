#include "nms_rotated.h"

#include "nms_f64.cuh"
#include "nms_rotated.cuh"
#include "nms_rows.h"

namespace cvops {

template <typename Exact, typename Suppress, typename Mask>
void cuda::Nms::suppress_by(const Suppress& suppress_kernel, const Mask& mask_kernel,
                            const Exact* boxes, NmsRule rule) {
  Gpu::Scope scope(gpu_);
  const int chunk = this->chunk();
  const uint64* const order = has_order() ? spatial_order(rule.by_class) : nullptr;
  const NmsChunk of_chunk = take_chunk_buffers();
  for (int first = 0; first < most; first += chunk) {
    if (first) {
      const int64 tiles = ceil_div(has_order() ? most : most - first, kNmsTile);
      gpu_.launch(suppress_kernel, {batch, tiles, ceil_div(chunk, kNmsTile)}, kNmsTile, 0, buffers,
                  boxes, of_chunk, order, num, first, chunk, rule);
    }
    gpu_.launch(mask_kernel, {batch, nms_mask_blocks(chunk)}, 256, 0, buffers, boxes, of_chunk, num,
                first, chunk, rule);
    gpu_.launch(KERNEL(nms_rotated_resolve), batch, kNmsThreads, 0, buffers, of_chunk, num, first,
                chunk);
  }
}

void cuda::Nms::suppress_exactly(const RotatedBox* boxes, NmsRule rule) {
  suppress_by(KERNEL(nms_rotated_suppress), KERNEL(nms_rotated_mask), boxes, rule);
}

void cuda::Nms::suppress_exactly(const DoubleBox* boxes, NmsRule rule) {
  suppress_by(KERNEL(nms_f64_suppress), KERNEL(nms_f64_mask), boxes, rule);
}

void nms_rotated(Gpu& gpu, float* out, int* index, const float* data, int64 batch, int64 num,
                 NmsOptions options, RotatedFormat format) {
  cuda::nms_rows(gpu, out, index, data, batch, num, options, [&](cuda::Nms& nms) {
    cuda::nms_order(gpu, nms, data, options);
    RotatedBox* const rotated = gpu.scratch<RotatedBox>(batch * num);
    gpu.launch(KERNEL(nms_rotated_gather), {batch, nms.tiles}, kCompactTile, 0, nms.buffers,
               rotated, data, nms.sorted, nms.counts, num, options.topk, options.columns, format);
    nms.suppress_exactly(rotated, options.rule);
  });
}

}  // namespace cvops
