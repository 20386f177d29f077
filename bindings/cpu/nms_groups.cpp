#include "nms_groups.h"

#include <algorithm>
#include <functional>
#include <optional>
#include <utility>

#include "nms.h"
#include "nms_guesses.h"
#include "nms_sample.h"
#include "parallel.h"

namespace cvops::cpu {
namespace {

// Minimum number of rows, and minimum average number of boxes that a box suppresses.
constexpr int kMinRows = 400, kMinSuppressed = 10;
// Numbers of boxes of the sample that are compared with all boxes of it.
constexpr int kMinSampleCompared = 16, kMaxSampleCompared = 128;
// Average number of boxes of a group among the first rows, and limits of the fraction of these
// rows.
constexpr double kFirstOfGroup = 3, kMinFirst = 0.03, kMaxFirst = 0.25;
// Maximum number of rows that are compared one by one with kept boxes, and of such comparisons.
constexpr int kMaxDecided = 1024, kMaxCompared = 1 << 18;
// Number of rows that are decided before guesses remove some of the next ones.
constexpr int kOneByOne = 128;
// Minimum number of rows for the larger sample.
constexpr int kMinSampled = 2048;
// Maximum fraction of kept rows among the first ones.
constexpr double kMaxKept = 0.6;
// Maximum numbers of list entries per kept box, and of steps per box.
constexpr int64 kMaxEntries = 64, kMaxWork = 12, kFree = 256;
// Rows that a thread takes at once.
constexpr int kPart = 2048;

// The grid of some kept boxes, without cells.
Grid grid_of(const SizedBox* kept, int num, double pixel) {
  Grid grid{pixel};
  AxisSample of_x(pixel), of_y(pixel);
  for (int i = 0, stride = (int)ceil_div(num, AxisSample::kMaxSize); i < num; i += stride) {
    of_x.add(kept[i].box.x1, kept[i].box.x2), of_y.add(kept[i].box.y1, kept[i].box.y2);
  }
  grid.measure(0, of_x), grid.measure(1, of_y);
  return grid;
}

// For each cell of a grid: all kept boxes that may suppress a box there.
class Lists {
 public:
  Lists(const SizedBox* kept, int num, NmsRule rule)
      : rule_(rule), kept_(kept), num_(num), grid_(grid_of(kept, num, rule.pixels)) {}

  // Returns false if the lists would be long.
  bool build() {
    const PerAxis window = 4 * broad_phase_.side_fraction * grid_.median_side;
    const PerAxis cells_along = kCellsOfWindow * grid_.extent / window;
    auto number = [](double cells) { return (int)std::clamp(cells, 1.0, 64.0); };
    grid_.divide(number(cells_along[0]), number(cells_along[1]));
    grid_.max_side = PerAxis{} + kInfinity;  // the other boxes may have any size
    const int cells = grid_.columns * grid_.rows;
    begins_ = pooled_scratch<int>(cells + 1);
    std::fill_n(begins_.get(), cells + 1, 0);
    int64 entries = 0;
    for (int i = 0; i < num_ && entries <= kMaxEntries * (num_ + kFree); ++i) {
      for_each_cell(i, [&](int cell) { ++begins_[cell + 1], ++entries; });
    }
    if (entries > kMaxEntries * (num_ + kFree)) return false;
    // Each number of entries becomes the first one of its cell, and then the first one of the next.
    for (int c = 1, before = 0; c <= cells; ++c) before += std::exchange(begins_[c], before);
    boxes_.emplace(entries);
    boxes_->clear_step(entries);
    for (int i = 0; i < num_; ++i) {
      for_each_cell(i, [&](int cell) { boxes_->put(begins_[cell + 1]++, kept_[i]); });
    }
    return true;
  }

  // Adds the steps to `work`. The last step compares boxes of the next cells too.
  template <Form kForm>
  CVOPS_INLINE bool suppress(const SizedBox& b, const RuleBounds& bounds, int64& work) const {
    const int cell = grid_.cell_of(b.box);
    for (int at = begins_[cell], end = begins_[cell + 1]; at < end; at += kStep, ++work) {
      int found[kStep];
      CVOPS_VECTORIZED
      for (int k = 0; k < kStep; ++k) found[k] = may_suppress<kForm>(b, boxes_->at(at + k), bounds);
      if (!any(found)) continue;
      CVOPS_VECTORIZED
      for (int k = 0; k < kStep; ++k) {
        found[k] = suppresses_by_rule<kForm>(boxes_->at(at + k), b, rule_);
      }
      if (any(found)) return true;
    }
    return false;
  }

 private:
  static constexpr double kCellsOfWindow = 2.5;  // of a median box, along each axis

  template <typename Body>
  void for_each_cell(int i, const Body& body) const {
    const Window window = grid_.in_reach(kept_[i].box, broad_phase_.side_fraction);
    for (int row = window.row; row < window.end_row; ++row) {
      for (int column = window.column; column < window.end_column; ++column) {
        body(row * grid_.columns + column);
      }
    }
  }

  const NmsRule rule_;
  const BroadPhase broad_phase_{rule_, false};
  const SizedBox* const kept_;
  const int num_;
  Grid grid_;
  PooledScratch<int> begins_;  // of the list of each cell
  std::optional<BoxArrays> boxes_;
};

// Writes the numbers of the rows [first, end) that the guessed boxes do not suppress: of the valid
// ones with scores below `least`.
template <Form kForm>
int remove_guessed(int* left, int first, int end, const Rows rows, const KeptBoxes& kept,
                   float least) {
  constexpr int kSize = BoxChunk::kSize;
  const NmsColumns columns = rows.options.columns;
  const float valid_thresh = rows.options.valid_thresh, background = rows.options.background_id;
  float scores[kSize];
  int is_left[kSize], num_left = 0;
  for (; first < end; first += kSize) {
    const int num = std::min(kSize, end - first);
    const float* const row = rows.at(first);
    for (int k = 0; k < num; ++k) scores[k] = row[(int64)k * columns.width + columns.score];
    for (int k = 0; k < kSize; ++k) {
      is_left[k] = (scores[k] > valid_thresh) & (scores[k] < least);
    }
    if (columns.id >= 0) {
      for (int k = 0; k < num; ++k) {
        is_left[k] &= row[(int64)k * columns.width + columns.id] != background;
      }
    }
    kept.clear_suppressed<kForm>(is_left, num, rows, 0, [&](int k) __attribute__((always_inline)) {
      return row + (int64)k * columns.width;
    });
    for (int k = 0; k < num; ++k) {
      left[num_left] = first + k;
      num_left += is_left[k];
    }
  }
  return num_left;
}

// Moves the numbers of the rows that the guessed boxes do not suppress to the front.
template <Form kForm>
CVOPS_INLINE int remove_by_guess(int* some, int num, const Rows rows, const KeptBoxes& kept,
                                 int which) {
  constexpr int kSize = BoxChunk::kSize;
  int is_left[kSize], num_left = 0;
  for (int first = 0; first < num; first += kSize) {
    const int number = std::min(kSize, num - first);
    std::fill_n(is_left, kSize, 1);
    kept.clear_suppressed<kForm>(
        is_left, number, rows, which,
        [&](int k) __attribute__((always_inline)) { return rows.at(some[first + k]); });
    for (int k = 0; k < number; ++k) {
      some[num_left] = some[first + k];
      num_left += is_left[k];
    }
  }
  return num_left;
}

// The same for the lists. Returns -1 if that is slow, or if the lists do not suit a box.
template <Form kForm>
int remove_by_lists(int* some, int num, const Rows rows, const Lists& lists) {
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

// Calls remove(first, end), on several threads, for parts of [0, num). It writes numbers from `some
// + first` on, and returns how many these are. Moves all to the front. Returns their number, or -1
// if a call does.
template <typename Remove>
int remove_in_parts(int* some, int num, int threads, const Remove& remove) {
  const int part = threads < 2 ? std::max(num, 1) : kPart;
  const int parts = (int)ceil_div(num, part);
  const auto left = pooled_scratch<int>(parts);
  parallel_for(parts, 4.0 * part, [&](int64 p) {
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

// Estimates how many boxes a box suppresses, and which rows to decide first.
struct First {
  float least;  // lowest score of these rows
  Grid grid{0};

  // Returns false if boxes suppress few others.
  template <Form kForm>
  bool choose(const Rows& rows, int num) {
    BoxSample sample;
    AxisSample of_x(0), of_y(0);
    float scores[BoxSample::kMost];
    const int most = num < kMinSampled ? BoxSample::kMost / 2 : BoxSample::kMost;
    for (int i = 0; i < most; ++i) {
      const int row = (int)((int64)i * num / most);
      if (!rows.is_valid(row)) continue;
      scores[sample.num] = rows.score(row);
      const SizedBox b = rows.box(row);
      sample.add(b, 0);
      if (of_x.num == AxisSample::kMaxSize || rows.kind_of_cell(b) != kGridCell) continue;
      of_x.add(b.box.x1, b.box.x2), of_y.add(b.box.y1, b.box.y2);
    }
    if (sample.num < most / 2 || of_x.num < 2) return false;
    const int compared = std::clamp(num / most, kMinSampleCompared, kMaxSampleCompared);
    const double suppressed = num * fraction_of_pairs<kForm>(sample, compared, rows.bounds);
    if (suppressed < kMinSuppressed) return false;
    const double fraction = std::clamp(kFirstOfGroup / suppressed, kMinFirst, kMaxFirst);
    float* const at = scores + (int)(fraction * sample.num);
    std::nth_element(scores, at, scores + sample.num, std::greater<float>());
    least = *at;
    grid.measure(0, of_x), grid.measure(1, of_y);
    return true;
  }
};

// Decides rows, the best first, and appends the numbers of the kept ones. Returns false if a box
// does not suit the bounds of the rule, or if there would be more than `most` kept boxes.
template <Form kForm>
bool decide(KeptBoxes& kept, int* numbers, int& count, int* some, int num, const Rows rows,
            int most) {
  for (int i = 0; i < num; ++i) {
    const SizedBox b = rows.box(some[i]);
    const int kind = rows.kind_of_cell(b);
    if (kind == kOverflowCell || kept.num() >= most) return false;
    numbers[count] = some[i];
    if (kind == kNoCell) {
      ++count;
    } else if (!kept.suppress<kForm>(b, rows.bounds, rows.options.rule)) {
      ++count, kept.add(b);
    }
    // Guesses remove most of the next rows.
    if (i + 1 == kOneByOne)
      num = i + 1 + remove_by_guess<kForm>(some + i + 1, num - i - 1, rows, kept, 0);
  }
  return true;
}

// The same for `num` rows in ascending order.
template <Form kForm>
bool decide_some(KeptBoxes& kept, int* numbers, int& count, int* some, int num, const Rows& rows,
                 int most) {
  const auto keys = pooled_scratch<uint64>(2 * (int64)num);
  for (int i = 0; i < num; ++i) keys[i] = sort_key(rows.score(some[i]), (uint32)some[i]);
  const uint64* const sorted = sort_keys(keys.get(), keys.get() + num, num, num);
  for (int i = 0; i < num; ++i) some[i] = (int)index_of(sorted[i]);
  return simd<decide<kForm>>(kept, numbers, count, some, num, rows, most);
}

// Returns the number of the first rows.
int list_first(int* some, int num, const Rows rows, float least) {
  int first = 0;
  for (int i = 0; i < num; ++i) {
    some[first] = i;
    first += rows.is_valid(i) & (rows.score(i) >= least);
  }
  return first;
}

template <Form kForm>
bool keep(int* numbers, FewRows& count, const Rows rows, int num, int threads,
          const KeepSome& keep_some) {
  First first;
  if (!first.choose<kForm>(rows, num)) return false;
  const auto memory = pooled_scratch<int>((int64)num + 1);
  int* const some = memory.get();
  const int num_first = list_first(some, num, rows, first.least);
  KeptBoxes kept(first.grid, num, std::max(num_first, KeptBoxes::kMost));
  count = {};
  const int most_of_first = (int)(kMaxKept * num_first) + 1;
  if (num_first <= kMaxDecided) {
    const int most = std::min(most_of_first, KeptBoxes::kMost);
    if (!decide_some<kForm>(kept, numbers, count.kept, some, num_first, rows, most)) return false;
  } else {
    count.kept = keep_some(numbers, some, num_first);
    for (int i = 0; i < count.kept; ++i) {
      const SizedBox b = rows.box(numbers[i]);
      const int kind = rows.kind_of_cell(b);
      if (kind == kOverflowCell) return false;
      if (kind == kGridCell) kept.add(b);
    }
  }
  if (count.kept >= most_of_first || kept.num() == 0) return false;
  int left = remove_in_parts(some, num, threads, [&](int begin, int end) {
    return simd<remove_guessed<kForm>>(some + begin, begin, end, rows, kept, first.least);
  });
  left = remove_in_parts(some, left, threads, [&](int begin, int end) {
    return simd<remove_by_guess<kForm>>(some + begin, end - begin, rows, kept, 1);
  });
  const bool are_few = left <= kMaxDecided && (int64)left * kept.num() < kMaxCompared;
  if (are_few && kept.num() < KeptBoxes::kMost) {
    return decide_some<kForm>(kept, numbers, count.kept, some, left, rows, KeptBoxes::kMost);
  }
  Lists lists(kept.boxes(), kept.num(), rows.options.rule);
  if (!lists.build()) return false;
  left = remove_in_parts(some, left, threads, [&](int begin, int end) {
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
