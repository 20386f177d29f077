#include "nms.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <utility>
#include <vector>

#include "simd.h"

namespace cvops::cpu {
namespace {

uint32 score_of(uint64 key) { return (uint32)(key >> 32); }

int bit_width(uint32 x) {
  int bits = 0;
  for (; x; x >>= 1) ++bits;
  return bits;
}

}  // namespace

const uint64* sort_keys(uint64* keys, uint64* other, int64 num, int64 most) {
  if (num < 64) {
    std::sort(keys, keys + num);
    return keys;
  }
  uint32 least = ~0u, greatest = 0;
  for (int64 i = 0; i < num; ++i) {
    least = std::min(least, score_of(keys[i]));
    greatest = std::max(greatest, score_of(keys[i]));
  }
  constexpr int kMostBits = 11;
  uint32 starts[1 << kMostBits];
  int bits = bit_width(greatest - least);
  if (most < num) {
    // Only those up to the digit where the last of them lies.
    const int shift = std::max(0, bits - kMostBits);
    std::fill(starts, starts + (1 << std::min(bits, kMostBits)), 0);
    for (int64 i = 0; i < num; ++i) ++starts[(score_of(keys[i]) - least) >> shift];
    uint32 last = 0;
    for (int64 before = starts[0]; before < most; before += starts[last]) ++last;
    int64 left = 0;
    for (int64 i = 0; i < num; ++i) {
      keys[left] = keys[i];
      left += (score_of(keys[i]) - least) >> shift <= last;
    }
    num = left;
    bits = std::min(bits, bit_width(last) + shift);
  }
  // By digits of the score, from the lowest; each pass keeps the order of what it finds equal, so
  // that equal scores stay in the order of their indices.
  const int passes = (int)ceil_div(bits, num < 2048 ? 8 : kMostBits);
  const int digit = passes ? (int)ceil_div(bits, passes) : 0;
  const uint32 mask = (1u << digit) - 1;
  for (int shift = 0; shift < passes * digit; shift += digit) {
    std::fill(starts, starts + mask + 1, 0);
    for (int64 i = 0; i < num; ++i) ++starts[(score_of(keys[i]) - least) >> shift & mask];
    for (uint32 d = 0, before = 0; d <= mask; ++d) before += std::exchange(starts[d], before);
    for (int64 i = 0; i < num; ++i) {
      other[starts[(score_of(keys[i]) - least) >> shift & mask]++] = keys[i];
    }
    std::swap(keys, other);
  }
  return keys;
}

namespace {

#define CVOPS_INLINE inline __attribute__((always_inline))


// As many kept boxes are compared with a box at once.
constexpr int kGroup = 8;
// A grid has at most a cell for as many boxes.
constexpr int kBoxesPerCell = 2;
// Fewer boxes are compared without one.
constexpr int kLeastForGrid = 64;
// With several threads, as many boxes are settled at a time.
constexpr int kBlock = 1024;
// What an overlap must exceed where none will do, and where any will.
constexpr float kInfinite = std::numeric_limits<float>::infinity();

// Where a kept box is filed, and where a box looks for those that may suppress it. Of cell 0 are
// those that are compared with all others; of the cells from 1 on those with a place in a grid.
constexpr int kNowhere = -1, kEverywhere = 0, kSomewhere = 1;

// What must hold for one box to suppress another, beside the rule itself: cheaper to test, and
// never stricter.
struct Filter {
  bool filters;    // or all that follows says nothing
  float of_areas;  // the overlap is above this part of the sum of their areas
  double of_side;  // along each axis their centers are no further apart than this part of a side

  explicit Filter(NmsRule rule) {
    const double t = rule.threshold;
    // Below 0 even boxes that do not touch suppress each other; from 0 on, only those that do.
    filters = rule.at_least ? t > 0 : t >= 0;
    // overlap / (a + b - overlap) > t means overlap > t / (1 + t) (a + b). 0.9999 stands for the
    // roundings of both sides, but not where t itself has few bits.
    of_areas = t < 1e-30 ? 0.0f : (float)(0.9999 * t / (1 + t));
    // Of boxes as place_of lets through, the overlap along an axis is more than `part` of the
    // longer side. Centers lie (a + b) / 2 - overlap apart, or less if a side is inside of the
    // other. For a given a that is most where b = a, or where b = a / part. 1.01 stands for the
    // roundings.
    const double part = std::min(0.99 * t, 1.0);
    of_side = t < 1e-3 ? kInfinite : 1.01 * (1 - part) * std::max(1.0, 0.5 / part);
  }

  // A box's share of what its overlap with another must exceed.
  float least_overlap(float area) const {
    // Where the product has few bits, three times the smallest float stands for its rounding.
    return filters ? std::max(0.0f, of_areas * area - 4.2e-45f) : -kInfinite;
  }

  int place_of(const SizedBox& b, bool center) const {
    const float width = b.box.x2 - b.box.x1, height = b.box.y2 - b.box.y1;
    if (!filters) return kEverywhere;
    // What came in corner format and has a NaN has an area of NaN or no overlap with anything. With
    // centers the area is a number, and a NaN at one side only means that there is no bound.
    if (center && (std::isnan(b.box.x1 + b.box.x2) || std::isnan(b.box.y1 + b.box.y2)))
      return kEverywhere;
    if (!(b.box.x1 < b.box.x2 && b.box.y1 < b.box.y2) || b.area == kInfinite) return kNowhere;
    // Far from 0, the corners of a box that came as center and sides may lie much further apart
    // than its area tells. Very small areas have lost bits.
    return b.area >= 1e-30f && b.area >= 0.999f * width * height ? kSomewhere : kEverywhere;
  }
};

// Some boxes' sides along an axis.
struct Sample {
  static constexpr int kMost = 64;
  double positions[kMost], sides[kMost];
  int num = 0;

  void add(float low, float high) {
    positions[num] = (double)low + high;
    sides[num++] = (double)high - low;
  }

};

// The cells of a grid along one axis. Positions are sums of a side's two ends: twice its center. All
// that lies beyond the first or the last cell counts to it.
struct Axis {
  double first = 0, length = 0;  // where most of the boxes lie
  double cells = 1;
  double longest_side = 0;

  // The middle three quarters of the positions, and a third more; cells as long as the median
  // side. Only the time depends on it. It reorders the sample.
  void divide(Sample& sample) {
    if (sample.num < 2) return;
    double* positions = sample.positions;
    double *low = positions + sample.num / 8, *high = positions + (sample.num - 1 - sample.num / 8);
    double *end = positions + sample.num, *side = sample.sides + sample.num / 2;
    std::nth_element(positions, low, end);
    std::nth_element(low + 1, high, end);
    std::nth_element(sample.sides, side, sample.sides + sample.num);
    length = (*high - *low) * 4 / 3;
    first = *low - length / 8;
    cells = std::max(1.0, length / (2 * *side));
  }

  int cell(double position) const {
    const double at = (position - first) * (cells / length);
    return at > 0 ? (int)std::min(at, cells - 1) : 0;
  }
};

struct Range {
  int begin, end;
};

// The cells of those boxes that may suppress one with that side, or be suppressed by it.
CVOPS_INLINE Range cells_near(const Axis& axis, float low, float high, double of_side) {
  const double position = (double)low + high, side = (double)high - low;
  const double reach = std::min(2 * of_side * side, 1.01 * (side + axis.longest_side));
  return {axis.cell(position - reach), axis.cell(position + reach) + 1};
}

// The suppression of boxes among themselves: all of an image, or those of one class. Kept boxes are
// filed by where they lie, in the cells of a grid, and a box is compared with those in the cells
// that it reaches. Each cell has room for all boxes that lie there.
struct Run {
  const SizedBox* boxes;
  const int* order;  // the indices of the boxes
  const int num;
  const NmsRule rule;
  const Filter filter{rule};

  Axis x, y;
  int cells = 1;
  const std::unique_ptr<int[]> integers = scratch<int>(num + 3 * most_cells());
  int* const cell_of = integers.get();
  // Of each cell, where its boxes begin and end in the arrays below, and which of them are new.
  int *const begins = cell_of + num, *const news = begins + most_cells(),
             *const ends = news + most_cells();

  const int64 room = num + kGroup;
  const std::unique_ptr<float[]> floats = scratch<float>(6 * room);
  float *const x1 = floats.get(), *const y1 = x1 + room, *const x2 = y1 + room,
               *const y2 = x2 + room, *const area = y2 + room, *const least_overlap = area + room;

  int most_cells() const { return num / kBoxesPerCell + 2; }

  Run(const SizedBox* boxes, const int* order, int num, NmsRule rule)
      : boxes(boxes), order(order), num(num), rule(rule) {}

  void make_grid() {
    Sample x_sample, y_sample;
    const int stride = (int)ceil_div(num, Sample::kMost);
    for (int i = 0; i < num; ++i) {
      const SizedBox& b = boxes[order[i]];
      cell_of[i] = num < kLeastForGrid ? kEverywhere : filter.place_of(b, rule.center);
      if (cell_of[i] != kSomewhere) continue;
      x.longest_side = std::max(x.longest_side, (double)b.box.x2 - b.box.x1);
      y.longest_side = std::max(y.longest_side, (double)b.box.y2 - b.box.y1);
      if (i % stride == 0) x_sample.add(b.box.x1, b.box.x2), y_sample.add(b.box.y1, b.box.y2);
    }
    x.divide(x_sample), y.divide(y_sample);
    const double most = most_cells() - 1, fewer = std::sqrt(std::max(1.0, x.cells * y.cells / most));
    x.cells = (int)std::clamp(x.cells / fewer, 1.0, most);
    y.cells = (int)std::clamp(y.cells / fewer, 1.0, most / x.cells);
    cells = 1 + (int)(x.cells * y.cells);

    std::fill(begins, begins + cells, 0);
    for (int i = 0; i < num; ++i) {
      if (cell_of[i] == kSomewhere) {
        const Box& b = boxes[order[i]].box;
        cell_of[i] = 1 + y.cell((double)b.y1 + b.y2) * (int)x.cells + x.cell((double)b.x1 + b.x2);
      }
      if (cell_of[i] != kNowhere) ++begins[cell_of[i]];
    }
    for (int c = 0, before = 0; c < cells; ++c) before += std::exchange(begins[c], before);
    std::copy_n(begins, cells, news);
    std::copy_n(begins, cells, ends);
    // Where no box is filed yet, nothing overlaps enough.
    std::fill_n(least_overlap, room, kInfinite);
  }

  void file(int i) {
    const SizedBox& b = boxes[order[i]];
    const int at = ends[cell_of[i]]++;
    x1[at] = b.box.x1, y1[at] = b.box.y1, x2[at] = b.box.x2, y2[at] = b.box.y2;
    area[at] = b.area, least_overlap[at] = filter.least_overlap(b.area);
  }
};

// Whether one of the filed boxes from `at` up to `end` suppresses the box. `at` becomes `end` or
// more: what is filed behind them is compared too.
template <bool kCenter>
CVOPS_INLINE bool is_suppressed_by(const Run& run, int& at, int end, const SizedBox& b,
                                   float least) {
  const float *x1 = run.x1, *y1 = run.y1, *x2 = run.x2, *y2 = run.y2, *lo = run.least_overlap;
  for (; at < end; at += kGroup) {
    int passes = 0;
    for (int i = at; i < at + kGroup; ++i) {
      passes |= intersection({x1[i], y1[i], x2[i], y2[i]}, b.box, kCenter) > least + lo[i];
    }
    if (!passes) continue;
    for (int i = at; i < at + kGroup; ++i) {
      const Box kept = {x1[i], y1[i], x2[i], y2[i]};
      if (intersection(kept, b.box, kCenter) > least + lo[i] &&
          suppresses({kept, run.area[i]}, b, run.rule)) {
        return true;
      }
    }
  }
  return false;
}

// Whether a filed box suppresses box i. Of each cell those from begins[cell] up to ends[cell] are
// looked at.
template <bool kCenter>
CVOPS_INLINE bool is_suppressed(const Run& run, int i, const int* begins, const int* ends) {
  const int place = run.cell_of[i];
  if (place == kNowhere) return false;
  const SizedBox b = run.boxes[run.order[i]];
  const float least = run.filter.least_overlap(b.area);
  int at = begins[kEverywhere];
  if (is_suppressed_by<kCenter>(run, at, ends[kEverywhere], b, least)) return true;
  Range columns = {0, (int)run.x.cells}, rows = {0, (int)run.y.cells};
  if (place != kEverywhere) {
    columns = cells_near(run.x, b.box.x1, b.box.x2, run.filter.of_side);
    rows = cells_near(run.y, b.box.y1, b.box.y2, run.filter.of_side);
  }
  for (int row = rows.begin; row < rows.end; ++row) {
    const int first = kSomewhere + row * (int)run.x.cells;
    at = 0;
    for (int cell = first + columns.begin; cell < first + columns.end; ++cell) {
      at = std::max(at, begins[cell]);
      if (is_suppressed_by<kCenter>(run, at, ends[cell], b, least)) return true;
    }
  }
  return false;
}

// Of boxes [first, end), marks those that one suppresses which was there before them.
template <bool kCenter>
void compare_with_old(const Run& run, uint8_t* kept, int first, int end) {
  for (int i = first; i < end; ++i) {
    kept[run.order[i]] = !is_suppressed<kCenter>(run, i, run.begins, run.news);
  }
}

// Of those left, marks what one of themselves suppresses, and files the others.
template <bool kCenter>
void settle(Run& run, uint8_t* kept, int first, int end) {
  for (int i = first; i < end; ++i) {
    uint8_t& is_kept = kept[run.order[i]];
    if (is_kept) is_kept = !is_suppressed<kCenter>(run, i, run.news, run.ends);
    if (is_kept && run.cell_of[i] != kNowhere) run.file(i);
  }
  for (int i = first; i < end; ++i) {
    const int cell = run.cell_of[i];
    if (cell != kNowhere) run.news[cell] = run.ends[cell];
  }
}

template <bool kCenter>
void suppress_run(uint8_t* kept, const SizedBox* boxes, const int* order, int num, NmsRule rule,
                  int threads) {
  Run run(boxes, order, num, rule);
  run.make_grid();
  for (int i = 0; i < num; ++i) kept[order[i]] = 1;
  // On one thread all are settled at once; on several, blocks of them are first compared with what
  // is kept of the blocks before.
  const int block = threads < 2 ? num : kBlock;
  for (int first = 0; first < num; first += block) {
    const int end = std::min(num, first + block);
    if (first > 0) {
      constexpr int kPart = 32;
      const double filed = (double)first / run.cells * 9;  // in about so many cells
      parallel_for(ceil_div(end - first, kPart), kPart * (50 + 0.3 * filed), [&](int64 p) {
        const int begin = first + (int)p * kPart;
        simd<compare_with_old<kCenter>>(run, kept, begin, std::min(end, begin + kPart));
      });
    }
    simd<settle<kCenter>>(run, kept, first, end);
  }
}

}  // namespace

void suppress(uint8_t* kept, const SizedBox* boxes, const int* classes, int num, NmsRule rule,
              int threads) {
  const auto order = scratch<int>(num);
  const auto run = rule.center ? suppress_run<true> : suppress_run<false>;
  if (!rule.by_class) {
    std::iota(order.get(), order.get() + num, 0);
    return run(kept, boxes, order.get(), num, rule, threads);
  }
  const auto keys = scratch<uint64>(num), other = scratch<uint64>(num);
  for (int i = 0; i < num; ++i) keys[i] = (uint64)(uint32)classes[i] << 32 | (uint32)i;
  const uint64* sorted = sort_keys(keys.get(), other.get(), num, num);
  std::vector<Range> runs;
  int longest = 0;
  for (int i = 0; i < num; ++i) {
    order[i] = (int)index_of(sorted[i]);
    if (i == 0 || sorted[i] >> 32 != sorted[i - 1] >> 32) runs.push_back({i, i});
    longest = std::max(longest, ++runs.back().end - runs.back().begin);
  }
  // Where one has most of the work, the threads are for what is in it.
  const bool within = threads > 1 && longest > num / threads;
  auto one = [&](int64 r) {
    run(kept, boxes, order.get() + runs[r].begin, runs[r].end - runs[r].begin, rule,
        within ? threads : 1);
  };
  if (within || threads < 2) {
    for (size_t r = 0; r < runs.size(); ++r) one(r);
  } else {
    parallel_for((int64)runs.size(), 100.0 * num / runs.size(), one);
  }
}

}  // namespace cvops::cpu
