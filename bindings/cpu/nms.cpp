#include "nms.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <vector>

#include "nms_all_later.h"
#include "nms_cells.h"
#include "nms_form.h"
#include "nms_marks.h"
#include "nms_pairs.h"
#include "nms_parts.h"
#include "nms_rotated.cuh"
#include "nms_spatial_hash.h"
#include "simd.h"

namespace cvops::cpu {
namespace {

// Boxes that are resolved per step, of the first boxes and later. Several threads compare them with
// previously kept boxes, if each box has more than kMinParallel comparisons.
constexpr int kFirstBlock = 256, kBlock = 1024;
constexpr int kMinParallel = 1000;
// Minimum average number of kept boxes per cell for long vector steps.
constexpr int kMinDense = 12;
// Maximum numbers of boxes without classes, by Simd, that are compared with all later ones. Several
// classes would need a grid each.
constexpr int kMaxAllLaterOfAll[] = {128, 256, kMaxAllLater};
// Minimum number of boxes for one search in all classes.
constexpr int kMinSearched = 300;
// Maximum range of classes for a table.
constexpr int64 kMaxRange = 4096;
// Maximum number of pairs per box, estimated from a sample, for one search in all classes.
constexpr double kMaxGuessedPairs = 3;

// True if one of kVector boxes from `at` on that passes suppresses the box.
template <Form kForm, int kVector, bool kAtLeast>
CVOPS_INLINE bool any_suppresses(const SpatialHash& kept, const int* passes, int at, SizedBox b) {
  const NmsRule rule = {kept.rule.threshold, kAtLeast, 0, kForm == Form::center,
                        kForm == Form::pixels};
  int found = 0;
  for (int k = 0; k < kVector; ++k) {
    const int i = at + k;
    const SizedBox other = {{kept.x1[i], kept.y1[i], kept.x2[i], kept.y2[i]}, kept.area[i]};
    found |= passes[k] & (int)suppresses(other, b, rule);
  }
  return found;
}

// True if an inserted box in [at, end) suppresses the box. `at` advances to `end` or beyond: boxes
// after `end` in the last vector are compared too.
template <Form kForm, int kVector>
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
        if (kForm == Form::rotated) {
          passes[k] &= !(1.001f * smaller(kept.area[i], b.area) < least + lo[i]);
        }
        passes[k] |= test_all & (lo[i] < kInfinity);
      }
      any |= passes[k];
    }
    if (!any) continue;
    if constexpr (!has_bounds(kForm)) {
      // The rule holds for nearly all boxes that pass: a loop over these alone does not pay.
      const bool found = kept.rule.at_least
                             ? any_suppresses<kForm, kVector, true>(kept, passes, at, b)
                             : any_suppresses<kForm, kVector, false>(kept, passes, at, b);
      if (found) return true;
      continue;
    }
    if constexpr (kForm == Form::rotated) {
      for (int k = 0; k < kVector; ++k) {
        const int i = at + k;
        passes[k] &= test_all | may_exceed(kept.sides_at(i), own, least + lo[i]);
      }
    }
    for (int k = 0; k < kVector; ++k) {
      if (!passes[k]) continue;
      const int i = kept.index_of_slot[at + k];
      if constexpr (kForm == Form::rotated) {
        if (suppresses(kept.exact.rotated[i], kept.exact.rotated[index], kept.rule)) return true;
      } else if constexpr (kForm == Form::doubles) {
        if (suppresses(kept.exact.doubles[i], kept.exact.doubles[index], kept.rule)) return true;
      }
    }
  }
  return false;
}

// True if an inserted box in a cell of a level suppresses the box.
template <Form kForm, int kVector>
CVOPS_INLINE bool is_suppressed_in_levels(const SpatialHash& kept, int index, float least,
                                          const int* begins, const int* ends) {
  const Box b = kept.boxes[index].box;
  const double x = (double)b.x1 + b.x2, width = (double)b.x2 - b.x1 + kept.grid.pixel;
  const double y = (double)b.y1 + b.y2, height = (double)b.y2 - b.y1 + kept.grid.pixel;
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
          if (is_suppressed_by<kForm, kVector>(kept, at, ends[cell], index, least)) return true;
        }
      }
    }
  }
  return false;
}

// True if an inserted box in a leaf of the tree suppresses the box.
template <int kVector>
CVOPS_INLINE bool is_suppressed_in_tree(const SpatialHash& kept, int index, float least,
                                        const int* begins, const int* ends) {
  const RotatedTree::Query query(kept.exact.rotated[index], 0.95 * kept.rule.threshold);
  return kept.tree.search(query, [&](int leaf) {
    int at = begins[kGridCell + leaf];
    return is_suppressed_by<Form::rotated, kVector>(kept, at, ends[kGridCell + leaf], index, least);
  });
}

// True if an inserted box suppresses box i. Each cell is searched from begins[cell] to ends[cell].
template <Form kForm, int kVector>
CVOPS_INLINE bool is_suppressed(const SpatialHash& kept, int i, const int* begins,
                                const int* ends) {
  const int own_cell = kept.cell_of[i];
  if (own_cell == kNoCell) return false;
  const int index = kept.order[i];
  const SizedBox b = kept.boxes[index];
  const float least = kept.broad_phase.min_overlap(b.area);
  int at = begins[kOverflowCell];
  if (is_suppressed_by<kForm, kVector>(kept, at, ends[kOverflowCell], index, least)) return true;
  // Where most boxes are suppressed, it is probably by a box of the own cell.
  if (own_cell != kOverflowCell && 2 * kept.num_inserted < i) {
    at = begins[own_cell];
    if (is_suppressed_by<kForm, kVector>(kept, at, ends[own_cell], index, least)) return true;
  }
  if (kept.cells == 1) return false;
  Window window = {0, 0, kept.grid.columns, kept.grid.rows};
  if (own_cell != kOverflowCell) {
    if constexpr (kForm == Form::rotated) {
      if (kept.tree.leaves) {
        return is_suppressed_in_tree<kVector>(kept, index, least, begins, ends);
      }
    }
    if (kept.levels.buckets) {
      return is_suppressed_in_levels<kForm, kVector>(kept, index, least, begins, ends);
    }
    window = kept.in_reach(b.box);
  }
  for (int row = window.row; row < window.end_row; ++row) {
    const int first = kGridCell + row * kept.grid.columns;
    at = 0;
    for (int cell = first + window.column; cell < first + window.end_column; ++cell) {
      at = std::max(at, begins[cell]);
      if (is_suppressed_by<kForm, kVector>(kept, at, ends[cell], index, least)) return true;
    }
  }
  return false;
}

// Sets is_kept for the boxes [first, end), by comparison with the old boxes of each cell.
template <Form kForm, int kVector>
void compare_with_old(const SpatialHash& kept, uint8_t* is_kept, int first, int end) {
  for (int i = first; i < end; ++i) {
    is_kept[kept.order[i]] = !is_suppressed<kForm, kVector>(kept, i, kept.begins, kept.new_begins);
  }
}

// Resolves the boxes [first, end) one by one and inserts the kept ones, until there are `max_kept`.
// Each cell is searched from `begins` on: its earlier boxes are already compared.
template <Form kForm, int kVector>
void resolve(SpatialHash& kept, uint8_t* is_kept, int first, int end, const int* begins,
             int max_kept) {
  for (int i = first; i < end; ++i) {
    uint8_t& own = is_kept[kept.order[i]];
    own &= kept.num_kept < max_kept;
    if (own) own = !is_suppressed<kForm, kVector>(kept, i, begins, kept.ends);
    kept.num_kept += own;
    if (own && kept.cell_of[i] != kNoCell) kept.insert(i);
  }
}

// Suppression among all boxes of a part.
template <Form kForm>
void suppress_part(uint8_t* is_kept, const SizedBox* boxes, Exact exact, const int* order, int num,
                   NmsRule rule, int max_kept, int threads) {
  int first = 0;
  if constexpr (!has_bounds(kForm)) {
    const bool suits = RuleBounds::suit(rule);
    if (num <= (rule.by_class ? kMaxAllLater : kMaxAllLaterOfAll[(int)current_simd])) {
      if (suits && suppress_all_later<kForm>(is_kept, boxes, order, num, rule, max_kept)) return;
    } else if (suits) {
      BoxesInCells in_cells(boxes, order, num, rule);
      in_cells.choose_grid();
      if (in_cells.assign_slots(threads)) {
        if (max_kept >= num && suppress_by_pairs<kForm>(in_cells, is_kept, threads)) return;
        first = suppress_by_marks<kForm>(in_cells, is_kept, max_kept);
      }
    }
  }
  if (first == num) return;
  SpatialHash kept(boxes, exact, order, num, rule);
  kept.choose_grid();
  kept.assign_cells();
  kept.insert_first(first, is_kept);
  for (int i = first; i < num; ++i) is_kept[order[i]] = 1;
  for (int end; first < num; first = end) {
    const int step = first < kBlock ? kFirstBlock : kBlock;
    end = std::min(num, (first / step + 1) * step);
    if (kept.num_kept < max_kept) kept.replace_slow_grid(first, is_kept);
    const double compared = kept.fraction * kept.num_inserted;  // maximum comparisons per box
    const int* begins = kept.begins;
    const bool is_dense = kept.cells == 1 || kept.num_inserted > kMinDense * kept.cells;
    if (threads > 1 && compared > kMinParallel && kept.num_kept < max_kept) {
      begins = kept.new_begins;
      std::copy_n(kept.ends, kept.cells, kept.new_begins);
      constexpr int kPart = 32;
      parallel_for(ceil_div(end - first, kPart), kPart * 0.1 * compared, [&](int64 p) {
        const int begin = first + (int)p * kPart;
        const int last = std::min(end, begin + kPart);
        is_dense ? simd<compare_with_old<kForm, kLong>>(kept, is_kept, begin, last)
                 : simd<compare_with_old<kForm, kShort>>(kept, is_kept, begin, last);
      });
    }
    is_dense ? simd<resolve<kForm, kLong>>(kept, is_kept, first, end, begins, max_kept)
             : simd<resolve<kForm, kShort>>(kept, is_kept, first, end, begins, max_kept);
  }
}

// Suppression among the boxes of an image, or of one class, after some divisions.
template <Form kForm>
void suppress_parts(uint8_t* is_kept, const SizedBox* boxes, Exact exact, const int* order, int num,
                    NmsRule rule, int max_kept, int threads, int divisions) {
  if (!has_bounds(kForm) && num >= kMinDivided && divisions < kMaxDivisions && max_kept >= num) {
    const auto parts = pooled_scratch<int>(num);
    if (const int first = divide_at_gap(parts.get(), boxes, order, num, rule)) {
      auto one = [&](const int* part, int count) {
        suppress_parts<kForm>(is_kept, boxes, exact, part, count, rule, count, threads,
                              divisions + 1);
      };
      one(parts.get(), first);
      return one(parts.get() + first, num - first);
    }
  }
  suppress_part<kForm>(is_kept, boxes, exact, order, num, rule, max_kept, threads);
}

template <Form kForm>
void suppress_class(uint8_t* is_kept, const SizedBox* boxes, Exact exact, const int* order, int num,
                    NmsRule rule, int max_kept, int threads) {
  suppress_parts<kForm>(is_kept, boxes, exact, order, num, rule, max_kept, threads, 0);
}

// Estimates the mean fraction of the boxes that have the class of a box.
double fraction_of_class(const int* classes, int num) {
  constexpr int kSample = 256, kBins = 64;
  int counts[kBins] = {}, sampled = 0;
  for (int i = 0; i < num; i += (int)ceil_div(num, kSample), ++sampled) {
    ++counts[(uint32)classes[i] % kBins];
  }
  double sum = 0;
  for (int count : counts) sum += (double)count * count;
  return sum / sampled / sampled;
}

// Suppression among the boxes of each class, by one search for the pairs of all classes. Returns
// false if that does not pay.
template <Form kForm>
bool suppress_pairs_of_classes(uint8_t* is_kept, const SizedBox* boxes, const int* classes,
                               const int* order, int num, NmsRule rule, int threads) {
  if (num < kMinSearched || !RuleBounds::suit(rule)) return false;
  // A search class by class compares a box with about a half of the boxes of its class.
  const double by_class = fraction_of_class(classes, num) * num / 2 / kShort;
  if (by_class < 2) return false;
  BoxesInCells in_cells(boxes, order, num, rule, classes);
  in_cells.choose_grid();
  // A step takes longer in a grid of shapes, whose windows need logarithms.
  const double steps = (in_cells.by_shape ? 2 : 1) * in_cells.steps_per_box;
  if (steps > 2 + 0.3 * by_class) return false;
  if (guess_pairs_per_box<kForm>(boxes, classes, order, num, rule) > kMaxGuessedPairs) {
    return false;
  }
  return in_cells.assign_slots(threads) && suppress_by_pairs<kForm>(in_cells, is_kept, threads);
}

// Boxes of one class.
struct Range {
  int begin, end;
};

// Writes the indices of the boxes class by class, in their order, and returns the classes that have
// boxes.
std::vector<Range> order_by_class(int* order, const int* classes, int num) {
  std::vector<Range> groups;
  if (num == 0) return groups;
  const auto [least, most] = std::minmax_element(classes, classes + num);
  const int64 first = *least, range = *most - first + 1;
  if (range <= kMaxRange) {
    std::vector<int> begins(range + 1);
    for (int i = 0; i < num; ++i) ++begins[classes[i] - first + 1];
    for (int64 c = 0; c < range; ++c) {
      const int begin = begins[c], end = begins[c + 1] += begin;
      if (begin < end) groups.push_back({begin, end});
    }
    for (int i = 0; i < num; ++i) order[begins[classes[i] - first]++] = i;
    return groups;
  }
  const auto keys = scratch<uint64>(num), other = scratch<uint64>(num);
  for (int i = 0; i < num; ++i) keys[i] = (uint64)(uint32)classes[i] << 32 | (uint32)i;
  const uint64* sorted = sort_keys(keys.get(), other.get(), num, num);
  for (int i = 0; i < num; ++i) {
    order[i] = (int)index_of(sorted[i]);
    if (i == 0 || sorted[i] >> 32 != sorted[i - 1] >> 32) groups.push_back({i, i});
    ++groups.back().end;
  }
  return groups;
}

// Suppression among the boxes of each class, or among all boxes.
void suppress_classes(uint8_t* kept, const SizedBox* boxes, Exact exact, const int* classes,
                      int num, NmsRule rule, int threads, int max_kept) {
  const auto order = scratch<int>(num);
  std::iota(order.get(), order.get() + num, 0);
  const auto suppress_one = exact.rotated   ? suppress_class<Form::rotated>
                            : exact.doubles ? suppress_class<Form::doubles>
                            : rule.pixels   ? suppress_class<Form::pixels>
                            : rule.center   ? suppress_class<Form::center>
                                            : suppress_class<Form::corner>;
  if (!rule.by_class) {
    return suppress_one(kept, boxes, exact, order.get(), num, rule, max_kept, threads);
  }
  if (!exact && max_kept >= num) {
    const auto suppress_pairs = rule.pixels   ? suppress_pairs_of_classes<Form::pixels>
                                : rule.center ? suppress_pairs_of_classes<Form::center>
                                              : suppress_pairs_of_classes<Form::corner>;
    if (suppress_pairs(kept, boxes, classes, order.get(), num, rule, threads)) return;
  }
  const std::vector<Range> groups = order_by_class(order.get(), classes, num);
  int largest = 0;
  for (const Range& group : groups) largest = std::max(largest, group.end - group.begin);
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
