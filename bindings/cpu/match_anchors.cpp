#include "match_anchors.h"

#include <algorithm>
#include <limits>

#include "sampling.h"
#include "simd.h"

namespace cvops {

using namespace cpu;

namespace {

constexpr int kSize = BoxBlocks::kSize;

void write_block(int* __restrict__ out, const float* __restrict__ iou,
                 const int* __restrict__ truth, const bool* __restrict__ is_best, int num,
                 const MatchShape& shape, const MatchOptions& options) {
  for (int i = 0; i < num; ++i) {
    const int match = match_of(iou[i], truth[i], shape, options);
    out[i] = is_best[i] ? truth[i] : match;
  }
}

// The matches of one image.
void write_image(int* out, const BoxBlocks& anchors, const std::vector<SizedBox>& truths,
                 const MatchShape& shape, const MatchOptions& options, int threads) {
  const BlockParts parts(anchors, threads);
  const BestTruths best_of_anchors(anchors.blocks());
  const std::vector<float> best = match_parts(best_of_anchors, anchors, truths, parts);
  std::vector<int> searched;
  for (int t = 0; t < (int)truths.size(); ++t) {
    if (needs_search(best[t], options)) searched.push_back(t);
  }
  // The first anchor with the highest IoU of each truth, by part.
  constexpr int none = std::numeric_limits<int>::max();
  const int64 num_firsts = options.match_best ? (int64)truths.size() : 0;
  std::vector<int> firsts(parts.count * num_firsts, none);
  parts.for_each(2, [&](int64 p, int64 begin, int64 end) {
    for (int64 block = begin; block < end; ++block) {
      const int64 first = block * kSize;
      const float* iou = best_of_anchors.iou.get() + first;
      bool is_best[kSize] = {};
      if (!searched.empty()) {
        mark_best(is_best, iou, anchors, block, truths, best.data(), searched,
                  num_firsts ? firsts.data() + p * num_firsts : nullptr);
      }
      if (!options.allow_low_quality) std::fill_n(is_best, kSize, false);
      const int num = (int)std::min<int64>(shape.num_anchors - first, kSize);
      simd<write_block>(out + first, iou, best_of_anchors.truth.get() + first, is_best, num, shape,
                        options);
    }
  });
  for (int64 t = 0; t < num_firsts; ++t) {
    int first = none;
    for (int64 p = 0; p < parts.count; ++p) first = std::min(first, firsts[p * num_firsts + t]);
    if (first != none) out[first] = (int)t;
  }
}

}  // namespace

void match_anchors(const Cpu&, int* out, const float* anchors, const float* truths,
                   MatchShape shape, MatchOptions options) {
  const int64 num = shape.num_anchors, num_truths = shape.num_truths;
  if (shape.num_images * num == 0) return;
  const bool is_shared = shape.anchor_sets == 1;
  const BoxBlocks shared(anchors, is_shared ? num : 0);
  const double cost = num * (3 + 0.1 * num_truths);
  for_each_image(shape.num_images, cost, [&](int64 b, int threads) {
    std::vector<SizedBox> boxes(num_truths);
    for (int64 t = 0; t < num_truths; ++t) {
      boxes[t] = signed_size(load_box(truths, b * num_truths + t));
    }
    if (is_shared) return write_image(out + b * num, shared, boxes, shape, options, threads);
    const BoxBlocks own(anchors + 4 * b * num, num);
    write_image(out + b * num, own, boxes, shape, options, threads);
  });
}

}  // namespace cvops
