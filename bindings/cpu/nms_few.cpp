#include "nms_few.h"

#include <algorithm>
#include <limits>

#include "nms/rows.cuh"
#include "nms_broad_phase.h"
#include "nms_lanes.h"

namespace cvops::cpu {
namespace {

// Maximum number of rows.
constexpr int kMaxRows = 2048;
// Number of steps after which the removed rows are counted. A step takes the time in which the
// other way sorts and compares this share of the rows.
constexpr int kSteps = 4, kMinShare = 50;
// Blocks of a sample of boxes, and the minimum number of pairs in it of which one box suppresses
// the other: one box of each block is compared with all others. A smaller sample has fewer pairs.
constexpr int kSampleBlocks = 8, kMinPairs = 6;

// Vectors of the smallest width: a selection between wider ones is slow without AVX.
typedef float Four __attribute__((vector_size(16)));
typedef int FourInts __attribute__((vector_size(16)));
constexpr int kLanes = BoxBlock::kSize, kParts = kLanes / 4;

// Adjacent boxes and their scores: -infinity for a removed box.
struct ScoredBlock : BoxBlock {
  Four scores[kParts];
};

// The best box of each lane: the first one of the highest score.
struct Best {
  Four scores[kParts];
  FourInts blocks[kParts] = {};

  CVOPS_INLINE Best() {
    for (Four& of_part : scores) of_part = Four{} - kInfinity;
  }

  CVOPS_INLINE void add(const ScoredBlock& other, int block) {
    for (int p = 0; p < kParts; ++p) {
      const Four before = scores[p];
      scores[p] = other.scores[p] > before ? other.scores[p] : before;
      const FourInts same = (FourInts)scores[p] == (FourInts)before;
      blocks[p] = (same & blocks[p]) | (~same & block);
    }
  }

  // The number of the best box; -1 if all boxes are removed.
  CVOPS_INLINE int number() const {
    int best = -1;
    float highest = -kInfinity;
    for (int k = 0; k < kLanes; ++k) {
      const float score = scores[k / 4][k % 4];
      const int at = blocks[k / 4][k % 4] * kLanes + k;
      const bool is_better = (score > highest) | ((score == highest) & (at < best));
      highest = is_better ? score : highest;
      best = is_better ? at : best;
    }
    return best;
  }
};

// Removes the boxes that a kept box suppresses. Returns false if the bounds of the rule do not
// decide. `best` becomes the best box left.
template <Form kForm, bool kExact>
CVOPS_INLINE bool remove(ScoredBlock* blocks, int num_blocks, SizedBox kept,
                         const RuleBounds& bounds, NmsRule rule, Best& best) {
  best = {};
  int unsure[kLanes] = {};
  for (int block = 0; block < num_blocks; ++block) {
    ScoredBlock& other = blocks[block];
    int is_left[kLanes];  // -1 or 0
    for (int k = 0; k < kLanes; ++k) {
      if constexpr (kExact) {
        is_left[k] = suppresses_by_rule<kForm>(kept, other.at(k), rule) - 1;
      } else {
        const Verdict verdict = compare<kForm>(kept, other.at(k), bounds);
        is_left[k] = verdict.surely - 1;
        unsure[k] |= verdict.unsure;
      }
    }
    for (int p = 0; p < kParts; ++p) {
      FourInts mask;
      __builtin_memcpy(&mask, is_left + 4 * p, sizeof mask);
      const FourInts lowest = (FourInts)(Four{} - kInfinity);
      other.scores[p] = (Four)((mask & (FourInts)other.scores[p]) | (~mask & lowest));
    }
    best.add(other, block);
  }
  return !any(unsure);
}

// True if boxes probably suppress many others.
template <Form kForm>
bool are_dense(const float* rows, int num, const NmsOptions& options, const RuleBounds& bounds) {
  constexpr int kSample = kSampleBlocks * kLanes;
  BoxBlock sample[kSampleBlocks];
  const NmsColumns columns = options.columns;
  const int sampled = std::min(num, kSample), blocks = (int)ceil_div(sampled, kLanes);
  for (int i = 0; i < blocks * kLanes; ++i) {
    const float* row = rows + (int64)std::min(i, sampled - 1) * num / sampled * columns.width;
    const SizedBox none = {{0, 0, 0, 0}, 1};
    const SizedBox b = i < sampled ? nms_box(row, columns, options.rule.center) : none;
    sample[i / kLanes].put(i % kLanes, b);
  }
  int found[kLanes] = {}, pairs = -blocks;  // without those of a box and itself
  for (int first = 0; first < blocks; ++first) {
    const SizedBox kept = sample[first].at(0);
    for (int other = 0; other < blocks; ++other) {
      for (int k = 0; k < kLanes; ++k) {
        found[k] += compare<kForm>(kept, sample[other].at(k), bounds).surely;
      }
    }
  }
  for (int of_lane : found) pairs += of_lane;
  return pairs * kSampleBlocks * kSample >= kMinPairs * blocks * sampled;
}

// Writes the numbers of the boxes that are left, and returns how many these are.
int write_left(int* numbers, const ScoredBlock* blocks, int num) {
  int left = 0;
  for (int i = 0; i < num; ++i) {
    numbers[left] = i;
    left += blocks[i / kLanes].scores[i % kLanes / 4][i % 4] > -kInfinity;
  }
  return left;
}

int count_left(const ScoredBlock* blocks, int num_blocks) {
  FourInts left = {};
  for (int block = 0; block < num_blocks; ++block) {
    for (const Four& scores : blocks[block].scores) left -= scores > Four{} - kInfinity;
  }
  return left[0] + left[1] + left[2] + left[3];
}

template <Form kForm>
bool keep(int* numbers, FewRows& count, const float* rows, int num, const NmsOptions& options) {
  const NmsRule rule = options.rule;
  const BroadPhase broad_phase(rule, false);
  const RuleBounds bounds(rule);
  if (!are_dense<kForm>(rows, num, options, bounds)) return false;
  ScoredBlock blocks[kMaxRows / kLanes];
  const int num_blocks = (num + kLanes - 1) / kLanes;
  Best best;
  for (int i = 0; i < num_blocks * kLanes; ++i) {
    SizedBox b = {{0, 0, 0, 0}, 1};
    float score = -kInfinity;
    if (i < num) {
      const float* row = rows + (int64)i * options.columns.width;
      b = nms_box(row, options.columns, rule.center);
      if (broad_phase.kind_of_cell(b, rule) == kOverflowCell) return false;
      if (nms_is_valid(row, options.columns, options.valid_thresh, options.background_id)) {
        score = row[options.columns.score];
      }
    }
    ScoredBlock& to = blocks[i / kLanes];
    to.put(i % kLanes, b);
    to.scores[i % kLanes / 4][i % 4] = score;
  }
  for (int block = 0; block < num_blocks; ++block) best.add(blocks[block], block);
  count = {};
  for (int left = num;;) {
    const int index = best.number();
    if (index < 0) return true;
    if (count.kept % kSteps == 0 && count.kept > 0) {
      const int before = left;
      left = count_left(blocks, num_blocks);
      if ((before - left) * kMinShare < kSteps * num) {
        count.left = write_left(numbers + count.kept, blocks, num);
        return true;
      }
    }
    numbers[count.kept++] = index;
    ScoredBlock& own = blocks[index / kLanes];
    own.scores[index % kLanes / 4][index % 4] = -kInfinity;
    const SizedBox b = own.at(index % kLanes);
    if (!remove<kForm, false>(blocks, num_blocks, b, bounds, rule, best)) {
      remove<kForm, true>(blocks, num_blocks, b, bounds, rule, best);
    }
  }
}

}  // namespace

bool keep_of_few(int* numbers, FewRows& count, const float* rows, int64 num,
                 const NmsOptions& options) {
  const NmsRule& rule = options.rule;
  const bool suits = num <= kMaxRows && options.topk >= num && !rule.by_class;
  if (!suits || !RuleBounds::suit(rule)) return false;
  return rule.center ? simd<keep<Form::center>>(numbers, count, rows, (int)num, options)
                     : simd<keep<Form::corner>>(numbers, count, rows, (int)num, options);
}

}  // namespace cvops::cpu
