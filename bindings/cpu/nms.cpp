#include "nms.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <vector>

#include "nms_rotated.cuh"
#include "nms_spatial_hash.h"
#include "simd.h"

namespace cvops::cpu {
namespace {

// Boxes that are resolved per step, of the first boxes and later. Several threads compare them with
// previously kept boxes, if each box has more than kMinParallel comparisons.
constexpr int kFirstBlock = 256, kBlock = 1024;
constexpr int kMinParallel = 1000;

// Meaning of the numbers of a box: see NmsRule. The boxes of `rotated` and `doubles` are the bounds
// of rotated boxes and of boxes of doubles.
enum class Form { corner, center, pixels, rotated, doubles };

constexpr bool has_bounds(Form form) { return form == Form::rotated || form == Form::doubles; }

template <Form kForm>
CVOPS_INLINE float intersection(Box kept, Box other) {
  return kForm == Form::pixels ? pixel_intersection(kept, other)
                               : intersection(kept, other, kForm == Form::center);
}

// True if an inserted box in [at, end) suppresses the box. `at` advances to `end` or beyond: boxes
// after `end` in the last vector are compared too.
template <Form kForm>
CVOPS_INLINE bool is_suppressed_by(const SpatialHash& kept, int& at, int end, int index,
                                   float least) {
  const SizedBox b = kept.boxes[index];
  const float *x1 = kept.x1, *y1 = kept.y1, *x2 = kept.x2, *y2 = kept.y2, *lo = kept.min_overlap;
  const bool test_all = !kept.broad_phase.enabled;
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
