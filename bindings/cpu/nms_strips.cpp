#include "nms_strips.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <utility>
#include <vector>

#include "nms.h"
#include "nms_strip_places.h"
#include "parallel.h"

namespace cvops::cpu {
namespace {

// Minimum number of rows.
constexpr int kMinRows = 128;
// Maximum ratio of the distance of near boxes to a side.
constexpr double kMaxSideFraction = 1.5;
// Maximum numbers of pairs per slot, and of comparisons of steps and of pairs per slot. The first
// slots may have more.
constexpr double kMaxPairs = 1;
constexpr int64 kMaxWork = 4;
constexpr int kFree = 256;
// Slots that a thread takes at once, and distances of slots that are compared at once: each has a
// bit.
constexpr int kPart = 2048, kBits = 32;

// Two rows: one of them suppresses the other one if it is kept.
struct Pair {
  int first, second;
};

// The boxes in slots.
struct Slots {
  const int num;
  const BoxArrays boxes{num};
  const PooledScratch<int> integers = pooled_scratch<int>(2 * boxes.capacity);
  // The row of each slot, and the last cell in reach.
  int *const row = integers.get(), *const last = row + boxes.capacity;

  explicit Slots(int num) : num(num) {}
};

// Computes the slots. `ends` becomes the end of the slots of each cell. Returns the number of slots
// of boxes that may be a part of a pair.
template <Form kForm>
int assign_slots(const Slots& slots, const Places& places, const Strips& strips, const Rows rows) {
  int* const ends = places.ends;
  const int cells = strips.cells(), columns = strips.grid.columns;
  for (int c = 0, before = 0; c <= cells; ++c) before += std::exchange(ends[c], before);
  const int num = ends[cells];
  int *const row_of = slots.row, *const last_of = slots.last;
  auto put = [&](int row, int cell, int last) __attribute__((always_inline)) {
    const int slot = ends[cell]++;
    row_of[slot] = row, last_of[slot] = last;
  };
  for (int i = 0; i < strips.num; ++i) put(i, places.cell[i], places.last[i]);
  for (int n = 0; n < places.num_crossing; ++n) {
    const auto [row, later] = places.crossing[n];
    int cell = places.cell[row], last = places.last[row];
    for (int s = 0; s < later; ++s) put(row, cell += columns, last += columns);
  }
  float *const x1 = slots.boxes.x1, *const y1 = slots.boxes.y1, *const x2 = slots.boxes.x2,
               *const y2 = slots.boxes.y2, *const area = slots.boxes.area;
  std::fill_n(row_of + num, kStep, 0);
  for (int i = 0; i < num; i += 4) {
    Quad quads[4];
    for (int n = 0; n < 4; ++n) {
      load<4>(quads[n], rows.at(row_of[i + n]) + rows.options.columns.coord);
    }
    store_columns(x1 + i, y1 + i, x2 + i, y2 + i, quads);
  }
  CVOPS_INDEPENDENT
  for (int i = 0; i < num; ++i) {
    const SizedBox b = sized_in_lane<kForm>(x1[i], y1[i], x2[i], y2[i]);
    x1[i] = b.box.x1, y1[i] = b.box.y1, x2[i] = b.box.x2, y2[i] = b.box.y2, area[i] = b.area;
  }
  slots.boxes.clear_step(num);
  std::fill_n(last_of + num, kStep, 0);
  return num;
}

// The lower bound does not exclude the pairs of a slot and of some later ones: a bit for each.
struct NearSlots {
  int slot, at;
  uint32 bits;
};

// Slots, and the pairs of these and of later ones.
struct Part {
  int begin, end;
  int num_pairs = 0;
  PooledScratch<Pair> pairs;

  Part(int begin, int end)
      : begin(begin), end(end), pairs(pooled_scratch<Pair>(most(end + kStep) + kBits)) {}

  // Maximum number of pairs of the slots up to `to`.
  int most(int to) const { return (int)(kMaxPairs * (to - begin)) + kFree; }
};

// Adds those that are pairs, of the slots up to `to`. Returns false if there are many.
template <Form kForm>
CVOPS_INLINE bool add_pairs(Part& part, int to, const Slots& slots, const NearSlots* near, int num,
                            const RuleBounds& bounds, const NmsRule& rule) {
  const int most = part.most(to);
  for (int n = 0; n < num; ++n) {
    const auto [own, at, bits] = near[n];
    const SizedBox a = slots.boxes.at(own);
    // Nearly always, there is one bit.
    for (uint32 left = bits; left; left &= left - 1) {
      const int other = at + __builtin_ctz(left);
      const SizedBox b = slots.boxes.at(other);
      const Verdict verdict = compare<kForm>(a, b, bounds);
      bool is_pair = verdict.surely;
      if (verdict.unsure) is_pair = suppresses_by_rule<kForm>(a, b, rule);
      part.pairs[part.num_pairs] = {slots.row[own], slots.row[other]};
      part.num_pairs += is_pair;
    }
    if (part.num_pairs > most) return false;
  }
  return true;
}

// Finds the pairs of a part. A pair may be found several times, and a box with itself: that changes
// no result. Returns false if there are many, or if the search is slow.
template <Form kForm>
bool find_pairs(Part& part, const Slots& slots, const int* ends, const RuleBounds bounds,
                const NmsRule rule) {
  const float *const x1 = slots.boxes.x1, *const y1 = slots.boxes.y1, *const x2 = slots.boxes.x2,
                     *const y2 = slots.boxes.y2, *const area = slots.boxes.area;
  // A list of many: a branch for each one would be hard to predict.
  constexpr int kMaxNear = 256;
  NearSlots near[kMaxNear + kStep];
  int num_near = 0;
  int64 work = 0;
  for (int slot = part.begin; slot < part.end; slot += kStep) {
    // Each lane has its own last slot in reach: the search ends at the farthest of these.
    int farthest[kStep];
    for (int k = 0; k < kStep; ++k) farthest[k] = ends[slots.last[slot + k]] - k;
    int last = slot;
    for (int end : farthest) last = std::max(last, end - 1);
    work += last - slot;
    for (int at = slot + 1; at <= last; at += kBits) {
      const int num = std::min(kBits, last + 1 - at);
      uint32 hits[kStep] = {};
      for (int d = 0; d < num; ++d) {
        CVOPS_VECTORIZED
        for (int k = 0; k < kStep; ++k) {
          const int own = slot + k, other = at + d + k;
          const SizedBox a = {{x1[own], y1[own], x2[own], y2[own]}, area[own]};
          const SizedBox b = {{x1[other], y1[other], x2[other], y2[other]}, area[other]};
          hits[k] |= (uint32)may_suppress<kForm>(a, b, bounds) << d;
        }
      }
      if (!any((const int(&)[kStep])hits)) continue;
      for (int k = 0; k < kStep; ++k) {
        near[num_near] = {slot + k, at + k, hits[k]};
        num_near += hits[k] != 0;
      }
      if (num_near < kMaxNear) continue;
      const int to = slot + kStep;
      if (!add_pairs<kForm>(part, to, slots, near, num_near, bounds, rule)) return false;
      num_near = 0;
    }
    if (work > kMaxWork * (slot - part.begin + kFree)) return false;
  }
  return add_pairs<kForm>(part, part.end, slots, near, num_near, bounds, rule);
}

// Decides the rows by the pairs. `kept` has the numbers of the valid rows, the best first, and gets
// those of the kept ones. No branch depends on a pair.
int decide(int* kept, int num_valid, const std::vector<Part>& parts, int num) {
  int64 num_pairs = 0;
  for (const Part& part : parts) num_pairs += part.num_pairs;
  const int64 num_bytes = 5 * (int64)num;  // an integer and a byte per row
  const auto memory = pooled_scratch<uint64>(3 * num_pairs + num_bytes / 8 + 1);
  uint64 *const keys = memory.get(), *const other_keys = keys + num_pairs;
  Pair* const pairs = (Pair*)(other_keys + num_pairs);
  int* const rank_of = (int*)(pairs + num_pairs);
  uint8_t* const is_removed = (uint8_t*)(rank_of + num);
  for (int i = 0; i < num_valid; ++i) rank_of[kept[i]] = i;
  // The pairs in the order of their better rows. Each row is decided before its own pairs.
  int64 count = 0;
  for (const Part& part : parts) {
    for (int p = 0; p < part.num_pairs; ++p, ++count) {
      const int a = rank_of[part.pairs[p].first], b = rank_of[part.pairs[p].second];
      pairs[count] = {std::min(a, b), std::max(a, b)};
      keys[count] = (uint64)pairs[count].first << 32 | (uint64)count;
    }
  }
  const uint64* const sorted = sort_keys(keys, other_keys, num_pairs, num_pairs);
  std::fill_n(is_removed, num_valid, 0);
  for (int64 p = 0; p < num_pairs; ++p) {
    const auto [better, other] = pairs[(uint32)sorted[p]];
    is_removed[other] |= !is_removed[better] & (better != other);
  }
  int num_kept = 0;
  for (int i = 0; i < num_valid; ++i) {
    kept[num_kept] = kept[i];
    num_kept += !is_removed[i];
  }
  return num_kept;
}

template <Form kForm>
int keep(int* kept, const Rows& rows, int num, int threads) {
  Strips strips{num};
  if (rows.broad_phase.side_fraction > kMaxSideFraction || !strips.choose_grid(rows)) return -1;
  Places places(num, strips.cells());
  const int num_slots = simd<compute_places<kForm>>(places, strips, rows);
  if (num_slots < 0) return -1;
  std::vector<Part> parts;
  {
    const Slots slots(num_slots);
    const int used = simd<assign_slots<kForm>>(slots, places, strips, rows);
    const int part = threads < 2 ? std::max(used, 1) : kPart;
    for (int at = 0; at < used; at += part) parts.emplace_back(at, std::min(used, at + part));
    std::atomic<bool> is_slow{false};
    parallel_for((int64)parts.size(), 3.0 * part, [&](int64 p) {
      if (is_slow) return;
      if (!simd<find_pairs<kForm>>(parts[p], slots, places.ends, rows.bounds, rows.options.rule)) {
        is_slow = true;
      }
    });
    if (is_slow) return -1;
  }
  sort_scores(kept, places.scores, places.num_valid);
  if (places.num_valid < num) {
    for (int i = 0; i < places.num_valid; ++i) kept[i] = places.valid[kept[i]];
  }
  return decide(kept, places.num_valid, parts, num);
}

}  // namespace

int keep_of_spread(int* kept, const float* rows, int64 num, const NmsOptions& options,
                   int threads) {
  const NmsRule& rule = options.rule;
  const bool suits = num >= kMinRows && options.topk >= num && !rule.by_class;
  if (!suits || !RuleBounds::suit(rule)) return -1;
  const Rows set = {rows, options};
  return rule.center ? keep<Form::center>(kept, set, (int)num, threads)
                     : keep<Form::corner>(kept, set, (int)num, threads);
}

}  // namespace cvops::cpu
