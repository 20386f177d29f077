#include "nms.h"

#include <algorithm>

#include "nms_f64.cuh"
#include "sort.cuh"
#include "sort.h"

namespace cvops::cuda {
namespace {

constexpr int kChunk = CVOPS_STEP(kNmsChunk, 128);
static_assert(kChunk <= kNmsChunk && kChunk % 64 == 0, "see nms_chunk");
// Up to this number of chunks, the spatial order costs more time than it saves.
constexpr int kChunksWithoutOrder = CVOPS_STEP(3, 2);
// Blocks that compare tiles with kept boxes: two per multiprocessor of a large GPU.
constexpr int kBlocks = CVOPS_STEP(264, 3), kMaxSplits = CVOPS_STEP(16, 2);

}  // namespace

Nms::Nms(Gpu& gpu, int64 batch, int64 num, int64 topk)
    : batch((int)batch),
      num((int)num),
      most((int)std::min(num, topk)),
      tiles((int)ceil_div(num, kCompactTile)),
      sorted(gpu.scratch<uint64>(batch * num)),
      counts(gpu.scratch<int>(batch)),
      gpu_(gpu) {}

void Nms::compact(const uint64* keys, const int* tile_counts, uint64* compact) {
  gpu_.launch(KERNEL(sort_compact), {batch, tiles}, kCompactTile, 0, compact, counts, keys,
              tile_counts, num);
}

void Nms::sort(const uint64* compact, uint64* spare) {
  cuda::sort(gpu_, sorted, spare, compact, counts, batch, num, num);
}

void Nms::sort(const uint64* compact, uint64* spare, DoubleScores scores) {
  Gpu::Scope scope(gpu_);
  const int64 all = (int64)batch * num;
  uint64 *const by_low = gpu_.scratch<uint64>(all), *const by_high = gpu_.scratch<uint64>(all);
  cuda::sort(gpu_, by_low, spare, compact, counts, batch, num, num);
  // The sort may read its keys from `spare`, or from its result if it merges oddly.
  uint64* const keys = merges_oddly(num) ? by_high : spare;
  gpu_.launch(KERNEL(nms_f64_high_keys), {batch, tiles}, kCompactTile, 0, keys, by_low, scores,
              counts, num);
  cuda::sort(gpu_, by_high, spare, keys, counts, batch, num, num);
  gpu_.launch(KERNEL(nms_f64_merge), {batch, tiles}, kCompactTile, 0, sorted, by_low, by_high,
              counts, num);
}

void Nms::take_buffers() {
  const int64 all = (int64)batch * num, words = ceil_div(num, 64);
  buffers.boxes = gpu_.scratch<float>(4 * all);
  buffers.areas = gpu_.scratch<float>(all);
  buffers.classes = gpu_.scratch<int>(all);
  buffers.suppressed = gpu_.scratch<uint32>(batch * ceil_div(num, 32));
  buffers.kept = gpu_.scratch<uint64>(batch * words);
  buffers.kept_before = gpu_.scratch<int>(batch * (words + 1));
  buffers.counts = gpu_.scratch<int>(batch);
  buffers.progress = gpu_.scratch<int>(2 * batch);
}

int Nms::chunk() const { return (int)std::min<int64>(kChunk, 64 * ceil_div(most, 64)); }

bool Nms::has_order() const { return most > chunk() * kChunksWithoutOrder; }

NmsChunk Nms::take_chunk_buffers() {
  NmsChunk taken;
  taken.list = gpu_.scratch<int>((int64)batch * chunk());
  taken.list_counts = gpu_.scratch<int>(batch);
  taken.mask = gpu_.scratch<uint32>((int64)batch * chunk() * (chunk() / 32));
  taken.words = gpu_.scratch<unsigned char>((int64)batch * chunk() * 8);
  return taken;
}

const uint64* Nms::spatial_order(bool by_class) {
  uint64* const order = gpu_.scratch<uint64>((int64)batch * num);
  Gpu::Scope scope(gpu_);
  uint64* const spare = gpu_.scratch<uint64>((int64)batch * num);
  uint64* const keys = merges_oddly(most) ? order : spare;
  gpu_.launch(KERNEL(nms_spatial_keys), {batch, ceil_div(most, kNmsTile)}, kNmsTile, 0, keys,
              buffers.boxes, buffers.classes, buffers.counts, num, by_class);
  cuda::sort(gpu_, order, spare, keys, buffers.counts, batch, num, most);
  return order;
}

void Nms::suppress(NmsRule rule) {
  Gpu::Scope scope(gpu_);
  const int chunk = this->chunk();
  const bool has_order = this->has_order();
  const uint64* const order = has_order ? spatial_order(rule.by_class) : nullptr;
  if (has_order && rule.by_class) {
    gpu_.launch(KERNEL(nms_classes), {batch, ceil_div(most, kNmsTile)}, kNmsThreads, 0, buffers,
                order, num, rule);
  }
  const NmsChunk of_chunk = take_chunk_buffers();
  for (int first = 0; first < most; first += chunk) {
    const int pairs = nms_mask_blocks(chunk), others = has_order ? most : most - first;
    const int64 tiles = first ? std::min<int64>(ceil_div(others, kNmsTile), kMaxGridY - pairs) : 0;
    const int64 splits = tiles ? std::clamp<int64>(kBlocks / (batch * tiles), 1, kMaxSplits) : 1;
    gpu_.launch(KERNEL(nms_chunk), {batch, pairs + tiles * splits}, kNmsThreads, 0, buffers,
                of_chunk, order, num, first, chunk, splits, rule);
  }
}

}  // namespace cvops::cuda
