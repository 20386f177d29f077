#include "nms_pairs.h"

#include <algorithm>
#include <atomic>
#include <utility>
#include <vector>

#include "nms_sample.h"
#include "parallel.h"

namespace cvops::cpu {
namespace {

// Maximum numbers of pairs and of steps per box. The first boxes may have more. On one thread,
// without classes, marks are faster from half of the pairs on, but not in a grid of shapes.
constexpr int64 kMaxPairs = 1, kMaxWork = 40, kFree = 128;
// Slots that are searched at once, and rows of cells that a box may reach without a further branch.
constexpr int kBatch = 64, kRows = 3;
static_assert(kStep == 16, "a step has four times four bytes");

// Two boxes: the first one suppresses the second one if it is kept.
struct Pair {
  int first, second;
};

// Rows of cells, and the pairs whose lower slot is in them.
struct Part {
  int row, end_row;
  PooledScratch<Pair> pairs;
  int64 num_pairs = 0;

  Part(const BoxesInCells& boxes, int row, int end_row)
      : row(row),
        end_row(end_row),
        pairs(pooled_scratch<Pair>(kMaxPairs * (slots(boxes) + kFree) + kStep)) {}

  int64 slots(const BoxesInCells& boxes) const {
    const int columns = boxes.grid.columns;
    return boxes.begins[end_row * columns] - boxes.begins[row * columns];
  }
};

// A search for the pairs of a part. Its loops have few branches on the boxes: these are hard to
// predict, and would take longer than the comparisons.
template <Form kForm, bool kByClass>
class Search {
 public:
  CVOPS_INLINE Search(const BoxesInCells& boxes, Part& part)
      : boxes_(boxes), part_(part), columns_(boxes.grid.columns) {}

  // Returns false if there are many pairs, or if the search is slow.
  CVOPS_INLINE bool run() {
    const int *const begins = boxes_.begins, first = begins[part_.row * columns_];
    const bool is_alone = !kByClass && part_.slots(boxes_) == boxes_.slots();
    for (int r = part_.row; r < part_.end_row; ++r) {
      for (int slot = begins[r * columns_], end = begins[(r + 1) * columns_]; slot < end;) {
        const int num = std::min(kBatch, end - slot);
        const int64 done = slot + num - first + kFree;
        most_pairs_ = kMaxPairs * done / (is_alone && !boxes_.by_shape ? 2 : 1);
        add_steps(r, slot, num);
        compare_all();
        if (part_.num_pairs > most_pairs_ || work_ > kMaxWork * done) return false;
        slot += num;
      }
    }
    return true;
  }

 private:
  // Number of steps that are compared at once, and the capacity: the slots of a box add some more.
  static constexpr int kMost = 256, kCapacity = kMost + 2 * kRows + 1;

  // A comparison of the box of a slot with the boxes of the kStep slots from `at` on.
  struct Step {
    int slot, at;
  };
  // A step, and a byte for each of its boxes: 1 if the two boxes may be a pair. Byte 4 k + i is for
  // the box k + 4 i. This order needs no vectors of bytes.
  struct Found {
    Step step;
    uint64 lanes[kStep / 8];
  };

  // Computes the cells in reach of `num` boxes.
  CVOPS_INLINE void find_windows(int slot, int num) {
    const Grid grid = boxes_.grid;
    const double fraction = 2 * boxes_.broad_phase.side_fraction;
    auto each = [&](const float* low, const float* high, int axis, int* first,
                    int* end) __attribute__((always_inline)) {
      const double max_side = grid.max_side[axis];
      for (int k = 0; k < num; ++k) {
        const double position = (double)low[k] + high[k];
        const double side = (double)high[k] - low[k] + grid.pixel;
        const double own = fraction * side, with_any = 1.01 * (side + max_side);  // see reach()
        const double far = own < with_any ? own : with_any;
        first[k] = (int)grid.cell_along(axis, position - far);
        end[k] = (int)grid.cell_along(axis, position + far) + 1;
      }
    };
    const BoxArrays& places = boxes_.places;
    if (!boxes_.by_shape) {
      each(places.x1 + slot, places.x2 + slot, 0, column_, end_column_);
      each(places.y1 + slot, places.y2 + slot, 1, row_, end_row_);
      return;
    }
    float x1[kBatch], y1[kBatch], x2[kBatch], y2[kBatch];
    for (int k = 0; k < num; ++k) {
      const Box b = boxes_.shapes.of(places.at(slot + k));
      x1[k] = b.x1, y1[k] = b.y1, x2[k] = b.x2, y2[k] = b.y2;
    }
    each(x1, x2, 0, column_, end_column_);
    each(y1, y2, 1, row_, end_row_);
  }

  CVOPS_INLINE void add(int slot, int at, bool is_wanted) {
    steps_[num_steps_] = {slot, at};
    num_steps_ += is_wanted;
  }

  // Adds the steps of the slots [at, end).
  CVOPS_INLINE void add_all(int slot, int at, int end) {
    for (; at < end; at += kStep) {
      if (num_steps_ >= kMost) compare_all();
      add(slot, at, true);
    }
  }

  // Adds the steps of a batch: later boxes of row r, and boxes of the rows after it.
  CVOPS_INLINE void add_steps(int r, int slot, int num) {
    find_windows(slot, num);
    const int* rows[kRows];
    for (int i = 0; i < kRows; ++i) {
      rows[i] = boxes_.begins + std::min(r + i, boxes_.grid.rows - 1) * columns_;
    }
    for (int k = 0; k < num; ++k) {
      if (num_steps_ >= kMost) compare_all();
      const int own = slot + k, num_rows = end_row_[k] - r;
      for (int i = 0; i < kRows; ++i) {
        const int at = i ? rows[i][column_[k]] : own + 1;
        const int end = i < num_rows ? rows[i][end_column_[k]] : at;
        add(own, at, at < end);
        add(own, at + kStep, at + kStep < end);
        if (at + 2 * kStep < end) add_all(own, at + 2 * kStep, end);
      }
      for (int i = kRows; i < num_rows; ++i) {
        const int* const row = boxes_.begins + (r + i) * columns_;
        add_all(own, row[column_[k]], row[end_column_[k]]);
      }
    }
  }

  // Compares the boxes of all steps, and takes the pairs. A pair at the end of a step may be found
  // twice.
  CVOPS_INLINE void compare_all() {
    const float *const x1 = boxes_.places.x1, *const y1 = boxes_.places.y1,
                       *const x2 = boxes_.places.x2, *const y2 = boxes_.places.y2,
                       *const area = boxes_.places.area;
    const int* const class_of_slot = boxes_.class_of_slot.get();
    const RuleBounds bounds = boxes_.bounds;
    int num_found = 0;
    for (int s = 0; s < num_steps_; ++s) {
      const auto [own, at] = steps_[s];
      const SizedBox b = {{x1[own], y1[own], x2[own], y2[own]}, area[own]};
      const int of_class = kByClass ? class_of_slot[own] : 0;
      int maybe[kStep];
      CVOPS_VECTORIZED
      for (int k = 0; k < kStep; ++k) {
        const int i = at + k;
        maybe[k] = may_suppress<kForm>(b, {{x1[i], y1[i], x2[i], y2[i]}, area[i]}, bounds);
        if (kByClass) maybe[k] &= class_of_slot[i] == of_class;
      }
      int lanes[kStep / 4];
      for (int k = 0; k < kStep / 4; ++k) {
        lanes[k] = maybe[k] | maybe[k + 4] << 8 | maybe[k + 8] << 16 | maybe[k + 12] << 24;
      }
      Found& to = found_[num_found];
      to.step = steps_[s];
      __builtin_memcpy(to.lanes, lanes, kStep);
      uint64 all = 0;
      for (uint64 word : to.lanes) all |= word;
      num_found += all != 0;
    }
    work_ += num_steps_;
    num_steps_ = 0;
    // With too many pairs, run() ends soon.
    for (int n = 0; n < num_found && part_.num_pairs <= most_pairs_; ++n) take_pairs(found_[n]);
  }

  CVOPS_INLINE void take_pairs(const Found& found) {
    const auto [own, at] = found.step;
    const SizedBox b = boxes_.places.at(own);
    const int i = boxes_.box_at[own];
    uint32 left = 0;
    for (int w = 0; w < kStep / 8; ++w) {
      // The product has the bits of the bytes in its highest byte.
      left |= (uint32)(found.lanes[w] * 0x0102040810204080u >> 56) << 8 * w;
    }
    do {
      const int byte = __builtin_ctz(left), other = at + byte / 4 + byte % 4 * 4;
      const int j = boxes_.box_at[other];
      const Verdict verdict = compare<kForm>(b, boxes_.places.at(other), boxes_.bounds);
      bool is_pair = verdict.surely;
      if (verdict.unsure)
        is_pair = suppresses_by_rule<kForm>(b, boxes_.places.at(other), boxes_.rule);
      part_.pairs[part_.num_pairs] = {std::min(i, j), std::max(i, j)};
      part_.num_pairs += is_pair;
      left &= left - 1;
    } while (left);
  }

  const BoxesInCells& boxes_;
  Part& part_;
  const int columns_;
  int64 work_ = 0, most_pairs_ = 0;
  int column_[kBatch], end_column_[kBatch], row_[kBatch], end_row_[kBatch];
  int num_steps_ = 0;
  Step steps_[kCapacity];
  Found found_[kCapacity];
};

template <Form kForm, bool kByClass>
bool find_pairs(const BoxesInCells& boxes, Part& part) {
  return Search<kForm, kByClass>(boxes, part).run();
}

// Decides the boxes by the pairs, in the order of their first boxes. The sorted pairs, and the
// first one of each box, take the memory of the slots. Returns false if there are more pairs than
// boxes.
bool decide(const BoxesInCells& boxes, const std::vector<Part>& parts, uint8_t* is_kept) {
  const int num = boxes.num;
  int64 pairs = 0;
  for (const Part& part : parts) pairs += part.num_pairs;
  if (pairs > num) return false;
  int* const begins = boxes.slots_memory();
  Pair* const sorted = (Pair*)(begins + num);
  std::fill_n(begins, num, 0);
  for (const Part& part : parts) {
    for (int64 p = 0; p < part.num_pairs; ++p) ++begins[part.pairs[p].first];
  }
  for (int i = 0, before = 0; i < num; ++i) before += std::exchange(begins[i], before);
  for (const Part& part : parts) {
    for (int64 p = 0; p < part.num_pairs; ++p) {
      sorted[begins[part.pairs[p].first]++] = part.pairs[p];
    }
  }
  const auto kept = pooled_scratch<uint8_t>(num);
  std::fill_n(kept.get(), num, 1);
  for (int64 p = 0; p < pairs; ++p) kept[sorted[p].second] &= !kept[sorted[p].first];
  for (int i = 0; i < num; ++i) is_kept[boxes.order[i]] = kept[i];
  return true;
}

}  // namespace

template <Form kForm>
bool suppress_by_pairs(const BoxesInCells& boxes, uint8_t* is_kept, int threads) {
  if (boxes.cells == 1) return false;
  const int rows = boxes.grid.rows, columns = boxes.grid.columns;
  // More parts than threads, as the rows have different numbers of boxes.
  const int most = threads < 2 ? 1 : std::min(4 * threads, rows);
  std::vector<Part> parts;
  for (int row = 0, end = 0; row < rows; row = end) {
    const int wanted = (int)ceil_div((int64)boxes.slots(), most);
    for (end = row + 1; end < rows; ++end) {
      if (boxes.begins[end * columns] - boxes.begins[row * columns] >= wanted) break;
    }
    parts.emplace_back(boxes, row, end);
  }
  std::atomic<bool> is_slow{false};
  parallel_for((int64)parts.size(), 12.0 * boxes.slots() / parts.size(), [&](int64 p) {
    if (is_slow) return;
    const bool is_found = boxes.classes ? simd<find_pairs<kForm, true>>(boxes, parts[p])
                                        : simd<find_pairs<kForm, false>>(boxes, parts[p]);
    if (!is_found) is_slow = true;
  });
  if (is_slow) return false;
  return decide(boxes, parts, is_kept);
}

template <Form kForm>
double guess_pairs_per_box(const SizedBox* boxes, const int* classes, const int* order, int num,
                           NmsRule rule) {
  constexpr int kSample = 128, kCompared = 32;
  BoxSample sample;
  for (int i = 0; i < kSample; ++i) {
    const int index = order[(int64)i * num / kSample];
    sample.add(boxes[index], classes ? classes[index] : 0);
  }
  return 0.5 * num * fraction_of_pairs<kForm>(sample, kCompared, RuleBounds(rule));
}

#define CVOPS_INSTANTIATE(kForm)                                              \
  template bool suppress_by_pairs<kForm>(const BoxesInCells&, uint8_t*, int); \
  template double guess_pairs_per_box<kForm>(const SizedBox*, const int*, const int*, int, NmsRule);
CVOPS_INSTANTIATE(Form::corner)
CVOPS_INSTANTIATE(Form::center)
CVOPS_INSTANTIATE(Form::pixels)

}  // namespace cvops::cpu
