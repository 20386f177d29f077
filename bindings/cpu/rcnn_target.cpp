#include "rcnn_target.h"

#include <algorithm>

#include "sampling.h"

namespace cvops {

using namespace cpu;

namespace {

constexpr int kSize = BoxBlocks::kSize;

// The first keys of both sides, sorted, and the numbers of all of them.
struct SortedSides {
  std::vector<uint64> positives, negatives;
  RcnnCounts counts;
};

SortedSides sort_sides(const BoxBlocks& boxes, int64 num, const float* iou, const float* noise,
                       const SampleShape& shape, const SampleOptions& options) {
  LowestKeys positives(options.num), negatives(options.num);
  int num_positives = 0, num_candidates = 0;
  uint32 ranks[kSize];
  for (int64 first = 0; first < num; first += kSize) {
    const int some = (int)std::min<int64>(num - first, kSize);
    rank_noise(ranks, noise + first, some);
    for (int i = 0; i < some; ++i) {
      const int64 box = first + i;
      if (!is_candidate(boxes.at(box).box)) continue;
      const bool positive = is_positive(iou[box], options);
      ++num_candidates, num_positives += positive;
      (positive ? positives : negatives).add(rcnn_key(positive, ranks[i], (int)box));
    }
  }
  SortedSides sides = {std::move(positives.keys()),
                       std::move(negatives.keys()),
                       {num_positives, num_candidates, shape.num_boxes}};
  std::sort(sides.positives.begin(), sides.positives.end());
  std::sort(sides.negatives.begin(), sides.negatives.end());
  return sides;
}

// The targets of image `number`.
void write_image(RcnnOutputs out, RcnnInputs in, const SampleShape& shape,
                 const SampleOptions& options, int64 number) {
  const float* const label = in.labels + number * shape.num_truths * shape.label_width;
  const std::vector<SizedBox> truths = truths_of(label, shape);
  const float* const proposals = in.proposals + 4 * number * shape.num_boxes;
  const BoxBlocks boxes(proposals, shape.num_boxes, truths);
  const BestTruths best(boxes.blocks());
  std::vector<float> of_truths(truths.size());
  match_blocks(best, of_truths.data(), boxes, truths, 0, boxes.blocks());
  const int64 num = shape.num_boxes + (int64)truths.size();
  const float* noise = in.noise + number * (shape.num_boxes + (int64)shape.num_truths);
  const SortedSides sides = sort_sides(boxes, num, best.iou.get(), noise, shape, options);
  for (int row = 0; row < options.num; ++row) {
    const int position = sample_position(row, sides.counts, options);
    const int after = position - sides.counts.positives;
    Box roi = {0, 0, 0, 0};
    int match = -1;
    if (position >= 0 && sides.counts.candidates == 0) {
      roi = boxes.at(position).box;
    } else if (position >= 0) {
      const int box = box_of_key(after < 0 ? sides.positives[position] : sides.negatives[after]);
      roi = boxes.at(box).box;
      if (after < 0) match = best.truth[box];
    }
    store_sample(out, number * options.num + row,
                 rcnn_sample(roi, match, label, shape.label_width, options));
  }
}

}  // namespace

void rcnn_target(const Cpu&, RcnnOutputs out, RcnnInputs in, SampleShape shape,
                 SampleOptions options) {
  const double cost = 300.0 + 10.0 * options.num + shape.num_boxes * (5 + 0.3 * shape.num_truths);
  parallel_for(shape.num_images, cost, [&](int64 b) { write_image(out, in, shape, options, b); });
}

}  // namespace cvops
