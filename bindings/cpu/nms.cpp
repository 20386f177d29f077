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
    // Drops the keys beyond the digit that contains the last wanted key.
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
  // LSD radix sort by the score. Each pass is stable, so equal scores stay in index order.
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

// Kept boxes per vector step.
constexpr int kGroup = 16;
// Minimum average number of boxes per cell of a grid.
constexpr int kBoxesPerCell = 2;
// Minimum number of comparisons per box that a grid must save.
constexpr int kLeastSpared = 300;
// Boxes that are resolved per step. Several threads compare them with previously kept boxes, if
// each box has more than kLeastShared comparisons.
constexpr int kBlock = 1024;
constexpr int kLeastShared = 1000;
// Threshold of an overlap that no box passes; its negative is one that every box passes.
constexpr float kInfinite = std::numeric_limits<float>::infinity();

// Cell of a box. kNowhere: it overlaps no box. kEverywhere: cell 0, compared with all boxes. From
// kSomewhere on: a cell of the grid.
constexpr int kNowhere = -1, kEverywhere = 0, kSomewhere = 1;

// Necessary conditions for suppression. They are cheaper than the rule and never stricter.
struct Filter {
  bool filters;    // false: no condition holds, test all pairs
  float of_areas;  // the overlap exceeds this fraction of the sum of areas
  double of_side;  // along each axis, the distance of centers is at most this fraction of a side

  explicit Filter(NmsRule rule) {
    const double t = rule.threshold;
    // With a negative threshold, boxes that do not touch suppress each other.
    filters = rule.at_least ? t > 0 : t >= 0;
    // overlap / (a + b - overlap) > t implies overlap > t / (1 + t) (a + b). The factor 0.9999
    // covers the rounding of both sides, unless t itself has few bits.
    of_areas = t < 1e-30 ? 0.0f : (float)(0.9999 * t / (1 + t));
    // For boxes in the grid, the overlap along an axis exceeds `part` of the longer side. The
    // distance of the centers is (a + b) / 2 - overlap, or less if one side contains the other. For
    // a given a, it is greatest at b = a or b = a / part. The factor 1.01 covers rounding.
    const double part = std::min(0.99 * t, 1.0);
    of_side = t < 1e-3 ? kInfinite : 1.01 * (1 - part) * std::max(1.0, 0.5 / part);
  }

  // Half of the minimum overlap: the bound for two boxes is the sum of their values.
  float least_overlap(float area) const {
    // If the product is denormal, three times the smallest float covers its rounding.
    return filters ? std::max(0.0f, of_areas * area - 4.2e-45f) : -kInfinite;
  }

  int place_of(const SizedBox& b, bool center) const {
    const float width = b.box.x2 - b.box.x1, height = b.box.y2 - b.box.y1;
    if (!filters) return kEverywhere;
    // In corner format, a box with NaN has area NaN or overlaps nothing. In center format the area
    // is a number, and a NaN at one side means that this side is unbounded.
    if (center && (std::isnan(b.box.x1 + b.box.x2) || std::isnan(b.box.y1 + b.box.y2)))
      return kEverywhere;
    if (!(b.box.x1 < b.box.x2 && b.box.y1 < b.box.y2) || b.area == kInfinite) return kNowhere;
    // Boxes in the grid have finite corners, and the area of these corners. Far from 0, the corners
    // of a box in center format can be much further apart than its area implies. Very small areas
    // have lost bits.
    return b.area >= 1e-30f && b.area >= 0.999f * width * height ? kSomewhere : kEverywhere;
  }
};

// Sample of the sides of boxes along one axis.
struct Sample {
  static constexpr int kMost = 64;
  double positions[kMost], sides[kMost];
  int num = 0;

  // The position is low + high: twice the center.
  void add(float low, float high) {
    positions[num] = (double)low + high;
    sides[num++] = (double)high - low;
  }
};

struct Range {
  int begin, end;
};

// Cells of the grid along one axis. The first and the last cell extend to infinity.
struct Axis {
  int cells = 1;
  double first = 0, length = 0;  // extent of most boxes
  double side = 0;               // median side
  double longest_side = 0;
  double cells_per_unit = 0;

  // The sample affects the time only, never the result. It is reordered.
  void find(Sample& sample) {
    if (sample.num < 2) return;
    double *low = sample.positions + sample.num / 8, *end = sample.positions + sample.num,
           *high = end - 1 - sample.num / 8;
    std::nth_element(sample.positions, low, end);
    std::nth_element(low + 1, high, end);
    length = (*high - *low) * 4 / 3;  // they are the middle three quarters
    first = *low - length / 8;
    std::nth_element(sample.sides, sample.sides + sample.num / 2, sample.sides + sample.num);
    side = sample.sides[sample.num / 2];
    longest_side = *std::max_element(sample.sides, sample.sides + sample.num);
  }

  // Number of cells of about one median side each.
  double natural_cells() const { return std::max(1.0, length / (2 * side)); }

  void divide(double into) {
    cells = (int)into;
    cells_per_unit = length > 0 ? cells / length : 0;
  }

  int cell(double position) const {
    const double at = (position - first) * cells_per_unit;
    return at > 0 ? (int)std::min(at, cells - 1.0) : 0;
  }

  // Maximum distance in position of boxes that suppress each other. The factor 1.01 covers
  // rounding.
  double reach(double side, double of_side) const {
    return std::min(2 * of_side * side, 1.01 * (side + longest_side));
  }

  // Range of cells within that distance.
  CVOPS_INLINE Range near(float low, float high, double of_side) const {
    const double position = (double)low + high, far = reach((double)high - low, of_side);
    return {cell(position - far), cell(position + far) + 1};
  }

  // Fraction of all cells in that range, for a median box.
  double share(double of_side) const {
    return std::min(1.0, 2 * reach(side, of_side) / length + 1.0 / cells);
  }
};

// Suppression among the boxes of an image, or of one class, by a spatial hash. Kept boxes are
// inserted into the cells of a grid. A box is compared with the kept boxes of the cells in its
// reach. Each cell has capacity for all boxes that belong to it.
struct Run {
  const SizedBox* boxes;
  const int* order;  // indices of the boxes
  const int num;
  const NmsRule rule;
  const Filter filter{rule};

  Axis x, y;
  int cells = 1;     // cell kEverywhere and the cells of the grid
  double share = 1;  // fraction of the inserted boxes with which a median box is compared
  int filed = 0;
  const std::unique_ptr<int[]> integers = scratch<int>(num + 3 * most_cells());
  int* const cell_of = integers.get();
  // Per cell: begin and end of its boxes in the arrays below, and begin of the new ones, which the
  // current boxes are not yet compared with.
  int *const begins = cell_of + num, *const news = begins + most_cells(),
             *const ends = news + most_cells();

  const int64 room = num + kGroup;
  const std::unique_ptr<float[]> floats = scratch<float>(6 * room);
  float *const x1 = floats.get(), *const y1 = x1 + room, *const x2 = y1 + room,
               *const y2 = x2 + room, *const area = y2 + room, *const least_overlap = area + room;

  int most_cells() const { return num / kBoxesPerCell + 2; }

  Run(const SizedBox* boxes, const int* order, int num, NmsRule rule)
      : boxes(boxes), order(order), num(num), rule(rule) {}

  int place(int i) const { return filter.place_of(boxes[order[i]], rule.center); }

  // Chooses a grid, or no grid if it does not pay: then all boxes are in cell kEverywhere.
  void make_grid() {
    if (num < kLeastSpared || !filter.filters) return;
    Sample of_x, of_y;
    for (int i = 0, stride = (int)ceil_div(num, Sample::kMost); i < num; i += stride) {
      if (place(i) != kSomewhere) continue;
      const Box& b = boxes[order[i]].box;
      of_x.add(b.x1, b.x2), of_y.add(b.y1, b.y2);
    }
    x.find(of_x), y.find(of_y);
    const double most = most_cells() - 1, wide = x.natural_cells(), high = y.natural_cells();
    const double fewer = std::sqrt(std::max(1.0, wide * high / most));
    x.divide(std::clamp(wide / fewer, 1.0, most));
    y.divide(std::clamp(high / fewer, 1.0, most / x.cells));
    share = x.share(filter.of_side) * y.share(filter.of_side);
    if (num * (1 - share) >= kLeastSpared) cells = 1 + x.cells * y.cells;
  }

  // Computes the cell of each box and reserves capacity in the cells.
  void place_all() {
    std::fill(begins, begins + cells, 0);
    for (int i = 0; i < num; ++i) {
      const Box& b = boxes[order[i]].box;
      int cell = cells == 1 ? kEverywhere : place(i);
      if (cell == kSomewhere) {
        cell += y.cell((double)b.y1 + b.y2) * x.cells + x.cell((double)b.x1 + b.x2);
        x.longest_side = std::max(x.longest_side, (double)b.x2 - b.x1);
        y.longest_side = std::max(y.longest_side, (double)b.y2 - b.y1);
      }
      cell_of[i] = cell;
      if (cell != kNowhere) ++begins[cell];
    }
    for (int c = 0, before = 0; c < cells; ++c) before += std::exchange(begins[c], before);
    std::copy_n(begins, cells, news);
    std::copy_n(begins, cells, ends);
    // Empty slots never pass the overlap test.
    std::fill_n(least_overlap, room, kInfinite);
  }

  void file(int i) {
    ++filed;
    const SizedBox& b = boxes[order[i]];
    const int at = ends[cell_of[i]]++;
    x1[at] = b.box.x1, y1[at] = b.box.y1, x2[at] = b.box.x2, y2[at] = b.box.y2;
    area[at] = b.area, least_overlap[at] = filter.least_overlap(b.area);
  }
};

// True if an inserted box in [at, end) suppresses the box. `at` advances to `end` or beyond: boxes
// after `end` in the last group are compared too.
template <bool kCenter>
CVOPS_INLINE bool is_suppressed_by(const Run& run, int& at, int end, const SizedBox& b,
                                   float least) {
  const float *x1 = run.x1, *y1 = run.y1, *x2 = run.x2, *y2 = run.y2, *lo = run.least_overlap;
  for (; at < end; at += kGroup) {
    int passes[kGroup], any = 0;
    for (int k = 0; k < kGroup; ++k) {
      const int i = at + k;
      passes[k] = intersection({x1[i], y1[i], x2[i], y2[i]}, b.box, kCenter) > least + lo[i];
      any |= passes[k];
    }
    if (!any) continue;
    for (int k = 0; k < kGroup; ++k) {
      const int i = at + k;
      if (passes[k] && suppresses({{x1[i], y1[i], x2[i], y2[i]}, run.area[i]}, b, run.rule)) {
        return true;
      }
    }
  }
  return false;
}

// True if an inserted box suppresses box i. Each cell is searched from begins[cell] to ends[cell].
template <bool kCenter>
CVOPS_INLINE bool is_suppressed(const Run& run, int i, const int* begins, const int* ends) {
  const int place = run.cell_of[i];
  if (place == kNowhere) return false;
  const SizedBox b = run.boxes[run.order[i]];
  const float least = run.filter.least_overlap(b.area);
  int at = begins[kEverywhere];
  if (is_suppressed_by<kCenter>(run, at, ends[kEverywhere], b, least)) return true;
  if (run.cells == 1) return false;
  Range columns = {0, run.x.cells}, rows = {0, run.y.cells};
  if (place != kEverywhere) {
    columns = run.x.near(b.box.x1, b.box.x2, run.filter.of_side);
    rows = run.y.near(b.box.y1, b.box.y2, run.filter.of_side);
  }
  for (int row = rows.begin; row < rows.end; ++row) {
    const int first = kSomewhere + row * run.x.cells;
    at = 0;
    for (int cell = first + columns.begin; cell < first + columns.end; ++cell) {
      at = std::max(at, begins[cell]);
      if (is_suppressed_by<kCenter>(run, at, ends[cell], b, least)) return true;
    }
  }
  return false;
}

// Sets kept for the boxes [first, end), by comparison with the old boxes of each cell.
template <bool kCenter>
void compare_with_old(const Run& run, uint8_t* kept, int first, int end) {
  for (int i = first; i < end; ++i) {
    kept[run.order[i]] = !is_suppressed<kCenter>(run, i, run.begins, run.news);
  }
}

// Resolves the boxes [first, end) one by one and inserts the kept ones. Each cell is searched from
// `begins` on: its earlier boxes are already compared.
template <bool kCenter>
void settle(Run& run, uint8_t* kept, int first, int end, const int* begins) {
  for (int i = first; i < end; ++i) {
    uint8_t& is_kept = kept[run.order[i]];
    if (is_kept) is_kept = !is_suppressed<kCenter>(run, i, begins, run.ends);
    if (is_kept && run.cell_of[i] != kNowhere) run.file(i);
  }
}

template <bool kCenter>
void suppress_run(uint8_t* kept, const SizedBox* boxes, const int* order, int num, NmsRule rule,
                  int threads) {
  Run run(boxes, order, num, rule);
  run.make_grid();
  run.place_all();
  for (int i = 0; i < num; ++i) kept[order[i]] = 1;
  for (int first = 0; first < num; first += kBlock) {
    const int end = std::min(num, first + kBlock);
    const double compared = run.share * run.filed;  // maximum comparisons per box
    const int* from = run.begins;
    if (threads > 1 && compared > kLeastShared) {
      from = run.news;
      std::copy_n(run.ends, run.cells, run.news);
      constexpr int kPart = 32;
      parallel_for(ceil_div(end - first, kPart), kPart * 0.1 * compared, [&](int64 p) {
        const int begin = first + (int)p * kPart;
        simd<compare_with_old<kCenter>>(run, kept, begin, std::min(end, begin + kPart));
      });
    }
    simd<settle<kCenter>>(run, kept, first, end, from);
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
  // If one class has most of the boxes, its comparisons use all threads.
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
