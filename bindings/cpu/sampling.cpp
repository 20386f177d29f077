#include "sampling.h"

#include <limits>

#include "simd.h"

namespace cvops::cpu {
namespace {

constexpr int kSize = BoxBlocks::kSize;

void find_ious(float* __restrict__ found, const BoxBlocks& boxes, int64 block, SizedBox truth) {
  const int64 first = block * kSize;
  for (int i = 0; i < kSize; ++i) found[i] = target_iou(boxes.at(first + i), truth);
}

// Maximum of a block, first per lane, then over the lanes. The compiler can vectorize this order.
float max_of_block(const float* __restrict__ x) {
  float lanes[8];
  for (int k = 0; k < 8; ++k) lanes[k] = x[k];
  for (int i = 8; i < kSize; i += 8) {
    for (int k = 0; k < 8; ++k) lanes[k] = larger(x[i + k], lanes[k]);
  }
  for (int k = 1; k < 8; ++k) lanes[0] = larger(lanes[k], lanes[0]);
  return lanes[0];
}

void match_some(float* all_iou, int* all_truth, float* best, const BoxBlocks& boxes,
                const std::vector<SizedBox>& truths, int64 first, int64 end) {
  for (int64 block = first; block < end; ++block) {
    float* __restrict__ iou = all_iou + block * kSize;
    int* __restrict__ truth = all_truth + block * kSize;
    std::fill_n(iou, kSize, 0.0f);
    std::fill_n(truth, kSize, 0);
    for (int t = 0; t < (int)truths.size(); ++t) {
      if (!may_overlap(boxes.bounds(block), truths[t].box)) continue;
      float found[kSize];
      find_ious(found, boxes, block, truths[t]);
      for (int i = 0; i < kSize; ++i) {
        const bool more = found[i] > iou[i];
        truth[i] = more ? t : truth[i];
        iou[i] = more ? found[i] : iou[i];
      }
      best[t] = larger(max_of_block(found), best[t]);
    }
  }
}

void mark(bool* __restrict__ is_best, const float* iou, const BoxBlocks& boxes, int64 block,
          const std::vector<SizedBox>& truths, const float* best, const std::vector<int>& which,
          int* first) {
  const float most = max_of_block(iou);
  for (int t : which) {
    if (best[t] > most || !may_overlap(boxes.bounds(block), truths[t].box)) continue;
    float found[kSize];
    find_ious(found, boxes, block, truths[t]);
    for (int i = 0; i < kSize; ++i) is_best[i] |= found[i] == best[t];
    if (!first) continue;
    const auto at = std::find(found, found + kSize, best[t]) - found;
    if (at < kSize) first[t] = std::min(first[t], (int)(block * kSize + at));
  }
}

void rank_some(uint32* __restrict__ ranks, const float* __restrict__ noise, int num) {
  for (int i = 0; i < num; ++i) ranks[i] = noise_rank(noise[i]);
}

}  // namespace

std::vector<SizedBox> truths_of(const float* label, const SampleShape& shape) {
  std::vector<SizedBox> truths;
  for (int k = 0; k < shape.num_truths && label[(int64)k * shape.label_width] != -1; ++k) {
    truths.push_back(truth_at(label, k, shape.label_width));
  }
  return truths;
}

BoxBlocks::BoxBlocks(const float* first, int64 num_first, const std::vector<SizedBox>& second) {
  const int64 num = num_first + (int64)second.size(), blocks = ceil_div(num, kSize);
  const int64 length = blocks * kSize;
  memory_ = scratch<float>(5 * length);
  x1_ = memory_.get(), y1_ = x1_ + length, x2_ = y1_ + length, y2_ = x2_ + length;
  area_ = y2_ + length;
  bounds_.assign(blocks, kEmptyBounds);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (int64 i = 0; i < length; ++i) {
    SizedBox b = {{nan, nan, nan, nan}, nan};
    if (i < num) b = i < num_first ? signed_size(load_box(first, i)) : second[i - num_first];
    x1_[i] = b.box.x1, y1_[i] = b.box.y1, x2_[i] = b.box.x2, y2_[i] = b.box.y2, area_[i] = b.area;
    bounds_[i / kSize] = extended(bounds_[i / kSize], b.box);
  }
}

void match_blocks(const BestTruths& out, float* best, const BoxBlocks& boxes,
                  const std::vector<SizedBox>& truths, int64 first, int64 end) {
  std::fill_n(best, truths.size(), 0.0f);
  simd<match_some>(out.iou.get(), out.truth.get(), best, boxes, truths, first, end);
}

std::vector<float> match_parts(const BestTruths& out, const BoxBlocks& boxes,
                               const std::vector<SizedBox>& truths, const BlockParts& parts) {
  const int64 num = (int64)truths.size();
  std::vector<float> best(parts.count * num);
  parts.for_each(1 + 0.1 * num, [&](int64 p, int64 first, int64 end) {
    match_blocks(out, best.data() + p * num, boxes, truths, first, end);
  });
  for (int64 p = 1; p < parts.count; ++p) {
    for (int64 t = 0; t < num; ++t) best[t] = larger(best[p * num + t], best[t]);
  }
  best.resize(num);
  return best;
}

void mark_best(bool* is_best, const float* iou, const BoxBlocks& boxes, int64 block,
               const std::vector<SizedBox>& truths, const float* best,
               const std::vector<int>& which, int* first) {
  simd<mark>(is_best, iou, boxes, block, truths, best, which, first);
}

void rank_noise(uint32* ranks, const float* noise, int num) { simd<rank_some>(ranks, noise, num); }

}  // namespace cvops::cpu
