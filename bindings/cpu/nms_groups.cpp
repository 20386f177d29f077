#include "nms_groups.h"

#include <algorithm>
#include <cstring>
#include <functional>

#include "append.h"
#include "nms.h"
#include "nms_guesses.h"
#include "nms_kept_lists.h"
#include "nms_row_sample.h"
#include "parallel.h"

namespace cvops::cpu {
namespace {

// Minimum number of rows.
constexpr int kMinRows = 400;
// Maximum number of rows that are decided at once, and their usual number among the rows left.
constexpr int kMaxDecided = 1024, kUsualDecided = 96;
// Rows that are decided between removals by guess.
constexpr int kBlock = 64;
// Maximum fraction of the rows left, beyond kMaxDecided, that guesses may leave.
constexpr double kMaxLeft = 0.75;
// Maximum fraction of kept rows among the first ones.
constexpr double kMaxKept = 0.75;
// Rows that a thread takes at once, and the time of a row in ns: to list it, to compare it with a
// guessed box, and with lists of boxes.
constexpr int kPart = 2048;
constexpr double kListing = 1, kGuessing = 1, kSearching = 10;

// Rows per step. A part of the rows is whole steps, but for the last one.
constexpr int kRows = 128;

// Writes the scores of rows, -infinity for those that are no candidates, and the numbers of the
// rows [first, end) with scores of `least` or more. Returns how many these are. Scores have memory
// for whole steps.
template <int kWidth>
CVOPS_INLINE int list_first(int* some, float* scores, int first, int end, const Rows rows,
                            float least) {
  int is_first[kRows], numbers[kRows], num_first = 0;
  for (; first < end; first += kRows) {
    float own[kRows];
    rows.load_scores<kRows>(own, std::min(kRows, end - first),
                            [&](int k) __attribute__((always_inline)) { return first + k; });
    for (int k = 0; k < kRows; ++k) is_first[k] = own[k] >= least, numbers[k] = first + k;
    std::memcpy(scores + first, own, sizeof own);
    num_first += append<kWidth>(some + num_first, numbers, is_first, std::min(kRows, end - first));
  }
  return num_first;
}

// Writes the numbers of the rows [first, end) that the guessed boxes do not suppress: of those with
// scores below `least`.
template <Form kForm, int kWidth>
CVOPS_INLINE int remove_guessed(int* left, const float* scores, int first, int end, const Rows rows,
                                const KeptBoxes& kept, float least) {
  int is_left[kRows], numbers[kRows], num_left = 0;
  for (; first < end; first += kRows) {
    const int num = std::min(kRows, end - first);
    const float* const row = rows.at(first);
    float own[kRows];
    std::memcpy(own, scores + first, sizeof own);
    for (int k = 0; k < kRows; ++k) {
      is_left[k] = (own[k] > -kInfinity) & (own[k] < least), numbers[k] = first + k;
    }
    kept.clear_suppressed<kForm, kWidth, kRows>(
        is_left, num, rows, 0, [&](int k) __attribute__((always_inline)) {
          return row + (int64)k * rows.options.columns.width;
        });
    num_left += append<kWidth>(left + num_left, numbers, is_left, num);
  }
  return num_left;
}

// Moves the numbers of the rows that the guessed boxes do not suppress to the front.
template <Form kForm, int kWidth, int kSize = kRows>
CVOPS_INLINE int remove_by_guess(int* some, int num, const Rows rows, const KeptBoxes& kept,
                                 int which) {
  int is_left[kSize], num_left = 0;
  for (int first = 0; first < num; first += kSize) {
    const int number = std::min(kSize, num - first);
    std::fill_n(is_left, kSize, 1);
    kept.clear_suppressed<kForm, kWidth, kSize>(
        is_left, number, rows, which,
        [&](int k) __attribute__((always_inline)) { return rows.at(some[first + k]); });
    num_left += append<kWidth>(some + num_left, some + first, is_left, number);
  }
  return num_left;
}

// Maximum number of steps per box.
constexpr int64 kMaxWork = 12, kFree = 256;

// The same by the lists. Returns -1 if that is slow, or if the lists do not suit a box.
template <Form kForm>
int remove_by_lists(int* some, int num, const Rows rows, const KeptLists& lists) {
  int left = 0;
  int64 work = 0;
  for (int i = 0; i < num; ++i) {
    const SizedBox b = rows.box(some[i]);
    const int kind = rows.kind_of_cell(b);
    if (kind == kOverflowCell || work > kMaxWork * (i + kFree)) return -1;
    some[left] = some[i];
    left += kind == kNoCell || !lists.suppress<kForm>(b, rows.bounds, work);
  }
  return left;
}

// Calls remove(first, end), on several threads if that pays at that cost of a number, for parts of
// [0, num). It writes numbers from `some + first` on, and returns how many these are. Moves all to
// the front. Returns their number, or -1 if a call does.
template <typename Remove>
int remove_in_parts(int* some, int num, int threads, double cost, const Remove& remove) {
  const int part = threads < 2 ? std::max(num, 1) : kPart;
  const int parts = (int)ceil_div(num, part);
  const auto left = pooled_scratch<int>(parts);
  parallel_for(parts, cost * part, [&](int64 p) {
    const int first = (int)p * part;
    left[p] = remove(first, std::min(first + part, num));
  });
  int count = 0;
  for (int p = 0; p < parts; ++p) {
    if (left[p] < 0) return -1;
    std::copy_n(some + p * part, left[p], some + count);
    count += left[p];
  }
  return count;
}

// Decides a block of rows, the best first, and appends the numbers of the kept ones. Returns false
// if a box does not suit the bounds of the rule, or if there would be `most` kept rows.
template <Form kForm, int kWidth>
CVOPS_INLINE bool decide_block(KeptBoxes& kept, int* numbers, int& count, const int* some, int num,
                               const Rows rows, int most) {
  MarkedBlock<kBlock> block;
  block.template load_numbers<kWidth>(num, [&](int i) __attribute__((always_inline)) {
    return rows.at(some[i]) + rows.options.columns.coord;
  });
  block.size_all(kForm == Form::center, num);
  int suit = 1;
  for (int i = 0; i < num; ++i) {
    const SizedBox b = block.at(i);
    const int in_grid = is_in_grid(b);
    suit &= in_grid | !overflows<kForm>(b);
    block.put(i, in_grid ? b : kNone);
  }
  if (!suit) return false;
  block.begin(num);
  block.template mark_all<kForm>(kept.boxes(), kept.num(), num, rows.bounds, rows.options.rule);
  for (int i = 0; i < num; ++i) {
    if (block.marks[i]) continue;
    if (count >= most) return false;
    numbers[count++] = some[i];
    const SizedBox b = block.at(i);
    if (b.box.x1 > b.box.x2) continue;
    block.template mark<kForm>(b, i + 1, num, rows.bounds, rows.options.rule);
    kept.add(b);
  }
  return true;
}

// The same for at most kMaxDecided rows in any order.
template <Form kForm>
bool decide(KeptBoxes& kept, int* numbers, int& count, const int* some, int num, const Rows& rows,
            int most) {
  uint64 keys[2 * kMaxDecided];
  for (int i = 0; i < num; ++i) keys[i] = sort_key(rows.score(some[i]), (uint32)some[i]);
  const uint64* const sorted = sort_keys(keys, keys + kMaxDecided, num, num);
  return by_width([&](auto width) __attribute__((always_inline)) {
    for (int first = 0; first < num; first += kBlock) {
      int block[kBlock], size = std::min(kBlock, num - first);
      for (int i = 0; i < size; ++i) block[i] = (int)index_of(sorted[first + i]);
      if (first) size = remove_by_guess<kForm, width, kBlock>(block, size, rows, kept, 0);
      if (!decide_block<kForm, width>(kept, numbers, count, block, size, rows, most)) return false;
    }
    return true;
  });
}

// The lowest score of about kUsualDecided of the rows.
float least_of_best(const int* some, const float* scores, int num) {
  if (num <= 4 * kUsualDecided / 3) return -kInfinity;
  constexpr int kSample = 128;
  float sample[kSample];
  for (int k = 0; k < kSample; ++k) sample[k] = scores[some[(int64)k * num / kSample]];
  float* const at = sample + kSample * kUsualDecided / num;
  std::nth_element(sample, at, sample + kSample, std::greater<float>());
  return *at;
}

// Adds kept rows. Returns false if a box does not suit the bounds of the rule.
bool add_all(KeptBoxes& kept, const int* numbers, int num, const Rows rows) {
  for (int i = 0; i < num; ++i) {
    const SizedBox b = rows.box(numbers[i]);
    const int kind = rows.kind_of_cell(b);
    if (kind == kOverflowCell) return false;
    if (kind == kGridCell) kept.add(b);
  }
  return true;
}

template <Form kForm>
bool keep(int* numbers, FewRows& count, const Rows rows, int num, int threads,
          const KeepSome& keep_some) {
  RowSample sample;
  const bool suits = by_width([&](auto width) __attribute__((always_inline)) {
    return sample.take<kForm, width>(rows, num);
  });
  if (!suits) return false;
  const auto memory = pooled_scratch<int>(2 * (int64)num + 1 + kRows);
  int* const some = memory.get();
  float* const scores = (float*)(some + num + 1);
  const int num_first = remove_in_parts(some, num, threads, kListing, [&](int begin, int end) {
    return by_width([&](auto width) __attribute__((always_inline)) {
      return list_first<width>(some + begin, scores, begin, end, rows, sample.least);
    });
  });
  KeptBoxes kept(sample.low, sample.extent, num, std::max(num_first, KeptBoxes::kMost));
  by_width([&](auto) __attribute__((always_inline)) { kept.clear(); });
  count = {};
  const int most_of_first = (int)(kMaxKept * num_first) + 1;
  if (num_first <= kMaxDecided) {
    const int most = std::min(most_of_first, KeptBoxes::kMost);
    if (!decide<kForm>(kept, numbers, count.kept, some, num_first, rows, most)) return false;
  } else {
    count.kept = keep_some(numbers, some, num_first);
    if (!simd<add_all>(kept, numbers, count.kept, rows)) return false;
  }
  if (count.kept >= most_of_first || kept.num() == 0) return false;
  int left = remove_in_parts(some, num, threads, kGuessing, [&](int begin, int end) {
    return by_width([&](auto width) __attribute__((always_inline)) {
      return remove_guessed<kForm, width>(some + begin, scores, begin, end, rows, kept,
                                          sample.least);
    });
  });
  auto remove_left = [&](int* from, int number, int which) {
    return remove_in_parts(from, number, threads, kGuessing, [&](int begin, int end) {
      return by_width([&](auto width) __attribute__((always_inline)) {
        return remove_by_guess<kForm, width>(from + begin, end - begin, rows, kept, which);
      });
    });
  };
  left = remove_left(some, left, 1);
  // With narrow vectors, lists are faster than comparisons with all kept boxes sooner.
  const int most_kept = current_simd == Simd::baseline ? KeptBoxes::kMost / 4 : KeptBoxes::kMost;
  for (int before = num; left > 0; before = left) {
    const float least = least_of_best(some, scores, left);
    int num_best = 0;
    for (int i = 0; i < left; ++i) num_best += scores[some[i]] >= least;
    const bool is_slow = left > kMaxDecided && left > kMaxLeft * before;
    if (is_slow || count.kept + num_best >= most_kept) break;
    int best[KeptBoxes::kMost], others = 0;
    num_best = 0;
    for (int i = 0; i < left; ++i) {
      const int row = some[i];
      const bool is_best = scores[row] >= least;
      best[num_best] = row, some[others] = row;
      num_best += is_best, others += !is_best;
    }
    if (!decide<kForm>(kept, numbers, count.kept, best, num_best, rows, num)) return false;
    for (int which : {0, 1}) others = remove_left(some, others, which);
    left = others;
  }
  if (left == 0) return true;
  KeptLists lists(kept.boxes(), kept.num(), rows.options.rule);
  if (!lists.build()) return false;
  left = remove_in_parts(some, left, threads, kSearching, [&](int begin, int end) {
    return simd<remove_by_lists<kForm>>(some + begin, end - begin, rows, lists);
  });
  if (left < 0) return false;
  std::copy_n(some, left, numbers + count.kept);
  count.left = left;
  return true;
}

}  // namespace

bool keep_in_groups(int* numbers, FewRows& count, const float* rows, int64 num,
                    const NmsOptions& options, int threads, const KeepSome& keep_some) {
  const NmsRule& rule = options.rule;
  const bool suits = num >= kMinRows && options.topk >= num && !rule.by_class;
  if (!suits || !RuleBounds::suit(rule)) return false;
  const Rows set = {rows, options};
  return rule.center ? keep<Form::center>(numbers, count, set, (int)num, threads, keep_some)
                     : keep<Form::corner>(numbers, count, set, (int)num, threads, keep_some);
}

}  // namespace cvops::cpu
