#include "mining.h"

#include <cmath>
#include <limits>

#include "mining.cuh"
#include "parallel.h"
#include "simd.h"

namespace cvops::cpu {
namespace {

// Anchors per work item.
constexpr int kScoreTile = 2048;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// Range of the exponent. The values are volatile: with unknown limits, the compiler emits min and
// max instructions.
struct Limits {
  float low, high;
};
volatile float kLow = -125, kHigh = 127;

// 2^x with a relative error below 1e-4; x is clamped to the limits. NaN becomes limits.high.
float approx_exp2(float x, Limits limits) {
  x = smaller(x, limits.high);
  x = larger(x, limits.low);
  const float shifted = x + 12582912.0f;  // rounds away the fraction
  const float f = x - (shifted - 12582912.0f);
  const float two_to_f = 0.9999281f + f * (0.693261f + f * (0.24261f + f * 0.05517123f));
  return float_of(bits_of(two_to_f) + (bits_of(shifted) << 23));
}

// Adds the exponentials of `kRows` classes, relative to that of class 0, to the sums.
template <int kRows>
void add_rows(float* __restrict__ sums, const float* __restrict__ own,
              const float* __restrict__ rows, int64 stride, int num, Limits limits) {
  for (int i = 0; i < num; ++i) {
    float sum = sums[i];
    for (int c = 0; c < kRows; ++c)
      sum += approx_exp2((rows[c * stride + i] - own[i]) * 1.442695f, limits);
    sums[i] = sum;
  }
}

// Sums beyond it are uncertain: an exponential was too large, infinite or NaN.
constexpr float kCertain = 0x1p100f;

// Approximate 1 / (probability of class 0) of `num` anchors; NaN if it is uncertain.
void approx_score(float* __restrict__ sums, const float* __restrict__ logits, int num_classes,
                  int64 stride, int num) {
  for (int i = 0; i < num; ++i) sums[i] = 1 + (logits[i] - logits[i]);
  const Limits limits = {kLow, kHigh};
  int c = 1;
  for (; c + 4 <= num_classes; c += 4)
    add_rows<4>(sums, logits, logits + c * stride, stride, num, limits);
  for (; c < num_classes; ++c) add_rows<1>(sums, logits, logits + c * stride, stride, num, limits);
  for (int i = 0; i < num; ++i) sums[i] = sums[i] < kCertain ? sums[i] : kNan;
}

// Softmax of class 0 of at most kBlock anchors.
void exact_scores(float* __restrict__ background, const float* logits, int num_classes,
                  int64 stride, const int* anchors, int num) {
  float x[kBlock] = {}, top[kBlock], sum[kBlock];
  const int lanes = whole_vectors(num);
  auto take = [&](int c) {
    for (int i = 0; i < num; ++i) x[i] = logits[c * stride + anchors[i]];
  };
  take(0);
  for (int i = 0; i < lanes; ++i) background[i] = top[i] = x[i];
  for (int c = 1; c < num_classes; ++c) {
    take(c);
    for (int i = 0; i < lanes; ++i) top[i] = larger(x[i], top[i]);
  }
  for (int i = 0; i < lanes; ++i) sum[i] = background[i] = exp_of(background[i] - top[i]);
  for (int c = 1; c < num_classes; ++c) {
    take(c);
    for (int i = 0; i < lanes; ++i) sum[i] += exp_of(x[i] - top[i]);
  }
  for (int i = 0; i < lanes; ++i) background[i] /= sum[i];
}

// Number of scores >= least.
int count_from(const float* x, int num, float least) {
  int count = 0;
  for (int i = 0; i < num; ++i) count += x[i] >= least;
  return count;
}

// Range of the last wanted score. At least `wanted` certain scores are >= low, at most `wanted` are
// >= high.
struct ScoreRange {
  float low, high;
};

// Bisection of the bits of a score.
ScoreRange find_range(const float* scores, int num, int wanted) {
  auto count = [&](float least) { return simd<count_from>(scores, num, least); };
  float low = 0.5f, high = kCertain;
  if (count(low) < wanted) return {low, kInfinity};
  while (bits_of(high) - bits_of(low) > 1 << 13) {
    const float middle = float_of((bits_of(low) + bits_of(high)) / 2);
    const int reached = count(middle);
    if (reached >= wanted) low = middle;
    if (reached <= wanted) high = middle;
  }
  return {low, high};
}

}  // namespace

void Mining::take(Workspace& memory) {
  scores_ = memory.take<float>(shape_.num_anchors);
  chosen_ = memory.take<int>(shape_.num_anchors);
  keys_ = memory.take<uint64>(shape_.num_anchors);
}

// Only few anchors are mined, and the exact exponential is slow. An approximate one resolves all
// anchors but those near the limit.
Negatives Mining::mine(const float* logits, const Matches& matches) {
  const int num = shape_.num_anchors;
  int num_positive = 0, num_candidates = num;
  matches.for_each(0, num, [&](int a) {
    num_positive += matches.is_positive(a, options_);
    num_candidates -= !matches.is_candidate(a, options_);
  });
  const int wanted = mining_count(num_positive, num, options_.mining_ratio);
  if (wanted == 0) return {chosen_, 0, false};
  if (num_candidates <= wanted) return {chosen_, 0, true};
  score(logits, matches);
  choose(logits, wanted);
  return {chosen_, wanted, false};
}

// Approximate scores: at least 1 or NaN for candidates, -1 for other anchors.
void Mining::score(const float* logits, const Matches& matches) {
  const int num = shape_.num_anchors, tile = parallel_ ? kScoreTile : num;
  const double cost = parallel_ ? 0.25 * shape_.num_classes * tile : 0;
  parallel_for(ceil_div(num, tile), cost, [&](int64 part) {
    const int first = (int)part * tile, end = std::min(num, first + tile);
    simd<approx_score>(scores_ + first, logits + first, shape_.num_classes, num, end - first);
  });
  matches.for_each(0, num, [&](int a) {
    if (!matches.is_candidate(a, options_)) scores_[a] = -1;
  });
}

// Selects the `wanted` highest scores.
void Mining::choose(const float* logits, int wanted) {
  const ScoreRange range = find_range(scores_, shape_.num_anchors, wanted);
  // Approximate and exact scores of two anchors differ in order only within this factor. It is
  // twice the error of the exponentials and of the sums: half an ulp per class.
  const double error = std::exp(1e-3 + 2.5e-7 * shape_.num_classes);
  const float least = (float)(range.low / error);
  int num = 0, certain = 0;
  bool all_certain = true;
  for (int a = 0; a < shape_.num_anchors; ++a) {
    chosen_[num] = a;
    num += !(scores_[a] < least);
  }
  for (int i = 0; i < num; ++i) all_certain &= scores_[chosen_[i]] == scores_[chosen_[i]];
  const float most = all_certain ? (float)(range.high * error) : kInfinity;
  for (int i = 0; i < num; ++i) {
    if (scores_[chosen_[i]] > most) std::swap(chosen_[certain++], chosen_[i]);
  }
  find_keys(logits, chosen_ + certain, num - certain);
  std::nth_element(keys_, keys_ + (wanted - certain), keys_ + (num - certain));
  for (int i = certain; i < wanted; ++i) chosen_[i] = (int)(uint32)keys_[i - certain];
}

void Mining::find_keys(const float* logits, const int* anchors, int num) {
  float background[kBlock];
  for (int first = 0; first < num; first += kBlock) {
    const int some = std::min(kBlock, num - first);
    simd<exact_scores>(background, logits, shape_.num_classes, shape_.num_anchors, anchors + first,
                       some);
    for (int i = 0; i < some; ++i) {
      keys_[first + i] = mining_key(mining_score(background[i]), anchors[first + i]);
    }
  }
}

}  // namespace cvops::cpu
