// The order and the suppression of boxes that box_nms, multibox_detection and multiclass_nms share.
#pragma once
#include <cstdint>
#include <memory>

#include "gpu.h"
#include "nms.cuh"
#include "parallel.h"
#include "sort_key.cuh"

namespace cvops {

// A row of a batch has fewer boxes: a grid has at most 65535 tiles on its y axis.
constexpr int64 kMostRows = 65535 * (int64)kCompactTile;
static_assert(kMostRows <= 1ll << kPlaceBits, "see nms_places");

namespace cpu {

// Scratch memory, not initialized.
template <typename T>
std::unique_ptr<T[]> scratch(int64 num) {
  return std::unique_ptr<T[]>(new T[num]);
}

// The lowest `most` of `num` keys, whose indices ascend, in ascending order: in one of the two
// arrays. Both are overwritten.
const uint64* sort_keys(uint64* keys, uint64* other, int64 num, int64 most);

// Sets which of `num` boxes, in score order, are kept. `classes` is read only if the rule is by
// class.
void suppress(uint8_t* kept, const SizedBox* boxes, const int* classes, int num, NmsRule rule,
              int threads);

// Calls body(b, threads) for each image of a batch; the body may use that many threads. `cost`
// estimates the nanoseconds of one image. With fewer images than threads, images run one by one.
template <typename Body>
void for_each_image(int64 batch, double cost, const Body& body) {
  const int threads = num_threads();
  if (batch >= threads) return parallel_for(batch, cost, [&](int64 b) { body(b, 1); });
  for (int64 b = 0; b < batch; ++b) body(b, threads);
}

}  // namespace cpu

namespace cuda {

// The launches of one sort and suppression: `batch` rows of `num` boxes, of each of which at most
// `limit` take part.
class Nms {
 public:
  Nms(Gpu& gpu, int64 batch, int64 num, int64 limit);

  // keys (B, N) and tile_counts (B, tiles) -> compact (B, N), without kNoKey, and counts.
  void compact(const uint64* keys, const int* tile_counts, uint64* compact);
  // compact (B, N) and counts -> sorted; `spare` (B, N) is overwritten.
  void sort(const uint64* compact, uint64* spare);
  // Takes scratch memory for `buffers`.
  void take_buffers();
  // Decides which boxes of `buffers` are kept.
  void suppress(NmsRule rule);

  const int batch, num, most, tiles;
  uint64* const sorted;  // (B, N)
  int* const counts;     // (B)
  NmsBuffers buffers = {};

 private:
  // The first counts[b] keys of each row, at most `most`, in ascending order. `from` is `spare`, or
  // `to` if an odd number of passes merges, or neither.
  void sort(uint64* to, uint64* spare, const uint64* from, const int* counts, int most);
  // Keys that put boxes of one class and one region side by side.
  const uint64* spatial_order(bool by_class);

  Gpu& gpu_;
};

}  // namespace cuda

}  // namespace cvops
