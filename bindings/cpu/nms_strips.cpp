#include "nms_strips.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <utility>
#include <vector>

#include "nms/rows.cuh"
#include "nms_broad_phase.h"
#include "nms_grid.h"
#include "nms_lanes.h"
#include "parallel.h"
#include "transpose.h"

namespace cvops::cpu {
namespace {

// Minimum number of rows.
constexpr int kMinRows = 128;
// Maximum ratio of the distance of near boxes to a side.
constexpr double kMaxSideFraction = 1.5;
// Maximum mean number of later slots in reach, estimated from a sample; and maximum numbers of
// pairs of one cell and of slots per box, and of comparisons of steps and of pairs per slot. The
// first slots may have more.
constexpr double kMaxAhead = 12, kMaxSlots = 1.5, kMaxPairs = 1;
constexpr int64 kMaxCrowd = 8, kMaxWork = 4;
constexpr int kFree = 256;
// Slots that a thread takes at once, boxes whose cells are computed at once, and distances of slots
// that are compared at once: each has a bit.
constexpr int kPart = 2048, kBatch = 64, kBits = 32;

// Two rows: one of them suppresses the other one if it is kept.
struct Pair {
  int first, second;
};

// Maximum number of slots beyond one per box.
int max_crossing(int num) { return (int)((kMaxSlots - 1) * num); }

// Rows of a set. Loops take a copy, which no store can change.
struct Rows {
  const float* first;
  const int num;
  const NmsOptions options;

  CVOPS_INLINE const float* at(int i) const { return first + (int64)i * options.columns.width; }
  CVOPS_INLINE bool is_valid(int i) const {
    return nms_is_valid(at(i), options.columns, options.valid_thresh, options.background_id);
  }
  CVOPS_INLINE SizedBox box(int i) const {
    return nms_box(at(i), options.columns, options.rule.center);
  }
  CVOPS_INLINE uint64 key(int i) const { return sort_key(at(i)[options.columns.score], (uint32)i); }
};

// The cells along an axis. A larger position has the same cell or a later one.
struct CellsAlong {
  float origin, per_unit, last;

  CellsAlong(const Grid& grid, int axis)
      : origin((float)grid.origin[axis]),
        per_unit((float)grid.cells_per_unit[axis]),
        last((float)grid.last_cell[axis]) {}

  CVOPS_INLINE int at(float position) const {
    const float cell = (position - origin) * per_unit, positive = cell > 0 ? cell : 0;
    return (int)(positive < last ? positive : last);
  }
};

// Whole batches of boxes: the cell of each one, and the last one of its strip in reach. Of two near
// boxes, the one of the earlier cell reaches the other one.
struct Places {
  const int capacity;
  const PooledScratch<int> integers = pooled_scratch<int>(2 * (int64)capacity);
  int *const cell = integers.get(), *const last = cell + capacity;

  explicit Places(int num) : capacity(num + kBatch) {}
};

// A box that reaches boxes of later strips, and the number of these.
struct Crossing {
  int row, strips;
};

// Boxes in slots: by strips along the x axis, and in a strip by columns. A box is also in the later
// strips in reach.
struct Strips {
  Grid grid{0.0};
  const BroadPhase broad_phase;
  const RuleBounds bounds;

  explicit Strips(NmsRule rule) : broad_phase(rule, false), bounds(rule) {}

  int cells() const { return grid.rows * grid.columns; }

  // Returns false if boxes have many near ones.
  bool choose_grid(const Rows& rows) {
    AxisSample of_x(0), of_y(0);
    const int stride = (int)ceil_div(rows.num, AxisSample::kMaxSize);
    for (int i = 0; i < rows.num; i += stride) {
      const SizedBox b = rows.box(i);
      const bool is_in = broad_phase.kind_of_cell(b, rows.options.rule) == kGridCell;
      if (is_in && rows.is_valid(i)) of_x.add(b.box.x1, b.box.x2), of_y.add(b.box.y1, b.box.y2);
    }
    if (of_x.num < AxisSample::kMaxSize / 4) return false;
    const PerAxis sides = {of_x.mean_side(), of_y.mean_side()};
    grid.measure(0, of_x), grid.measure(1, of_y);
    const PerAxis reach = 2 * broad_phase.side_fraction * sides / grid.extent;
    // With more strips, a strip has fewer near boxes, but more boxes are in two strips.
    const double most = std::clamp(0.4 / reach[1], 1.0, rows.num / 16.0);
    const double strips = std::clamp(std::sqrt(0.1 * rows.num * reach[0] / reach[1]), 1.0, most);
    if (!(rows.num * reach[0] < kMaxAhead * strips)) return false;
    grid.divide((int)(rows.num / strips), (int)strips);
    return true;
  }
};

// Computes the places of all boxes, and the number of slots of each cell. The last cell is for the
// boxes that are no part of a pair. Sets `num_crossing`, and returns the number of all slots; or -1
// if there are too many, or if the bounds do not suit a box.
template <Form kForm>
int compute_places(const Places& places, int* counts, Crossing* crossing, int& num_crossing,
                   const Strips strips, const Rows rows) {
  const CellsAlong along_x(strips.grid, 0), along_y(strips.grid, 1);
  const NmsColumns of = rows.options.columns;
  const int columns = strips.grid.columns, no_cell = strips.cells();
  // The terms beyond twice the fraction of a side cover the rounding.
  const float fraction = 2.0002f * (float)strips.broad_phase.side_fraction, slack = 1e-6f;
  const float valid_thresh = rows.options.valid_thresh, background = rows.options.background_id;
  const int most = rows.num + max_crossing(rows.num);
  int slots = rows.num, found = 0, unsuited[kBatch] = {};
  int64 crowd = 0;
  std::fill_n(counts, no_cell + 1, 0);
  for (int first = 0; first < rows.num; first += kBatch) {
    const int num = std::min(kBatch, rows.num - first);
    float low_x[kBatch], low_y[kBatch], high_x[kBatch], high_y[kBatch], score[kBatch];
    int is_valid[kBatch];
    const float *row = rows.at(first), *const last_row = rows.at(rows.num - 1);
    for (int k = 0; k < kBatch; k += 4) {
      Quad quads[4];
      for (int n = 0; n < 4; ++n) {
        load<4>(quads[n], row + of.coord);
        score[k + n] = row[of.score];
        row += row < last_row ? of.width : 0;
      }
      store_columns(low_x + k, low_y + k, high_x + k, high_y + k, quads);
    }
    for (int k = 0; k < kBatch; ++k) {
      const int is_above = score[k] > valid_thresh, is_row = k < num;
      is_valid[k] = is_above & is_row;
    }
    for (int k = 0; k < num && of.id >= 0; ++k)
      is_valid[k] &= rows.at(first + k)[of.id] != background;
    int *const cell = places.cell + first, *const last = places.last + first, more[kBatch];
    CVOPS_INDEPENDENT
    for (int k = 0; k < kBatch; ++k) {
      const auto [b, area] = sized_in_lane<kForm>(low_x[k], low_y[k], high_x[k], high_y[k]);
      const float width = b.x2 - b.x1, height = b.y2 - b.y1;
      const float x = b.x1 + b.x2, y = b.y1 + b.y2;
      const float abs_x = x < 0 ? -x : x, abs_y = y < 0 ? -y : y;
      // See kind_of_cell(). Positions that are too far have sums that are not finite.
      const int has_width = b.x1 < b.x2, has_height = b.y1 < b.y2, is_finite = area != kInfinity;
      const int is_large = area >= 1e-30f, is_exact = area >= 0.999f * width * height;
      const int is_near_x = abs_x < 1e37f, is_near_y = abs_y < 1e37f;
      const int is_in = is_valid[k] & has_width & has_height & is_finite;
      unsuited[k] |= is_in & ((is_large & is_exact & is_near_x & is_near_y) ^ 1);
      if (kForm == Form::center) {
        const int is_unknown_x = x != x, is_unknown_y = y != y;
        unsuited[k] |= is_valid[k] & (is_unknown_x | is_unknown_y);
      }
      const int strip = along_y.at(y), column = along_x.at(x), mask = -is_in;
      const int last_strip = along_y.at(y + (fraction * height + slack * abs_y));
      const int last_column = along_x.at(x + (fraction * width + slack * abs_x));
      cell[k] = ((strip * columns + column) & mask) | (no_cell & ~mask);
      last[k] = ((strip * columns + last_column) & mask) | (no_cell & ~mask);
      more[k] = (last_strip - strip) & mask;
    }
    for (int k = 0; k < num; ++k) {
      crowd += counts[cell[k]]++;
      crossing[found] = {first + k, more[k]};
      found += more[k] > 0;
      slots += more[k];
    }
    if (slots > most) return -1;
  }
  crowd -= (int64)counts[no_cell] * (counts[no_cell] - 1) / 2;
  if (any(unsuited) || crowd > kMaxCrowd * rows.num) return -1;
  for (int n = 0; n < found; ++n) {
    int* count = counts + places.cell[crossing[n].row];
    for (int s = 0; s < crossing[n].strips; ++s) ++*(count += columns);
  }
  num_crossing = found;
  return slots;
}

// The boxes in slots.
struct Slots {
  const int num;
  const BoxArrays boxes{num};
  const PooledScratch<int> integers = pooled_scratch<int>(2 * boxes.capacity);
  // The row of each slot, and the last cell in reach.
  int *const row = integers.get(), *const last = row + boxes.capacity;

  explicit Slots(int num) : num(num) {}
};

// Computes the slots. `ends` has the number of slots of each cell, and then the end of these slots.
// Returns the number of slots of boxes that may be a part of a pair.
template <Form kForm>
int assign_slots(const Slots& slots, int* ends, const Places& places, const Crossing* crossing,
                 int num_crossing, int columns, int cells, const Rows rows) {
  for (int c = 0, before = 0; c <= cells; ++c) before += std::exchange(ends[c], before);
  const int num = ends[cells];
  int *const row_of = slots.row, *const last_of = slots.last;
  auto put = [&](int row, int cell, int last) __attribute__((always_inline)) {
    const int slot = ends[cell]++;
    row_of[slot] = row, last_of[slot] = last;
  };
  for (int i = 0; i < rows.num; ++i) put(i, places.cell[i], places.last[i]);
  for (int n = 0; n < num_crossing; ++n) {
    const auto [row, strips] = crossing[n];
    int cell = places.cell[row], last = places.last[row];
    for (int s = 0; s < strips; ++s) put(row, cell += columns, last += columns);
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

// Decides the rows by the pairs. Writes the numbers of the kept ones, the best first.
int decide(int* kept, const std::vector<Part>& parts, const Rows& rows, int64 num_pairs) {
  struct Link {
    int row, next;
  };
  constexpr int kRemoved = -1;
  // The links of a row lead to the rows that it suppresses, 0 ends them.
  const auto first_link = pooled_scratch<int>(rows.num);
  const auto links = pooled_scratch<Link>(num_pairs + 1);
  std::fill_n(first_link.get(), rows.num, 0);
  int num_links = 0;
  for (const Part& part : parts) {
    for (int p = 0; p < part.num_pairs; ++p) {
      auto [better, other] = part.pairs[p];
      if (rows.key(other) < rows.key(better)) std::swap(better, other);
      links[++num_links] = {other, first_link[better]};
      first_link[better] = num_links;
    }
  }
  const NmsCandidates found(rows.first, rows.num, rows.options);
  int count = 0;
  for (int i = 0; i < found.count; ++i) {
    const int row = (int)index_of(found.sorted[i]), first = first_link[row];
    kept[count] = row;
    count += first != kRemoved;
    for (int link = first; link > 0; link = links[link].next) {
      first_link[links[link].row] = kRemoved;
    }
  }
  return count;
}

template <Form kForm>
int keep(int* kept, const Rows& rows, int threads) {
  const NmsRule rule = rows.options.rule;
  Strips strips(rule);
  if (strips.broad_phase.side_fraction > kMaxSideFraction || !strips.choose_grid(rows)) return -1;
  std::vector<Part> parts;
  int64 num_pairs = 0;
  {
    const Places places(rows.num);
    const auto crossing = pooled_scratch<Crossing>(max_crossing(rows.num) + kBatch + 1);
    const auto ends = pooled_scratch<int>(strips.cells() + 1);
    int num_crossing;
    const int num =
        simd<compute_places<kForm>>(places, ends.get(), crossing.get(), num_crossing, strips, rows);
    if (num < 0) return -1;
    const Slots slots(num);
    const int used =
        simd<assign_slots<kForm>>(slots, ends.get(), places, crossing.get(), num_crossing,
                                  strips.grid.columns, strips.cells(), rows);
    const int part = threads < 2 ? std::max(used, 1) : kPart;
    for (int at = 0; at < used; at += part) parts.emplace_back(at, std::min(used, at + part));
    std::atomic<bool> is_slow{false};
    parallel_for((int64)parts.size(), 3.0 * part, [&](int64 p) {
      if (is_slow) return;
      if (!simd<find_pairs<kForm>>(parts[p], slots, ends.get(), strips.bounds, rule)) {
        is_slow = true;
      }
    });
    if (is_slow) return -1;
    for (const Part& found : parts) num_pairs += found.num_pairs;
  }
  return decide(kept, parts, rows, num_pairs);
}

}  // namespace

int keep_of_spread(int* kept, const float* rows, int64 num, const NmsOptions& options,
                   int threads) {
  const NmsRule& rule = options.rule;
  const bool suits = num >= kMinRows && options.topk >= num && !rule.by_class;
  if (!suits || !RuleBounds::suit(rule)) return -1;
  const Rows set = {rows, (int)num, options};
  return rule.center ? keep<Form::center>(kept, set, threads)
                     : keep<Form::corner>(kept, set, threads);
}

}  // namespace cvops::cpu
