#include "soft_nms_steps.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "result_pool.h"
#include "simd.h"
#include "soft_nms_factors.h"

namespace cvops::cpu {
namespace {

// Candidates per vector step.
constexpr int kLanes = 16;
// Number of kept boxes after which many dropped candidates leave the arrays.
constexpr int kCompact = 64;
// Vector steps of a sample of candidates: one of four is compared with all others. Minimum number
// of all candidates, and minimum shares of pairs of which one box lowers the score of the other
// one.
constexpr int kSampleSteps = 4, kMinCandidates = 24;
constexpr double kMinOfGaussian = 0.13, kMinOfLinear = 0.01;
// With narrow vectors, exponentials take most of the time of a step. Steps are then faster only if
// many pairs have an IoU above this one, which changes the order of the scores.
constexpr float kMinIouOfNarrow = 0.1f;
constexpr float kDropped = -std::numeric_limits<float>::infinity();

// The candidates that are left. The order of the slots does not matter.
struct Candidates {
  const int capacity;
  const PooledScratch<float> floats = pooled_scratch<float>(7 * (int64)capacity);
  const PooledScratch<int> integers = pooled_scratch<int>(2 * (int64)capacity);
  float *const x1 = floats.get(), *const y1 = x1 + capacity, *const x2 = y1 + capacity,
               *const y2 = x2 + capacity, *const area = y2 + capacity,
               *const min_overlap = area + capacity, *const score = min_overlap + capacity;
  int *const row = integers.get(), *const of_class = row + capacity;
  int num;

  // A sample of `num` candidates, or all of them.
  Candidates(const NmsCandidates& found, int num, bool by_class, const MinOverlap& part)
      : capacity(kLanes * (int)ceil_div(num, kLanes)), num(num) {
    for (int i = 0; i < num; ++i) {
      const int from = (int)((int64)i * found.count / num);
      const SizedBox& b = found.boxes[from];
      x1[i] = b.box.x1, y1[i] = b.box.y1, x2[i] = b.box.x2, y2[i] = b.box.y2;
      area[i] = b.area, min_overlap[i] = part(b.area), score[i] = score_of(found.sorted[from]);
      row[i] = (int)index_of(found.sorted[from]), of_class[i] = by_class ? found.classes[from] : 0;
    }
    for (int i = num; i < capacity; ++i) move(i, 0), drop(i);
  }

  CVOPS_INLINE void move(int to, int from) const {
    for (float* of : {x1, y1, x2, y2, area, min_overlap, score}) of[to] = of[from];
    row[to] = row[from], of_class[to] = of_class[from];
  }

  CVOPS_INLINE void drop(int i) const {
    score[i] = kDropped, min_overlap[i] = std::numeric_limits<float>::infinity();
  }

  CVOPS_INLINE void remove_dropped() {
    int dropped = 0, left = 0;
    for (int i = 0; i < num; ++i) dropped += score[i] == kDropped;
    if (dropped < num / 8) return;
    for (int i = 0; i < num; ++i) {
      move(left, i);
      left += score[i] > kDropped;
    }
    for (int i = left; i < num; ++i) drop(i);
    num = left;
  }
};

// Lowers all scores by one kept box. Returns the slot of the best candidate.
template <bool kCenter, bool kGaussian>
CVOPS_INLINE int lower(const Candidates& all, const SizedBox& b, float least, int of_class,
                       float lowest, const SoftNms& op) {
  const float *const x1 = all.x1, *const y1 = all.y1, *const x2 = all.x2, *const y2 = all.y2,
                     *const area = all.area, *const min_overlap = all.min_overlap;
  float* const scores = all.score;
  const int *const rows = all.row, *const classes = all.of_class, num = all.num;
  float best[kLanes];
  int best_at[kLanes], best_row[kLanes];
  for (int k = 0; k < kLanes; ++k) best[k] = kDropped, best_at[k] = -1, best_row[k] = 0;
  for (int at = 0; at < num; at += kLanes) {
    float ious[kLanes];
    int any = 0;
    CVOPS_INDEPENDENT
    for (int k = 0; k < kLanes; ++k) {
      const int i = at + k;
      const float overlap = intersection(b.box, {x1[i], y1[i], x2[i], y2[i]}, kCenter);
      const int passes = (overlap > least + min_overlap[i]) & (classes[i] == of_class);
      const float iou = overlap / (b.area + area[i] - overlap);
      ious[k] = passes ? iou : 0.0f;
      any |= passes;
    }
    if (any) {
      float factors[kLanes];
      soft_nms_factors<kLanes, kGaussian>(factors, ious, op);
      CVOPS_NOT_UNROLLED
      for (int k = 0; k < kLanes; ++k) {
        // A factor of an IoU above 1 is negative.
        const float before = scores[at + k], score = before * factors[k];
        const int is_left = (before > lowest) & (score > lowest);
        scores[at + k] = is_left ? score : kDropped;
      }
    }
    for (int k = 0; k < kLanes; ++k) {
      const float score = scores[at + k];
      const int row = rows[at + k];
      const int is_higher = score > best[k], is_same = score == best[k],
                is_first = row < best_row[k];
      const int is_better = is_higher | (is_same & is_first);
      best[k] = is_better ? score : best[k];
      best_row[k] = is_better ? row : best_row[k];
      best_at[k] = is_better ? at + k : best_at[k];
    }
  }
  int lane = 0;
  for (int k = 1; k < kLanes; ++k) {
    if (best[k] > best[lane] || (best[k] == best[lane] && best_row[k] < best_row[lane])) lane = k;
  }
  return best_at[lane];
}

template <bool kCenter, bool kGaussian>
int keep(int* rows, float* scores, Candidates& of, const SoftNmsOptions& options,
         const MinOverlap& part) {
  const float lowest = options.candidates.valid_thresh;
  const SoftNms op = {options.op.threshold, options.op.sigma, kGaussian, true, kCenter};
  int count = 0;
  for (int at = 0; at >= 0 && count < options.rows;) {
    rows[count] = of.row[at], scores[count++] = of.score[at];
    const SizedBox b = {{of.x1[at], of.y1[at], of.x2[at], of.y2[at]}, of.area[at]};
    const int of_class = of.of_class[at];
    of.move(at, of.num - 1);
    of.drop(--of.num);
    if (count % kCompact == 0) of.remove_dropped();
    at = lower<kCenter, kGaussian>(of, b, part(b.area), of_class, lowest, op);
  }
  return count;
}

// Number of pairs of boxes whose overlap is above the bound. `compared` boxes are compared with all
// others.
template <bool kCenter>
int count_pairs(const Candidates& of, int compared, const MinOverlap& part) {
  int found[kLanes] = {};
  for (int i = 0; i < compared; ++i) {
    const int own = i * of.num / compared, own_class = of.of_class[own];
    const Box b = {of.x1[own], of.y1[own], of.x2[own], of.y2[own]};
    const float least = part(of.area[own]);
    for (int at = 0; at < of.num; at += kLanes) {
      CVOPS_NOT_UNROLLED
      for (int k = 0; k < kLanes; ++k) {
        const int j = at + k;
        const float overlap = intersection(b, {of.x1[j], of.y1[j], of.x2[j], of.y2[j]}, kCenter);
        found[k] += (overlap > least + of.min_overlap[j]) & (of.of_class[j] == own_class);
      }
    }
  }
  return std::accumulate(found, found + kLanes, -compared);
}

}  // namespace

bool suits_steps(const NmsCandidates& found, const SoftNms& op) {
  if (found.count < kMinCandidates) return false;
  const int num = kLanes * std::clamp(found.count / 64, 1, kSampleSteps), compared = num / 4;
  const bool is_narrow = op.gaussian && current_simd != Simd::avx512;
  const MinOverlap part = is_narrow ? MinOverlap(kMinIouOfNarrow) : min_lowering_overlap(op);
  const Candidates sample(found, num, op.by_class, part);
  const int pairs = op.center ? simd<count_pairs<true>>(sample, compared, part)
                              : simd<count_pairs<false>>(sample, compared, part);
  const double least = op.gaussian ? kMinOfGaussian : std::max(kMinOfLinear, 1.0 / found.count);
  return pairs > 2 + least * compared * num;
}

int keep_by_steps(int* rows, float* scores, const NmsCandidates& found,
                  const SoftNmsOptions& options) {
  const SoftNms& op = options.op;
  const MinOverlap part = min_lowering_overlap(op);
  Candidates of(found, found.count, op.by_class, part);
  auto run = [&](auto by) { return by(rows, scores, of, options, part); };
  if (op.center) {
    return op.gaussian ? run([](auto&&... args) { return simd<keep<true, true>>(args...); })
                       : run([](auto&&... args) { return simd<keep<true, false>>(args...); });
  }
  return op.gaussian ? run([](auto&&... args) { return simd<keep<false, true>>(args...); })
                     : run([](auto&&... args) { return simd<keep<false, false>>(args...); });
}

}  // namespace cvops::cpu
