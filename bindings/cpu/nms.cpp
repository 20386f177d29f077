#include "nms.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <numeric>
#include <utility>
#include <vector>

#include "nms_rotated.cuh"
#include "simd.h"

namespace cvops::cpu {
namespace {

// Kept boxes per vector step.
constexpr int kVector = 16;
// Minimum average number of boxes per cell of a grid.
constexpr int kBoxesPerCell = 2;
// Minimum number of comparisons per box that a grid must save.
constexpr int kMinSaved = 300;
// Minimum work per box, in comparisons, of a grid that levels replace; the work of a visited cell;
// the number of boxes in a sample of the work; and the lowest threshold for levels.
constexpr double kMinReplaced = 1500, kCellWork = 16, kMinLevelThreshold = 0.1;
constexpr int kWorkSample = 32;
// Boxes that are resolved per step, of the first boxes and later. Several threads compare them with
// previously kept boxes, if each box has more than kMinParallel comparisons.
constexpr int kFirstBlock = 256, kBlock = 1024;
constexpr int kMinParallel = 1000;
// Threshold of an overlap that no box passes; its negative is one that every box passes.
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Meaning of the numbers of a box: see NmsRule. The boxes of `rotated` and `doubles` are the bounds
// of rotated boxes and of boxes of doubles.
enum class Form { corner, center, pixels, rotated, doubles };

constexpr bool has_bounds(Form form) { return form == Form::rotated || form == Form::doubles; }

// The boxes of bounds: null for axis-aligned boxes of floats.
struct Exact {
  const RotatedBox* rotated = nullptr;
  const DoubleBox* doubles = nullptr;

  explicit operator bool() const { return rotated || doubles; }
};

template <Form kForm>
CVOPS_INLINE float intersection(Box kept, Box other) {
  return kForm == Form::pixels ? pixel_intersection(kept, other)
                               : intersection(kept, other, kForm == Form::center);
}

// Cell of a box. kNoCell: the box overlaps no other one. kOverflowCell: all boxes are compared with
// its boxes, as if there was no grid. From kGridCell on: the cells of the grid.
constexpr int kNoCell = -1, kOverflowCell = 0, kGridCell = 1;

// Broad phase: necessary conditions for suppression. They are cheaper than the rule and never
// stricter.
struct BroadPhase {
  bool enabled;          // false: there is no such condition, test all pairs
  float area_fraction;   // the overlap exceeds this fraction of the sum of areas
  double side_fraction;  // along each axis, the distance of centers is at most this times a side
  double part;           // along each axis, the overlap exceeds this part of the longer side

  const bool has_bounds;  // of other boxes

  BroadPhase(NmsRule rule, bool has_bounds) : has_bounds(has_bounds) {
    const double t = rule.threshold;
    // With a negative threshold, boxes that do not touch suppress each other.
    enabled = rule.at_least ? t > 0 : t >= 0;
    // overlap / (a + b - overlap) > t implies overlap > t / (1 + t) (a + b). The factor 0.9999
    // covers the rounding of both sides, unless t itself has few bits.
    area_fraction = t < 1e-30 ? 0.0f : (float)(0.9999 * t / (1 + t));
    // For boxes in the grid, the overlap along an axis exceeds `part` of the longer side. The
    // distance of the centers is (a + b) / 2 - overlap, or less if one side contains the other. For
    // a given a, it is greatest at b = a or b = a / part. The factor 1.01 covers rounding.
    //
    // For rotated boxes, the sides are those of the bounds. The width of a box in each row is at
    // most twice its mean width. A part t of the area thus has t / 2 of the height, or more.
    part = has_bounds ? std::min(0.49 * t, 0.5) : std::min(0.99 * t, 1.0);
    side_fraction = t < 1e-3 ? kInfinity : 1.01 * (1 - part) * std::max(1.0, 0.5 / part);
  }

  // Half of the minimum overlap: the bound for two boxes is the sum of their values.
  float min_overlap(float area) const {
    if (has_bounds) return std::isnan(area) ? -kInfinity : area_fraction * area - 1e-36f;
    // If the product is denormal, three times the smallest float covers its rounding.
    return enabled ? std::max(0.0f, area_fraction * area - 4.2e-45f) : -kInfinity;
  }

  // kGridCell for any cell of the grid.
  int kind_of_cell(const SizedBox& b, const NmsRule& rule) const {
    const float width = b.box.x2 - b.box.x1, height = b.box.y2 - b.box.y1;
    if (!enabled) return kOverflowCell;
    if (has_bounds) {
      if (b.area == 0) return kNoCell;
      // Far from 0, the bounds are much larger than the box.
      const bool is_near = std::abs(b.box.x1 + b.box.x2) <= 4000 * width &&
                           std::abs(b.box.y1 + b.box.y2) <= 4000 * height;
      const bool is_finite = width < kInfinity && height < kInfinity;
      return is_near && is_finite && !std::isnan(b.area) ? kGridCell : kOverflowCell;
    }
    // The sides are one pixel or more, so the rounding of a side is relatively small.
    if (rule.pixels)
      return width >= 0 && height >= 0 && b.area < kInfinity ? kGridCell : kOverflowCell;
    // In corner format, a box with NaN has area NaN or overlaps nothing. In center format the area
    // is a number, and a NaN at one side means that this side is unbounded.
    if (rule.center && (std::isnan(b.box.x1 + b.box.x2) || std::isnan(b.box.y1 + b.box.y2)))
      return kOverflowCell;
    if (!(b.box.x1 < b.box.x2 && b.box.y1 < b.box.y2) || b.area == kInfinity) return kNoCell;
    // Boxes in the grid have finite corners, and the area of these corners. Far from 0, the corners
    // of a box in center format can be much further apart than its area implies. Very small areas
    // have lost bits.
    return b.area >= 1e-30f && b.area >= 0.999f * width * height ? kGridCell : kOverflowCell;
  }
};

// Sample of the sides of boxes along one axis.
struct AxisSample {
  static constexpr int kMaxSize = 64;
  const double pixel;  // see GridAxis
  double positions[kMaxSize], sides[kMaxSize];
  int num = 0;

  explicit AxisSample(double pixel) : pixel(pixel) {}

  // The position is low + high: twice the center.
  void add(float low, float high) {
    positions[num] = (double)low + high;
    sides[num++] = (double)high - low + pixel;
  }
};

struct Range {
  int begin, end;
};

// Cells of the grid along one axis. The first and the last cell extend to infinity.
struct GridAxis {
  const double pixel;  // length of a side beyond the distance of its corners
  int cells = 1;
  double origin = 0, extent = 0;  // extent of most boxes
  double median_side = 0, max_side = 0;
  double cells_per_unit = 0;

  // The sample affects the time only, never the result. It is reordered.
  void measure(AxisSample& sample) {
    double *low = sample.positions + sample.num / 8, *end = sample.positions + sample.num,
           *high = end - 1 - sample.num / 8;
    std::nth_element(sample.positions, low, end);
    std::nth_element(low + 1, high, end);
    extent = (*high - *low) * 4 / 3;  // they are the middle three quarters
    origin = *low - extent / 8;
    std::nth_element(sample.sides, sample.sides + sample.num / 2, sample.sides + sample.num);
    median_side = sample.sides[sample.num / 2];
    max_side = *std::max_element(sample.sides, sample.sides + sample.num);
  }

  // Number of cells of about one median side each.
  double preferred_cells() const { return std::max(1.0, extent / (2 * median_side)); }

  void divide(double into) {
    cells = (int)into;
    cells_per_unit = extent > 0 ? cells / extent : 0;
  }

  int cell(double position) const {
    const double at = (position - origin) * cells_per_unit;
    return at > 0 ? (int)std::min(at, cells - 1.0) : 0;
  }

  // Maximum distance in position of boxes that suppress each other. The factor 1.01 covers
  // rounding.
  double reach(double side, double side_fraction) const {
    return std::min(2 * side_fraction * side, 1.01 * (side + max_side));
  }

  // Range of cells within that distance.
  CVOPS_INLINE Range cells_in_reach(float low, float high, double side_fraction) const {
    const double position = (double)low + high;
    const double far = reach((double)high - low + pixel, side_fraction);
    return {cell(position - far), cell(position + far) + 1};
  }

  // Fraction of all cells in that range, for a median box.
  double fraction_in_reach(double side_fraction) const {
    return std::min(1.0, 2 * reach(median_side, side_fraction) / extent + 1.0 / cells);
  }
};

// Grids for boxes of different sizes: one for each pair of levels, of the width and of the height.
// A level has the sides from a power of 4 to the next one. Only boxes of near levels suppress each
// other. A cell is half as long as the longest sides of its level.
struct Levels {
  static constexpr int kNum = 160, kMinExponent = -160;

  int buckets = 0, shift = 0;       // 0: not in use
  std::unique_ptr<uint8_t[]> used;  // (kNum, kNum): true if there is a box

  static int level(double side) {
    uint64 bits;
    std::memcpy(&bits, &side, sizeof bits);
    const int exponent = (int)(bits >> 52 & 0x7ff) - 1023;
    return std::clamp((exponent - kMinExponent) >> 1, 0, kNum - 1);
  }

  // 4^n for the exponent n of the shortest sides of a level.
  static double shortest(int level) {
    const uint64 bits = (uint64)(2 * level + kMinExponent + 1023) << 52;
    double side;
    std::memcpy(&side, &bits, sizeof side);
    return side;
  }

  // Cell of a position. Positions are twice the centers; a cell has four of the shortest sides.
  static int64 cell(double position, int level) {
    constexpr double limit = 1ll << 60;
    const double at = std::floor(position / (4 * shortest(level)));
    return (int64)std::min(std::max(at, -limit), limit);
  }

  // Maximum distance in position from a box of side `side` to those of a level.
  static double reach(double side, int level, double part) {
    const double low = shortest(level), high = 4 * low;
    auto distance = [&](double other) { return side + other - 2 * part * std::max(side, other); };
    return 1.01 * std::max(distance(std::clamp(side, low, high)), distance(high));
  }

  // Several cells may share a bucket: more boxes are compared then.
  int bucket(int of_x, int of_y, int64 column, int64 row) const {
    uint64 key = (uint64)(of_x * kNum + of_y) * 0x9E3779B97F4A7C15u;
    key += (uint64)column * 0xC2B2AE3D27D4EB4Fu + (uint64)row * 0x165667B19E3779F9u;
    key = (key ^ key >> 32) * 0xD6E8FEB86659FD93u;
    return (int)(key >> shift);
  }

  void use(int num) {
    int bits = 1;
    while (2 << bits <= num) ++bits;
    buckets = 1 << bits, shift = 64 - bits;
    used.reset(new uint8_t[kNum * kNum]());
  }
};

// Center, sides, and direction of the longer side of a rotated box.
struct Sides {
  float x, y, cos, sin, length, width;

  static Sides of(const RotatedBox& b) {
    const bool turned = b.height > b.width;
    const double cos = turned ? -b.sin : b.cos, sin = turned ? b.cos : b.sin;
    return {b.x,        b.y,
            (float)cos, (float)sin,
            turned ? b.height : b.width, turned ? b.width : b.height};
  }
};

// False if the overlap of two rotated boxes is certainly not above `least`. For thin boxes, their
// bounds do not tell that. Infinite sides, or a NaN, give true.
CVOPS_INLINE bool may_exceed(const Sides& a, const Sides& b, float smaller_area, float least) {
  const float cos = std::abs(a.cos * b.cos + a.sin * b.sin);
  const float sin = std::abs(a.cos * b.sin - a.sin * b.cos);
  // The overlap is at most that of the strips along the longer sides. The other terms and factors
  // cover the rounding, here and of the exact area.
  const float of_strips = 1.001f * a.width * b.width + 1e-10f * a.length * b.length;
  // It is also at most that of b and the bounds of a in the frame of b.
  const float dx = a.x - b.x, dy = a.y - b.y;
  const float along = std::abs(dx * b.cos + dy * b.sin), across = std::abs(dy * b.cos - dx * b.sin);
  const float length = a.length * cos + a.width * sin, width = a.length * sin + a.width * cos;
  const float slack = 1e-6f * (a.length + b.length + std::abs(dx) + std::abs(dy));
  const float x = smaller(smaller(length, b.length), 0.5f * (length + b.length) - along) + slack;
  const float y = smaller(smaller(width, b.width), 0.5f * (width + b.width) - across) + slack;
  const float of_bounds = positive_part(x) * positive_part(y);
  return !((1.001f * smaller_area < least) | (of_strips < least * (sin - 1e-5f)) |
           (1.001f * of_bounds < least));
}

// Spatial hash grid of the kept boxes of an image, or of one class. A box is compared with the kept
// boxes of the cells in its reach. Each cell has capacity for all boxes that belong to it.
struct SpatialHash {
  const SizedBox* boxes;
  const Exact exact;
  const int* order;  // indices of the boxes
  const int num;
  const NmsRule rule;
  const BroadPhase broad_phase{rule, (bool)exact};

  GridAxis x{(double)rule.pixels}, y{(double)rule.pixels};
  Levels levels;        // replace the grid where it is slow
  int next_check = 0;   // the box from which on the work is estimated again
  int cells = 1;        // kOverflowCell and the cells of the grid
  double fraction = 1;  // fraction of the inserted boxes with which a median box is compared
  int num_inserted = 0, num_kept = 0;
  const std::unique_ptr<int[]> integers =
      scratch<int>(num + 3 * max_cells() + (exact ? num + kVector : 0));
  int* const cell_of = integers.get();
  // Per cell: begin and end of its boxes in the arrays below, and begin of the new ones, which the
  // current boxes are not yet compared with.
  int *const begins = cell_of + num, *const new_begins = begins + max_cells(),
             *const ends = new_begins + max_cells();
  // Index of each inserted box that is not the bounds themselves.
  int* const index_of_slot = ends + max_cells();

  const int64 capacity = num + kVector;
  const std::unique_ptr<float[]> floats = scratch<float>((exact.rotated ? 12 : 6) * capacity);
  float *const x1 = floats.get(), *const y1 = x1 + capacity, *const x2 = y1 + capacity,
               *const y2 = x2 + capacity, *const area = y2 + capacity,
               *const min_overlap = area + capacity;
  float* const sides = min_overlap + capacity;  // (6, capacity), of rotated boxes: see Sides

  int max_cells() const { return num / kBoxesPerCell + 2; }

  SpatialHash(const SizedBox* boxes, Exact exact, const int* order, int num, NmsRule rule)
      : boxes(boxes), exact(exact), order(order), num(num), rule(rule) {}

  int kind_of_cell(int i) const { return broad_phase.kind_of_cell(boxes[order[i]], rule); }

  // Chooses a grid, or no grid if it does not pay: then all boxes are in kOverflowCell.
  void choose_grid() {
    if (num < kMinSaved || !broad_phase.enabled) return;
    AxisSample of_x(x.pixel), of_y(y.pixel);
    for (int i = 0, stride = (int)ceil_div(num, AxisSample::kMaxSize); i < num; i += stride) {
      if (kind_of_cell(i) != kGridCell) continue;
      const Box& b = boxes[order[i]].box;
      of_x.add(b.x1, b.x2), of_y.add(b.y1, b.y2);
    }
    if (of_x.num < 2) return;  // the sample has no extent
    x.measure(of_x), y.measure(of_y);
    const double max = max_cells() - 1, columns = x.preferred_cells(), rows = y.preferred_cells();
    const double fewer = std::sqrt(std::max(1.0, columns * rows / max));
    x.divide(std::clamp(columns / fewer, 1.0, max));
    y.divide(std::clamp(rows / fewer, 1.0, max / x.cells));
    const double side = broad_phase.side_fraction;
    fraction = x.fraction_in_reach(side) * y.fraction_in_reach(side);
    if (num * (1 - fraction) >= kMinSaved) cells = kGridCell + x.cells * y.cells;
  }

  // Computes the cell of each box and reserves capacity in the cells.
  void assign_cells() {
    std::fill(begins, begins + cells, 0);
    const bool few = num < kMinSaved;
    for (int i = 0; i < num; ++i) {
      const Box& b = boxes[order[i]].box;
      int cell = few ? kOverflowCell : kind_of_cell(i);
      if (cell == kGridCell && cells == 1) cell = kOverflowCell;
      if (cell == kGridCell) {
        cell += y.cell((double)b.y1 + b.y2) * x.cells + x.cell((double)b.x1 + b.x2);
        x.max_side = std::max(x.max_side, (double)b.x2 - b.x1 + x.pixel);
        y.max_side = std::max(y.max_side, (double)b.y2 - b.y1 + y.pixel);
      }
      cell_of[i] = cell;
      if (cell != kNoCell) ++begins[cell];
    }
    reserve();
  }

  // Reserves capacity for the numbers of boxes in `begins`.
  void reserve() {
    for (int c = 0, before = 0; c < cells; ++c) before += std::exchange(begins[c], before);
    std::copy_n(begins, cells, new_begins);
    std::copy_n(begins, cells, ends);
    // Empty slots never pass the overlap test.
    std::fill_n(min_overlap, capacity, kInfinity);
  }

  Range columns_in_reach(const Box& b) const {
    return x.cells_in_reach(b.x1, b.x2, broad_phase.side_fraction);
  }
  Range rows_in_reach(const Box& b) const {
    return y.cells_in_reach(b.y1, b.y2, broad_phase.side_fraction);
  }

  // Estimates the work per box for the boxes from `first` on, from a sample.
  double work(int first) const {
    double sum = 0;
    for (int i = first, stride = (int)ceil_div(num - first, kWorkSample); i < num; i += stride) {
      if (kind_of_cell(i) != kGridCell) continue;
      if (cells == 1) {
        sum += ends[kOverflowCell] - begins[kOverflowCell];
        continue;
      }
      const Box& b = boxes[order[i]].box;
      const Range columns = columns_in_reach(b), rows = rows_in_reach(b);
      for (int row = rows.begin; row < rows.end; ++row) {
        const int at = kGridCell + row * x.cells;
        for (int cell = at + columns.begin; cell < at + columns.end; ++cell) {
          sum += kCellWork + (ends[cell] - begins[cell]);
        }
      }
    }
    return sum / std::min(kWorkSample, num - first);
  }

  // Replaces the grid by levels if the boxes from `first` on would need much work.
  void replace_slow_grid(int first, const uint8_t* is_kept) {
    if (first < next_check || levels.buckets || num < kMinSaved || !broad_phase.enabled ||
        rule.threshold < kMinLevelThreshold) {
      return;
    }
    next_check = 2 * first;
    if (work(first) < kMinReplaced) return;
    levels.use(num / kBoxesPerCell);
    x.cells = levels.buckets, y.cells = 1, cells = kGridCell + levels.buckets;
    fraction = 0;
    std::fill(begins, begins + cells, 0);
    auto is_left = [&](int i) { return i >= first || is_kept[order[i]]; };
    for (int i = 0; i < num; ++i) {
      if (!is_left(i) || cell_of[i] == kNoCell) continue;
      cell_of[i] = kind_of_cell(i);
      if (cell_of[i] == kGridCell) {
        const Box& b = boxes[order[i]].box;
        const int of_x = Levels::level((double)b.x2 - b.x1 + x.pixel);
        const int of_y = Levels::level((double)b.y2 - b.y1 + y.pixel);
        levels.used[of_x * Levels::kNum + of_y] = true;
        cell_of[i] += levels.bucket(of_x, of_y, Levels::cell((double)b.x1 + b.x2, of_x),
                                    Levels::cell((double)b.y1 + b.y2, of_y));
      }
      ++begins[cell_of[i]];
    }
    reserve();
    for (int i = 0; i < first; ++i) {
      if (is_kept[order[i]] && cell_of[i] != kNoCell) insert(i);
    }
  }

  void set_sides(int at, const Sides& b) {
    float* to = sides + at;
    for (float number : {b.x, b.y, b.cos, b.sin, b.length, b.width}) *to = number, to += capacity;
  }

  CVOPS_INLINE Sides sides_at(int at) const {
    const float* from = sides + at;
    return {from[0],
            from[capacity],
            from[2 * capacity],
            from[3 * capacity],
            from[4 * capacity],
            from[5 * capacity]};
  }

  void insert(int i) {
    ++num_inserted;
    const SizedBox& b = boxes[order[i]];
    const int at = ends[cell_of[i]]++;
    x1[at] = b.box.x1, y1[at] = b.box.y1, x2[at] = b.box.x2, y2[at] = b.box.y2;
    area[at] = b.area, min_overlap[at] = broad_phase.min_overlap(b.area);
    if (exact) index_of_slot[at] = order[i];
    if (exact.rotated) set_sides(at, Sides::of(exact.rotated[order[i]]));
  }
};

// True if an inserted box in [at, end) suppresses the box. `at` advances to `end` or beyond: boxes
// after `end` in the last vector are compared too.
template <Form kForm>
CVOPS_INLINE bool is_suppressed_by(const SpatialHash& kept, int& at, int end, int index,
                                   float least) {
  const SizedBox b = kept.boxes[index];
  const float *x1 = kept.x1, *y1 = kept.y1, *x2 = kept.x2, *y2 = kept.y2, *lo = kept.min_overlap;
  const bool test_all = !kept.broad_phase.enabled;
  Sides own = {};
  if constexpr (kForm == Form::rotated) own = Sides::of(kept.exact.rotated[index]);
  for (; at < end; at += kVector) {
    int passes[kVector], any = 0;
    for (int k = 0; k < kVector; ++k) {
      const int i = at + k;
      const Box other = {x1[i], y1[i], x2[i], y2[i]};
      passes[k] = intersection<kForm>(other, b.box) > least + lo[i];
      if (has_bounds(kForm)) {
        // A small overlap may be 0 after its rounding. Empty slots never pass.
        passes[k] &= may_overlap(other, b.box);
        passes[k] |= test_all & (lo[i] < kInfinity);
      }
      any |= passes[k];
    }
    if (!any) continue;
    if constexpr (kForm == Form::rotated) {
      for (int k = 0; k < kVector; ++k) {
        const int i = at + k;
        passes[k] &= may_exceed(kept.sides_at(i), own, smaller(kept.area[i], b.area), least + lo[i]);
      }
    }
    for (int k = 0; k < kVector; ++k) {
      const int i = at + k;
      if (!passes[k]) continue;
      if constexpr (kForm == Form::rotated) {
        const RotatedBox* const boxes = kept.exact.rotated;
        if (suppresses(boxes[kept.index_of_slot[i]], boxes[index], kept.rule)) return true;
      } else if constexpr (kForm == Form::doubles) {
        const DoubleBox* const boxes = kept.exact.doubles;
        if (suppresses(boxes[kept.index_of_slot[i]], boxes[index], kept.rule)) return true;
      } else {
        const SizedBox other = {{x1[i], y1[i], x2[i], y2[i]}, kept.area[i]};
        if (suppresses(other, b, kept.rule)) return true;
      }
    }
  }
  return false;
}

// True if an inserted box in a cell of a level suppresses the box.
template <Form kForm>
CVOPS_INLINE bool is_suppressed_in_levels(const SpatialHash& kept, int index, float least,
                                          const int* begins, const int* ends) {
  const Box b = kept.boxes[index].box;
  const double x = (double)b.x1 + b.x2, width = (double)b.x2 - b.x1 + kept.x.pixel;
  const double y = (double)b.y1 + b.y2, height = (double)b.y2 - b.y1 + kept.y.pixel;
  const double part = kept.broad_phase.part;
  const int last_x = Levels::level(width / part), last_y = Levels::level(height / part);
  for (int of_x = Levels::level(width * part); of_x <= last_x; ++of_x) {
    const double far_x = Levels::reach(width, of_x, part);
    const int64 column = Levels::cell(x - far_x, of_x), end = Levels::cell(x + far_x, of_x) + 1;
    for (int of_y = Levels::level(height * part); of_y <= last_y; ++of_y) {
      if (!kept.levels.used[of_x * Levels::kNum + of_y]) continue;
      const double far_y = Levels::reach(height, of_y, part);
      const int64 last_row = Levels::cell(y + far_y, of_y);
      for (int64 row = Levels::cell(y - far_y, of_y); row <= last_row; ++row) {
        for (int64 c = column; c < end; ++c) {
          const int cell = kGridCell + kept.levels.bucket(of_x, of_y, c, row);
          int at = begins[cell];
          if (is_suppressed_by<kForm>(kept, at, ends[cell], index, least)) return true;
        }
      }
    }
  }
  return false;
}

// True if an inserted box suppresses box i. Each cell is searched from begins[cell] to ends[cell].
template <Form kForm>
CVOPS_INLINE bool is_suppressed(const SpatialHash& kept, int i, const int* begins,
                                const int* ends) {
  const int own_cell = kept.cell_of[i];
  if (own_cell == kNoCell) return false;
  const int index = kept.order[i];
  const SizedBox b = kept.boxes[index];
  const float least = kept.broad_phase.min_overlap(b.area);
  int at;
  // Where most boxes are suppressed, it is probably by a box of the own cell.
  const bool own_first = own_cell != kOverflowCell && 2 * kept.num_inserted < i;
  for (const int cell : {kOverflowCell, own_first ? own_cell : kOverflowCell}) {
    at = begins[cell];
    if (is_suppressed_by<kForm>(kept, at, ends[cell], index, least)) return true;
    if (!own_first) break;
  }
  if (kept.cells == 1) return false;
  Range columns = {0, kept.x.cells}, rows = {0, kept.y.cells};
  if (own_cell != kOverflowCell) {
    if (kept.levels.buckets) {
      return is_suppressed_in_levels<kForm>(kept, index, least, begins, ends);
    }
    columns = kept.columns_in_reach(b.box), rows = kept.rows_in_reach(b.box);
  }
  for (int row = rows.begin; row < rows.end; ++row) {
    const int first = kGridCell + row * kept.x.cells;
    at = 0;
    for (int cell = first + columns.begin; cell < first + columns.end; ++cell) {
      at = std::max(at, begins[cell]);
      if (is_suppressed_by<kForm>(kept, at, ends[cell], index, least)) return true;
    }
  }
  return false;
}

// Sets is_kept for the boxes [first, end), by comparison with the old boxes of each cell.
template <Form kForm>
void compare_with_old(const SpatialHash& kept, uint8_t* is_kept, int first, int end) {
  for (int i = first; i < end; ++i) {
    is_kept[kept.order[i]] = !is_suppressed<kForm>(kept, i, kept.begins, kept.new_begins);
  }
}

// Resolves the boxes [first, end) one by one and inserts the kept ones, until there are `max_kept`.
// Each cell is searched from `begins` on: its earlier boxes are already compared.
template <Form kForm>
void resolve(SpatialHash& kept, uint8_t* is_kept, int first, int end, const int* begins,
             int max_kept) {
  for (int i = first; i < end; ++i) {
    uint8_t& own = is_kept[kept.order[i]];
    own &= kept.num_kept < max_kept;
    if (own) own = !is_suppressed<kForm>(kept, i, begins, kept.ends);
    kept.num_kept += own;
    if (own && kept.cell_of[i] != kNoCell) kept.insert(i);
  }
}

// Suppression among the boxes of an image, or of one class.
template <Form kForm>
void suppress_class(uint8_t* is_kept, const SizedBox* boxes, Exact exact, const int* order, int num,
                    NmsRule rule, int max_kept, int threads) {
  SpatialHash kept(boxes, exact, order, num, rule);
  kept.choose_grid();
  kept.assign_cells();
  for (int i = 0; i < num; ++i) is_kept[order[i]] = 1;
  for (int first = 0, end; first < num; first = end) {
    end = std::min(num, first + (first < kBlock ? kFirstBlock : kBlock));
    if (kept.num_kept < max_kept) kept.replace_slow_grid(first, is_kept);
    const double compared = kept.fraction * kept.num_inserted;  // maximum comparisons per box
    const int* begins = kept.begins;
    if (threads > 1 && compared > kMinParallel && kept.num_kept < max_kept) {
      begins = kept.new_begins;
      std::copy_n(kept.ends, kept.cells, kept.new_begins);
      constexpr int kPart = 32;
      parallel_for(ceil_div(end - first, kPart), kPart * 0.1 * compared, [&](int64 p) {
        const int begin = first + (int)p * kPart;
        simd<compare_with_old<kForm>>(kept, is_kept, begin, std::min(end, begin + kPart));
      });
    }
    simd<resolve<kForm>>(kept, is_kept, first, end, begins, max_kept);
  }
}

// Suppression among the boxes of each class, or among all boxes.
void suppress_classes(uint8_t* kept, const SizedBox* boxes, Exact exact, const int* classes,
                      int num, NmsRule rule, int threads, int max_kept) {
  const auto order = scratch<int>(num);
  const auto suppress_one = exact.rotated   ? suppress_class<Form::rotated>
                            : exact.doubles ? suppress_class<Form::doubles>
                            : rule.pixels   ? suppress_class<Form::pixels>
                            : rule.center   ? suppress_class<Form::center>
                                            : suppress_class<Form::corner>;
  if (!rule.by_class) {
    std::iota(order.get(), order.get() + num, 0);
    return suppress_one(kept, boxes, exact, order.get(), num, rule, max_kept, threads);
  }
  const auto keys = scratch<uint64>(num), other = scratch<uint64>(num);
  for (int i = 0; i < num; ++i) keys[i] = (uint64)(uint32)classes[i] << 32 | (uint32)i;
  const uint64* sorted = sort_keys(keys.get(), other.get(), num, num);
  std::vector<Range> groups;  // one per class
  int largest = 0;
  for (int i = 0; i < num; ++i) {
    order[i] = (int)index_of(sorted[i]);
    if (i == 0 || sorted[i] >> 32 != sorted[i - 1] >> 32) groups.push_back({i, i});
    largest = std::max(largest, ++groups.back().end - groups.back().begin);
  }
  // If one class has most of the boxes, its comparisons use all threads.
  const bool within = threads > 1 && largest > num / threads;
  auto one = [&](int64 g) {
    const auto [begin, end] = groups[g];
    suppress_one(kept, boxes, exact, order.get() + begin, end - begin, rule, max_kept,
                 within ? threads : 1);
  };
  if (within || threads < 2) {
    for (size_t g = 0; g < groups.size(); ++g) one(g);
  } else {
    parallel_for((int64)groups.size(), 100.0 * num / groups.size(), one);
  }
}

}  // namespace

void suppress(uint8_t* kept, const SizedBox* boxes, const int* classes, int num, NmsRule rule,
              int threads, int max_kept) {
  suppress_classes(kept, boxes, {}, classes, num, rule, threads, max_kept);
}

void suppress_exactly(uint8_t* kept, const SizedBox* bounds, const RotatedBox* exact,
                      const int* classes, int num, NmsRule rule, int threads) {
  suppress_classes(kept, bounds, {exact, nullptr}, classes, num, rule, threads,
                   std::numeric_limits<int>::max());
}

void suppress_exactly(uint8_t* kept, const SizedBox* bounds, const DoubleBox* exact,
                      const int* classes, int num, NmsRule rule, int threads) {
  suppress_classes(kept, bounds, {nullptr, exact}, classes, num, rule, threads,
                   std::numeric_limits<int>::max());
}

}  // namespace cvops::cpu
