// Sort and suppression of boxes, shared by box_nms, matrix_nms, multibox_detection, multiclass_nms,
// nms_rotated, proposal and soft_nms.
#pragma once
#include <cstdint>
#include <limits>
#include <memory>

#include "gpu.h"
#include "nms.cuh"
#include "nms/double_box.cuh"
#include "parallel.h"
#include "rotated_box.cuh"
#include "sort_key.cuh"

namespace cvops {

// Upper bound of the rows of a batch entry: a grid has at most 65535 tiles along the y axis.
constexpr int64 kMaxRows = 65535 * (int64)kCompactTile;
static_assert(kMaxRows <= 1ll << kSpatialIndexBits, "see nms_spatial_keys");

namespace cpu {

// Uninitialized scratch memory.
template <typename T>
std::unique_ptr<T[]> scratch(int64 num) {
  return std::unique_ptr<T[]>(new T[num]);
}

// Sorts the `topk` lowest of `num` keys, whose indices ascend. Both arrays are overwritten; the
// result is in one of them.
const uint64* sort_keys(uint64* keys, uint64* other, int64 num, int64 topk);

// Writes the numbers of `num` scores, the highest first. Equal ones keep their order.
void sort_scores(int* order, const float* scores, int num);

// Sets kept[i] for each of `num` boxes in score order. It keeps the first `max_kept` only, of each
// class with rule.by_class. `classes` is read only with rule.by_class.
void suppress(uint8_t* kept, const SizedBox* boxes, const int* classes, int num, NmsRule rule,
              int threads, int max_kept = std::numeric_limits<int>::max());

// The same for rotated boxes, or for boxes of doubles. `bounds` are their nms_bounds().
void suppress_exactly(uint8_t* kept, const SizedBox* bounds, const RotatedBox* exact,
                      const int* classes, int num, NmsRule rule, int threads);
void suppress_exactly(uint8_t* kept, const SizedBox* bounds, const DoubleBox* exact,
                      const int* classes, int num, NmsRule rule, int threads);

// Calls body(b, threads) for each image of a batch; the body may use that number of threads. `cost`
// is an estimate of the time of one image in ns. With fewer images than threads, images run one by
// one.
template <typename Body>
void for_each_image(int64 batch, double cost, const Body& body) {
  const int threads = num_threads();
  if (batch >= threads) return parallel_for(batch, cost, [&](int64 b) { body(b, 1); });
  for (int64 b = 0; b < batch; ++b) body(b, threads);
}

}  // namespace cpu

namespace cuda {

// Launches of one sort and one suppression: `batch` rows of `num` boxes. At most `topk` boxes of
// each row take part.
class Nms {
 public:
  Nms(Gpu& gpu, int64 batch, int64 num, int64 topk);

  // keys (B, N) and tile_counts (B, tiles) -> compact (B, N), without kNoKey, and counts.
  void compact(const uint64* keys, const int* tile_counts, uint64* compact);
  // compact (B, N) and counts -> sorted; `spare` (B, N) is overwritten.
  void sort(const uint64* compact, uint64* spare);
  // The same by scores of doubles; `compact` has the keys of the first sort: see nms_f64.cuh.
  void sort(const uint64* compact, uint64* spare, DoubleScores scores);
  // Allocates scratch memory for `buffers`.
  void take_buffers();
  // Computes which boxes of `buffers` are kept.
  void suppress(NmsRule rule);
  // The same for rotated boxes, or boxes of doubles, (B, N), whose bounds `buffers` has.
  void suppress_exactly(const RotatedBox* boxes, NmsRule rule);
  void suppress_exactly(const DoubleBox* boxes, NmsRule rule);

  const int batch, num, most, tiles;
  uint64* const sorted;  // (B, N)
  int* const counts;     // (B)
  NmsBuffers buffers = {};

 private:
  // Number of boxes in a chunk, and its buffers.
  int chunk() const;
  NmsChunk take_chunk_buffers();
  // True if the spatial order saves more time than it costs.
  bool has_order() const;
  // Keys that sort boxes by class and Morton code.
  const uint64* spatial_order(bool by_class);
  template <typename Exact, typename Suppress, typename Mask>
  void suppress_by(const Suppress& suppress_kernel, const Mask& mask_kernel, const Exact* boxes,
                   NmsRule rule);

  Gpu& gpu_;
};

}  // namespace cuda

}  // namespace cvops
