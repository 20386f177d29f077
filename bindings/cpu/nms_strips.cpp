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

// Slots, and the pairs of these and of later ones.
struct Part {
  int begin, end;
  int num_pairs = 0;
  PooledScratch<Pair> pairs;

  Part(int begin, int end)
      : begin(begin), end(end), pairs(pooled_scratch<Pair>(most(end + kStep) + kBits * kStep)) {}

  // Maximum number of pairs of the slots up to `to`.
  int most(int to) const { return (int)(kMaxPairs * (to - begin)) + kFree; }
};

// Takes the pairs of a step of slots: bit k of hits[lane] stands for slot + lane and at + lane + k.
template <Form kForm>
CVOPS_INLINE void take_pairs(Part& part, const Slots& slots, int slot, int at,
                             const uint32 (&hits)[kStep], const RuleBounds& bounds,
                             const NmsRule& rule) {
  for (int lane = 0; lane < kStep; ++lane) {
    const int own = slot + lane;
    for (uint32 left = hits[lane]; left; left &= left - 1) {
      const int other = at + lane + __builtin_ctz(left);
      const SizedBox a = slots.boxes.at(own), b = slots.boxes.at(other);
      const Verdict verdict = compare<kForm>(a, b, bounds);
      bool is_pair = verdict.surely;
      if (verdict.unsure) is_pair = suppresses_by_rule<kForm>(a, b, rule);
      part.pairs[part.num_pairs] = {slots.row[own], slots.row[other]};
      part.num_pairs += is_pair;
    }
  }
}

// Finds the pairs of a part. A pair may be found several times, and a box with itself: that changes
// no result. Returns false if there are many, or
// if the search is slow.
template <Form kForm>
bool find_pairs(Part& part, const Slots& slots, const int* ends, const RuleBounds bounds,
                const NmsRule rule) {
  const float *const x1 = slots.boxes.x1, *const y1 = slots.boxes.y1, *const x2 = slots.boxes.x2,
                     *const y2 = slots.boxes.y2, *const area = slots.boxes.area;
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
      if (any((const int(&)[kStep])hits)) {
        take_pairs<kForm>(part, slots, slot, at, hits, bounds, rule);
        if (part.num_pairs > part.most(slot + kStep)) return false;
      }
    }
    if (work > kMaxWork * (slot - part.begin + kFree)) return false;
  }
  return true;
}

// Decides the rows by the pairs. `kept` has the numbers of the valid rows, the best first, and gets
// those of the kept ones.
int decide(int* kept, int num_valid, const std::vector<Part>& parts, const Rows& rows, int num) {
  struct Link {
    int row, next;
  };
  constexpr int kRemoved = -1;
  int64 num_pairs = 0;
  for (const Part& part : parts) num_pairs += part.num_pairs;
  // The links of a row lead to the rows that it suppresses, 0 ends them.
  const auto memory = pooled_scratch<int>(num + 2 * (num_pairs + 1));
  int* const first_link = memory.get();
  Link* const links = (Link*)(first_link + num);
  std::fill_n(first_link, num, 0);
  int num_links = 0;
  for (const Part& part : parts) {
    for (int p = 0; p < part.num_pairs; ++p) {
      auto [better, other] = part.pairs[p];
      if (rows.key(other) < rows.key(better)) std::swap(better, other);
      links[++num_links] = {other, first_link[better]};
      first_link[better] = num_links;
    }
  }
  int count = 0;
  for (int i = 0; i < num_valid; ++i) {
    const int row = kept[i], first = first_link[row];
    kept[count] = row;
    count += first != kRemoved;
    for (int link = first; link > 0; link = links[link].next) {
      first_link[links[link].row] = kRemoved;
    }
  }
  return count;
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
  return decide(kept, places.num_valid, parts, rows, num);
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
