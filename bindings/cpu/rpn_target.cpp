#include "rpn_target.h"

#include <algorithm>
#include <cstring>

#include "sampling.h"
#include "simd.h"

namespace cvops {

using namespace cpu;

namespace {

constexpr int kSize = BoxBlocks::kSize;

// The positives and the negatives with the least noise.
struct Sides {
  LowestKeys positives, negatives;

  explicit Sides(const SampleOptions& options)
      : positives(options.most_positive), negatives(options.num) {}
};

struct Block {
  float iou[kSize], noise[kSize];
  bool is_best[kSize];
  uint32 ranks[kSize];
};

// Sets hits[i] to 1 for a positive, or for a negative, that may be a sample.
void find_hits(unsigned char* __restrict__ positives, unsigned char* __restrict__ negatives,
               const Block& block, uint32 positive_bound, uint32 negative_bound,
               const SampleOptions& options) {
  for (int i = 0; i < kSize; ++i) {
    const bool positive = block.is_best[i] | is_positive(block.iou[i], options);
    const bool negative = !positive & (block.iou[i] < options.negative_iou);
    positives[i] = positive & (block.ranks[i] <= positive_bound);
    negatives[i] = negative & (block.ranks[i] <= negative_bound);
  }
}

// Adds the keys of the hits among `num` anchors from number `first` on.
void add_hits(LowestKeys& keys, const unsigned char* hits, const Block& block, int64 first,
              int num) {
  for (int i = 0; i < num; i += 8) {
    uint64 eight;
    std::memcpy(&eight, hits + i, sizeof eight);
    for (; eight; eight &= eight - 1) {
      const int at = i + __builtin_ctzll(eight) / 8;
      if (at < num) keys.add((uint64)block.ranks[at] << 32 | (uint32)(first + at));
    }
  }
}

// The targets of one image.
class Image {
 public:
  Image(RpnOutputs out, RpnInputs in, const SampleShape& shape, const SampleOptions& options,
        const BoxBlocks& anchors, int64 number)
      : in_(in),
        options_(options),
        anchors_(anchors),
        num_(shape.num_boxes),
        label_(in.labels + number * shape.num_truths * shape.label_width),
        truths_(truths_of(label_, shape)),
        best_of_anchors_(anchors.blocks()) {
    in_.noise += number * num_;
    out_ = {out.cls_target + number * num_, out.box_target + 4 * number * num_,
            out.box_mask + 4 * number * num_};
  }

  void write(int threads) {
    const BlockParts parts(anchors_, threads);
    const std::vector<float> best = match_parts(best_of_anchors_, anchors_, truths_, parts);
    std::vector<int> incomplete;
    for (int t = 0; t < (int)best.size(); ++t) {
      if (needs_best(best[t], options_)) incomplete.push_back(t);
    }
    std::vector<Sides> sides(parts.count, Sides(options_));
    parts.for_each(4, [&](int64 p, int64 first, int64 end) {
      clear(first * kSize, std::min<int64>(end * kSize, num_));
      for (int64 block = first; block < end; ++block) {
        label(sides[p], block, best.data(), incomplete);
      }
    });
    for (int64 p = 1; p < parts.count; ++p) {
      for (uint64 key : sides[p].positives.keys()) sides[0].positives.add(key);
      for (uint64 key : sides[p].negatives.keys()) sides[0].negatives.add(key);
    }
    write_samples(sides[0]);
  }

 private:
  // Writes the results of the anchors from `first` to `end` that are no samples.
  void clear(int64 first, int64 end) {
    std::fill(out_.cls_target + first, out_.cls_target + end, -1.0f);
    std::memset(out_.box_target + 4 * first, 0, 16 * (end - first));
    std::memset(out_.box_mask + 4 * first, 0, 16 * (end - first));
  }

  void label(Sides& sides, int64 number, const float* best, const std::vector<int>& incomplete) {
    Block block = {};
    const int64 first = number * kSize;
    const int num = (int)std::min<int64>(num_ - first, kSize);
    std::copy_n(best_of_anchors_.iou.get() + first, kSize, block.iou);
    if (!incomplete.empty()) {
      mark_best(block.is_best, block.iou, anchors_, number, truths_, best, incomplete);
    }
    rank_noise(block.ranks, in_.noise + first, num);
    unsigned char positives[kSize], negatives[kSize];
    simd<find_hits>(positives, negatives, block, (uint32)(sides.positives.bound() >> 32),
                    (uint32)(sides.negatives.bound() >> 32), options_);
    add_hits(sides.positives, positives, block, first, num);
    add_hits(sides.negatives, negatives, block, first, num);
  }

  void write_samples(Sides& sides) {
    const std::vector<uint64>& positives = sides.positives.keys();
    for (uint64 key : positives) {
      const int64 a = index_of(key);
      out_.cls_target[a] = 1;
      const Box truth = truths_[best_of_anchors_.truth[a]].box;
      store_box(out_.box_target, a, encode_box(load_box(in_.anchors, a), truth, options_.scale));
      store_box(out_.box_mask, a, {1, 1, 1, 1});
    }
    std::vector<uint64>& negatives = sides.negatives.keys();
    const int64 wanted = options_.num - (int64)positives.size();
    if (wanted < (int64)negatives.size()) {
      std::nth_element(negatives.begin(), negatives.begin() + wanted, negatives.end());
      negatives.resize(wanted);
    }
    for (uint64 key : negatives) out_.cls_target[index_of(key)] = 0;
  }

  RpnOutputs out_;
  RpnInputs in_;
  const SampleOptions& options_;
  const BoxBlocks& anchors_;
  const int64 num_;
  const float* const label_;
  const std::vector<SizedBox> truths_;
  BestTruths best_of_anchors_;
};

}  // namespace

void rpn_target(const Cpu&, RpnOutputs out, RpnInputs in, SampleShape shape,
                SampleOptions options) {
  const int64 num = shape.num_boxes;
  if (shape.num_images * num == 0) return;
  const BoxBlocks anchors(in.anchors, num);
  const double cost = num * (5 + 0.1 * shape.num_truths);
  for_each_image(shape.num_images, cost, [&](int64 b, int threads) {
    Image(out, in, shape, options, anchors, b).write(threads);
  });
}

}  // namespace cvops
