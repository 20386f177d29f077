// A sample of the rows of a set.
#pragma once
#include <algorithm>
#include <functional>

#include "nms_guesses.h"

namespace cvops::cpu {

// The greatest of numbers that are no NaNs. It overwrites them.
template <int kNum>
CVOPS_INLINE float greatest_of(float (&numbers)[kNum]) {
  static_assert((kNum & (kNum - 1)) == 0, "");
  for (int half = kNum / 2; half; half /= 2) {
    for (int k = 0; k < half; ++k) numbers[k] = larger(numbers[k], numbers[k + half]);
  }
  return numbers[0];
}

// Numbers with their ranks.
template <int kNum>
struct Ranked {
  float numbers[kNum];
  int lower[kNum];  // numbers that are lower

  CVOPS_INLINE void rank() {
    for (int k = 0; k < kNum; ++k) lower[k] = 0;
    for (int i = 0; i < kNum; ++i) {
      for (int k = 0; k < kNum; ++k) lower[k] += numbers[i] < numbers[k];
    }
  }

  CVOPS_INLINE float nth_lowest(int n) const {
    float up_to_nth[kNum];
    for (int k = 0; k < kNum; ++k) up_to_nth[k] = lower[k] <= n ? numbers[k] : -kInfinity;
    return greatest_of(up_to_nth);
  }
};

// A sample of a set. It tells how many boxes a box suppresses, and which rows to decide first.
class RowSample {
 public:
  float least;              // lowest score of the first rows
  float low[2], extent[2];  // of the positions of most boxes along each axis

  // Returns false if boxes suppress few others.
  template <Form kForm, int kWidth>
  CVOPS_INLINE bool take(const Rows rows, int num) {
    const int bits = num < kMinForMost ? kBits - 1 : kBits, most = 1 << bits;
    // The even ones of equally distant rows, then the odd ones: near rows are in different halves.
    auto number = [&](int k) __attribute__((always_inline)) {
      return (int)((int64)((2 * k & (most - 1)) + (2 * k >> bits)) * num >> bits);
    };
    boxes_.load_numbers<kWidth>(most, [&](int k) __attribute__((always_inline)) {
      return rows.at(number(k)) + rows.options.columns.coord;
    });
    rows.load_scores(scores_, most, number);
    boxes_.size_all(kForm == Form::center, most);
    int valid = 0;
    for (int k = 0; k < most; ++k) {
      const int is_valid = scores_[k] > -kInfinity;
      in_grid_[k] = is_valid & is_in_grid(boxes_.at(k));
      valid += is_valid;
      boxes_.put(k, in_grid_[k] ? boxes_.at(k) : kNone);
    }
    if (valid < most / 2) return false;
    const double suppressed = num * fraction_of_pairs<kForm>(num, most, rows.bounds);
    if (suppressed < kMinSuppressed || !measure(most)) return false;
    const double fraction = std::clamp(kFirstOfGroup / suppressed, kMinFirst, kMaxFirst);
    float* const at = scores_ + (int)(fraction * valid);
    std::nth_element(scores_, at, scores_ + most, std::greater<float>());
    least = *at;
    return true;
  }

 private:
  // The fraction of pairs of which a box suppresses the other one, in all pairs of rows. A box is
  // compared with the other half of the sample.
  template <Form kForm>
  CVOPS_INLINE double fraction_of_pairs(int num, int most, const RuleBounds& bounds) const {
    const int compared = std::clamp(num / most, kMinCompared, kMaxCompared);
    int found[kStep] = {}, valid = 0, pairs = 0;
    for (int i = 0; i < compared; ++i) {
      const int own = i * most / compared;
      const SizedBox b = boxes_.at(own);
      valid += in_grid_[own];
      const int first = own < most / 2 ? most / 2 : 0;
      for (int at = first; at < first + most / 2; at += kStep) {
        CVOPS_VECTORIZED
        for (int k = 0; k < kStep; ++k) {
          found[k] += may_suppress<kForm>(b, boxes_.at(at + k), bounds);
        }
      }
    }
    for (int of_lane : found) pairs += of_lane;
    return valid ? 2.0 * pairs / ((double)valid * most) : 0;
  }

  // Returns false if the grid has few boxes.
  CVOPS_INLINE bool measure(int most) {
    measure_axis(0, most, [&](const Box& b) __attribute__((always_inline)) { return b.x1 + b.x2; });
    return measure_axis(1, most, [&](const Box& b) __attribute__((always_inline)) {
             return b.y1 + b.y2;
           }) >= kMeasured / 4;
  }

  // Returns the number of boxes that tell the extent. Outliers extend it to three times at most.
  template <typename Position>
  CVOPS_INLINE int measure_axis(int axis, int most, const Position& position) {
    float highs[kStep], opposite_lows[kStep];
    for (int k = 0; k < kStep; ++k) highs[k] = opposite_lows[k] = -kInfinity;
    for (int at = 0; at < most; at += kStep) {
      CVOPS_VECTORIZED
      for (int k = 0; k < kStep; ++k) {
        const float own = position(boxes_.at(at + k).box);
        highs[k] = larger(highs[k], in_grid_[at + k] ? own : -kInfinity);
        opposite_lows[k] = larger(opposite_lows[k], in_grid_[at + k] ? -own : -kInfinity);
      }
    }
    const float greatest = greatest_of(highs), least = -greatest_of(opposite_lows);
    Ranked<kMeasured> some;
    int num = 0;
    for (int k = 0; k < kMeasured; ++k) {
      const int own = k * (most / kMeasured);
      some.numbers[k] = in_grid_[own] ? position(boxes_.at(own).box) : kInfinity;
      num += in_grid_[own];
    }
    some.rank();
    const float begin = some.nth_lowest(num / 8), end = some.nth_lowest(num - 1 - num / 8);
    const float middle = end - begin;
    low[axis] = larger(least, begin - middle);
    extent[axis] = smaller(greatest, end + middle) - low[axis];
    return num;
  }

  // Minimum average number of boxes that a box suppresses.
  static constexpr int kMinSuppressed = 10;
  // Numbers of boxes that are compared with all boxes of the sample.
  static constexpr int kMinCompared = 16, kMaxCompared = 128;
  // Average number of boxes of a group among the first rows, and limits of the fraction of these.
  static constexpr double kFirstOfGroup = 3, kMinFirst = 0.03, kMaxFirst = 0.25;
  // Minimum number of rows for the larger sample.
  static constexpr int kMinForMost = 2048;
  static constexpr int kBits = 8, kMeasured = 32;
  BoxChunk<1 << kBits> boxes_;
  float scores_[1 << kBits];
  int in_grid_[1 << kBits];
};

}  // namespace cvops::cpu
