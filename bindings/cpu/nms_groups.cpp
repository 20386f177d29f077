#include "nms_groups.h"

#include <algorithm>
#include <functional>
#include <optional>
#include <utility>

#include "nms/rows.cuh"
#include "nms_broad_phase.h"
#include "nms_grid.h"
#include "nms_lanes.h"
#include "nms_sample.h"
#include "parallel.h"

namespace cvops::cpu {
namespace {

// Minimum number of rows, and minimum average number of boxes that a box suppresses.
constexpr int kMinRows = 1200, kMinSuppressed = 10;
// Numbers of boxes of the sample that are compared with all boxes of it.
constexpr int kMinCompared = 16, kMaxCompared = 128;
// Average number of boxes of a group among the first rows, and limits of the fraction of these
// rows.
constexpr double kFirstOfGroup = 6, kMinFirst = 0.03, kMaxFirst = 0.25;
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

// For each cell of a fine grid: a kept box that probably suppresses a box there.
class Guesses {
 public:
  Guesses(const SizedBox* kept, int num, NmsRule rule)
      : kept_(kept), grid_(grid_of(kept, num, rule.pixels)) {
    grid_.divide(kCells, kCells);
    const auto distances = pooled_scratch<float>(kCells * kCells);
    std::fill_n(guess_.get(), kCells * kCells, 0);
    std::fill_n(distances.get(), kCells * kCells, kInfinity);
    for (int i = 0; i < num; ++i) {
      const PerAxis sides = grid_.sides(kept[i].box), far = kReach * sides;
      const PerAxis position = Grid::low(kept[i].box) + Grid::high(kept[i].box);
      const PerAxis first = grid_.cell(position - far), last = grid_.cell(position + far);
      const PerAxis center = (position - grid_.origin) * grid_.cells_per_unit - 0.5;
      const PerAxis per_side = 1.0 / (sides * grid_.cells_per_unit);
      for (int row = (int)first[1]; row <= (int)last[1]; ++row) {
        for (int column = (int)first[0]; column <= (int)last[0]; ++column) {
          const PerAxis away = (PerAxis{(double)column, (double)row} - center) * per_side;
          const float distance = (float)(away[0] * away[0] + away[1] * away[1]);
          const int cell = row * kCells + column;
          const bool is_nearer = distance < distances[cell];
          guess_[cell] = is_nearer ? i : guess_[cell];
          distances[cell] = is_nearer ? distance : distances[cell];
        }
      }
    }
  }

  template <Form kForm>
  CVOPS_INLINE bool suppress(const SizedBox& b, const RuleBounds& bounds) const {
    return compare<kForm>(kept_[guess_[grid_.cell_of(b.box)]], b, bounds).surely;
  }

 private:
  static constexpr int kCells = 64;       // along each axis
  static constexpr double kReach = 0.25;  // as a part of a side

  const SizedBox* const kept_;
  Grid grid_;
  const PooledScratch<int> guess_ = pooled_scratch<int>(kCells * kCells);
};

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

// Rows of a set. Loops take a copy, which no store can change.
struct Rows {
  const float* first;
  const NmsOptions options;
  const BroadPhase broad_phase{options.rule, false};
  const RuleBounds bounds{options.rule};

  CVOPS_INLINE const float* at(int i) const { return first + (int64)i * options.columns.width; }
  CVOPS_INLINE bool is_valid(int i) const {
    return nms_is_valid(at(i), options.columns, options.valid_thresh, options.background_id);
  }
  CVOPS_INLINE SizedBox box(int i) const {
    return nms_box(at(i), options.columns, options.rule.center);
  }
  CVOPS_INLINE float score(int i) const { return at(i)[options.columns.score]; }
  CVOPS_INLINE int kind_of_cell(const SizedBox& b) const {
    return broad_phase.kind_of_cell(b, options.rule);
  }
};

// Moves the numbers of the rows that the guessed boxes do not suppress to the front.
template <Form kForm>
int remove_by_guess(int* some, int num, const Rows rows, const Guesses& guesses) {
  int left = 0;
  for (int i = 0; i < num; ++i) {
    const SizedBox b = rows.box(some[i]);
    // The bounds are not for boxes of kOverflowCell. In corner format these have areas below 1e-30,
    // and one that a box of the grid suppresses has 1e-33 or more: the bounds hold there.
    const bool suits = kForm == Form::corner || rows.kind_of_cell(b) != kOverflowCell;
    const bool is_left = !(guesses.suppress<kForm>(b, rows.bounds) & suits);
    some[left] = some[i];
    left += is_left;
  }
  return left;
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

// Calls remove(some, num) for parts of `some`, on several threads, which moves the numbers that are
// left to the front of the part and returns how many these are. Moves all to the front. Returns
// their number, or -1 if a call does.
template <typename Remove>
int remove_in_parts(int* some, int num, int threads, const Remove& remove) {
  const int part = threads < 2 ? std::max(num, 1) : kPart;
  const int parts = (int)ceil_div(num, part);
  const auto left = pooled_scratch<int>(parts);
  parallel_for(parts, 4.0 * part, [&](int64 p) {
    left[p] = remove(some + p * part, std::min(part, num - (int)p * part));
  });
  int count = 0;
  for (int p = 0; p < parts; ++p) {
    if (left[p] < 0) return -1;
    std::copy_n(some + p * part, left[p], some + count);
    count += left[p];
  }
  return count;
}

// Returns false if boxes suppress few others. `least` becomes the lowest score of the rows that are
// decided first.
template <Form kForm>
bool choose_first(const Rows& rows, int num, float& least) {
  BoxSample sample;
  float scores[BoxSample::kMost];
  for (int i = 0; i < BoxSample::kMost; ++i) {
    const int row = (int)((int64)i * num / BoxSample::kMost);
    if (!rows.is_valid(row)) continue;
    scores[sample.num] = rows.score(row);
    sample.add(rows.box(row), 0);
  }
  if (sample.num < BoxSample::kMost / 2) return false;
  const int compared = std::clamp(num / BoxSample::kMost, kMinCompared, kMaxCompared);
  const double suppressed = num * fraction_of_pairs<kForm>(sample, compared, rows.bounds);
  if (suppressed < kMinSuppressed) return false;
  const double fraction = std::clamp(kFirstOfGroup / suppressed, kMinFirst, kMaxFirst);
  float* const at = scores + (int)(fraction * sample.num);
  std::nth_element(scores, at, scores + sample.num, std::greater<float>());
  least = *at;
  return true;
}

template <Form kForm>
bool keep(int* numbers, FewRows& count, const Rows rows, int num, int threads,
          const KeepSome& keep_some) {
  float least;
  if (!choose_first<kForm>(rows, num, least)) return false;
  const auto memory = pooled_scratch<int>(2 * ((int64)num + 1));
  int *const first = memory.get(), *const others = first + num + 1;
  int num_first = 0, num_others = 0;
  for (int i = 0; i < num; ++i) {
    const bool is_valid = rows.is_valid(i), is_first = rows.score(i) >= least;
    first[num_first] = others[num_others] = i;
    num_first += is_valid & is_first, num_others += is_valid & !is_first;
  }
  count.kept = keep_some(numbers, first, num_first);
  if (count.kept > kMaxKept * num_first) return false;
  const auto kept = pooled_scratch<SizedBox>(count.kept);
  int num_kept = 0;  // without the boxes that suppress none
  for (int i = 0; i < count.kept; ++i) {
    kept[num_kept] = rows.box(numbers[i]);
    const int kind = rows.kind_of_cell(kept[num_kept]);
    if (kind == kOverflowCell) return false;
    num_kept += kind == kGridCell;
  }
  if (num_kept == 0) return false;
  const Guesses guesses(kept.get(), num_kept, rows.options.rule);
  int left = remove_in_parts(others, num_others, threads, [&](int* some, int number) {
    return simd<remove_by_guess<kForm>>(some, number, rows, guesses);
  });
  Lists lists(kept.get(), num_kept, rows.options.rule);
  if (!lists.build()) return false;
  left = remove_in_parts(others, left, threads, [&](int* some, int number) {
    return simd<remove_by_lists<kForm>>(some, number, rows, lists);
  });
  if (left < 0) return false;
  std::copy_n(others, left, numbers + count.kept);
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
