// Matches of boxes with ground truths (truths), also of match_anchors, and the choice of samples:
// steps of rpn_target and rcnn_target.
#pragma once
#include <algorithm>
#include <memory>
#include <vector>

#include "nms.h"
#include "sampling.cuh"

namespace cvops::cpu {

// The truths of an image: the rows of its label before the first row of class -1.
std::vector<SizedBox> truths_of(const float* label, const SampleShape& shape);

// Boxes as a structure of arrays, in blocks of adjacent boxes. NaN boxes fill the last block.
class BoxBlocks {
 public:
  static constexpr int kSize = 64;

  // The boxes of `first` (num_first, 4), then those of `second`.
  BoxBlocks(const float* first, int64 num_first, const std::vector<SizedBox>& second = {});

  SizedBox at(int64 i) const { return {{x1_[i], y1_[i], x2_[i], y2_[i]}, area_[i]}; }
  Box bounds(int64 block) const { return bounds_[block]; }
  int64 blocks() const { return (int64)bounds_.size(); }

 private:
  std::unique_ptr<float[]> memory_;
  float *x1_, *y1_, *x2_, *y2_, *area_;
  std::vector<Box> bounds_;
};

// The highest IoU of each box, and the lowest of its truths. Both have whole blocks.
struct BestTruths {
  std::unique_ptr<float[]> iou;
  std::unique_ptr<int[]> truth;

  explicit BestTruths(int64 blocks)
      : iou(scratch<float>(blocks * BoxBlocks::kSize)),
        truth(scratch<int>(blocks * BoxBlocks::kSize)) {}
};

// Matches the blocks from `first` to `end`. best[t]: the highest IoU of truth t with them.
void match_blocks(const BestTruths& out, float* best, const BoxBlocks& boxes,
                  const std::vector<SizedBox>& truths, int64 first, int64 end);

// The blocks of the boxes of an image, in parts that threads take.
struct BlockParts {
  const int64 blocks, count;

  BlockParts(const BoxBlocks& boxes, int threads)
      : blocks(boxes.blocks()), count(threads > 1 ? std::min<int64>(blocks, 4 * threads) : 1) {}

  // Calls body(part, first block, end block) for each part. `cost`: the time of a box in ns.
  template <typename Body>
  void for_each(double cost, const Body& body) const {
    const auto run = [&](int64 p) { body(p, blocks * p / count, blocks * (p + 1) / count); };
    if (count == 1) return run(0);
    parallel_for(count, cost * BoxBlocks::kSize * blocks / count, run);
  }
};

// Matches all blocks. Returns the highest IoU of each truth.
std::vector<float> match_parts(const BestTruths& out, const BoxBlocks& boxes,
                               const std::vector<SizedBox>& truths, const BlockParts& parts);

// Sets is_best[i] of a block if box i has the IoU best[t] with one of the truths `which`. first[t],
// if given, becomes the number of the first such box if it is lower.
void mark_best(bool* is_best, const float* iou, const BoxBlocks& boxes, int64 block,
               const std::vector<SizedBox>& truths, const float* best,
               const std::vector<int>& which, int* first = nullptr);

// noise_rank of each number.
void rank_noise(uint32* ranks, const float* noise, int num);

// The `most` lowest of all keys that are added.
class LowestKeys {
 public:
  explicit LowestKeys(int64 most) : most_(most), bound_(most > 0 ? kNoKey : 0) {}

  // No key above it is among the lowest.
  uint64 bound() const { return bound_; }

  void add(uint64 key) {
    if (key >= bound_) return;
    keys_.push_back(key);
    if ((int64)keys_.size() >= 2 * most_ + 64) trim();
  }

  // The lowest keys, in any order.
  std::vector<uint64>& keys() {
    if ((int64)keys_.size() > most_) trim();
    return keys_;
  }

 private:
  void trim() {
    std::nth_element(keys_.begin(), keys_.begin() + most_, keys_.end());
    bound_ = keys_[most_];
    keys_.resize(most_);
  }

  const int64 most_;
  uint64 bound_;
  std::vector<uint64> keys_;
};

}  // namespace cvops::cpu
