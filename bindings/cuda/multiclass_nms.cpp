#include "multiclass_nms.h"

#include <algorithm>

#include "multiclass_nms.cuh"
#include "nms.h"

namespace cvops {

// Launches that list the candidates among which the best are. Few scores need no list.
static CandidateList candidates_of(Gpu& gpu, const ClassScores<float>& in,
                                   const MulticlassOptions& options) {
  const int64 num = in.classes * in.num;
  if (num <= kSamples) return {};
  const auto [rank, capacity] = Sampling(num, options.topk);
  uint64 *list = gpu.scratch<uint64>(in.batch * capacity), *bounds = gpu.scratch<uint64>(in.batch);
  int* found = gpu.scratch<int>(in.batch);
  const int64 tiles = ceil_div(num + 3, kCollectTile);
  gpu.launch(KERNEL(topk_sample), in.batch, kTopkThreads, 0, bounds, found, in.scores, num, rank,
             options.filter);
  gpu.launch(KERNEL(topk_collect), in.batch * tiles, 256, 0, list, found, bounds, in.scores,
             in.batch * num, num, tiles, capacity, options.filter);
  return {list, found, bounds, capacity};
}

template <>
void multiclass_nms(Gpu& gpu, double* out, int* counts, ClassScores<double> in,
                    MulticlassOptions options) {
  const int64 num = in.classes * in.num;
  const int topk = options.topk;
  if (in.batch == 0 || options.rows == 0) {
    gpu.launch(KERNEL(multiclass_nms_clear), ceil_div(in.batch, 256), 256, 0, counts, in.batch);
    return;
  }
  cuda::Nms nms(gpu, in.batch, num, topk);
  {
    Gpu::Scope scope(gpu);
    uint64 *keys = gpu.scratch<uint64>(in.batch * num),
           *compact = gpu.scratch<uint64>(in.batch * num);
    int* tile_counts = gpu.scratch<int>(in.batch * nms.tiles);
    gpu.launch(KERNEL(multiclass_nms_score_f64), {in.batch, nms.tiles}, kCompactTile, 0, keys,
               tile_counts, in.scores, num, options.filter);
    nms.compact(keys, tile_counts, compact);
    nms.sort(compact, keys, {in.scores, num, 1});
  }
  nms.take_buffers();
  DoubleBox* const boxes = gpu.scratch<DoubleBox>(in.batch * num);
  gpu.launch(KERNEL(multiclass_nms_gather_f64), {in.batch, nms.tiles}, kCompactTile, 0, nms.buffers,
             boxes, in.boxes, nms.sorted, nms.counts, num, in.num, topk, options.rule.center);
  nms.suppress_exactly(boxes, options.rule);
  gpu.launch(KERNEL(multiclass_nms_write_f64), {in.batch, ceil_div(topk, 256)}, 256, 0, out, counts,
             in.boxes, in.scores, nms.sorted, nms.buffers.kept, nms.buffers.kept_before, nms.counts,
             in.classes, in.num, topk, options.rows);
}

template <>
void multiclass_nms(Gpu& gpu, float* out, int* counts, ClassScores<float> in,
                    MulticlassOptions options) {
  const int64 num = in.classes * in.num;
  const int topk = options.topk;
  if (in.batch == 0 || options.rows == 0) {
    gpu.launch(KERNEL(multiclass_nms_clear), ceil_div(in.batch, 256), 256, 0, counts, in.batch);
    return;
  }
  if (topk <= kNmsBlock) {
    const CandidateList candidates = candidates_of(gpu, in, options);
    gpu.launch(KERNEL(multiclass_nms_block), in.batch, kTopkThreads, 0, out, counts, candidates,
               in.boxes, in.scores, in.classes, in.num, topk, options.rows, options.filter,
               options.rule);
    return;
  }
  const Dim3 grid = {in.batch, ceil_div(topk, 256)};
  cuda::Nms nms(gpu, in.batch, topk, topk);
  if (topk <= kSortTile) {
    nms.take_buffers();
    Gpu::Scope scope(gpu);
    const CandidateList candidates = candidates_of(gpu, in, options);
    gpu.launch(KERNEL(multiclass_nms_order), in.batch, kTopkThreads, 0, nms.buffers, nms.sorted,
               nms.counts, candidates, in.boxes, in.scores, in.classes, in.num, topk,
               options.filter, options.rule.center);
  } else {
    {
      Gpu::Scope scope(gpu);
      uint64 *compact = gpu.scratch<uint64>(in.batch * topk),
             *spare = gpu.scratch<uint64>(in.batch * topk);
      const CandidateList candidates = candidates_of(gpu, in, options);
      gpu.launch(KERNEL(topk_select), in.batch, kTopkThreads, 0, compact, nms.counts, candidates,
                 in.scores, num, topk, options.filter);
      nms.sort(compact, spare);
    }
    nms.take_buffers();
    gpu.launch(KERNEL(multiclass_nms_gather), grid, 256, 0, nms.buffers, in.boxes, nms.sorted,
               nms.counts, in.num, topk, options.rule.center);
  }
  nms.suppress(options.rule);
  gpu.launch(KERNEL(multiclass_nms_write), grid, 256, 0, out, counts, in.boxes, in.scores,
             nms.sorted, nms.buffers.kept, nms.buffers.kept_before, nms.counts, in.classes, in.num,
             topk, options.rows);
}

}  // namespace cvops
