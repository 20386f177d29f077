// Places of boxes in strips: the cells that a search for pairs of near boxes needs.
#pragma once
#include <algorithm>
#include <cmath>

#include "nms_grid.h"
#include "nms_lanes.h"
#include "row_set.h"
#include "transpose.h"

namespace cvops::cpu {

// Maximum mean number of later slots in reach, estimated from a sample; and maximum numbers of
// slots per box, and of pairs of one cell per box.
constexpr double kMaxAhead = 12, kMaxSlots = 1.5;
constexpr int64 kMaxCrowd = 8;
// Boxes whose cells are computed at once.
constexpr int kBatch = 64;

// Maximum number of slots beyond one per box.
inline int max_crossing(int num) { return (int)((kMaxSlots - 1) * num); }

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

// A box that reaches boxes of later strips, and the number of these.
struct Crossing {
  int row, strips;
};

// Whole batches of boxes: the cell of each one, and the last one of its strip in reach. Of two near
// boxes, the one of the earlier cell reaches the other one. `ends` has the number of slots of each
// cell; the last cell is for the boxes that are no part of a pair.
struct Places {
  const int capacity, max_crossing;
  const PooledScratch<int> integers;
  int *const cell = integers.get(), *const last = cell + capacity;
  // The rows that take part, and their scores.
  int* const valid = last + capacity;
  float* const scores = (float*)(valid + capacity);
  Crossing* const crossing = (Crossing*)(valid + 2 * (int64)capacity);
  int* const ends = (int*)(crossing + max_crossing);
  int num_valid = 0, num_crossing = 0;

  Places(int num, int cells)
      : capacity(num + kBatch),
        max_crossing(cvops::cpu::max_crossing(num) + kBatch + 1),
        integers(pooled_scratch<int>(4 * (int64)capacity + 2 * (int64)max_crossing + cells + 1)) {}
};

// Boxes in slots: by strips along the x axis, and in a strip by columns. A box is also in the later
// strips in reach.
struct Strips {
  const int num;
  Grid grid{0.0};

  int cells() const { return grid.rows * grid.columns; }

  // Returns false if boxes have many near ones.
  bool choose_grid(const Rows& rows) {
    AxisSample of_x(0), of_y(0);
    const int stride = (int)ceil_div(num, AxisSample::kMaxSize);
    for (int i = 0; i < num; i += stride) {
      const SizedBox b = rows.box(i);
      if (rows.kind_of_cell(b) != kGridCell || !rows.is_valid(i)) continue;
      of_x.add(b.box.x1, b.box.x2), of_y.add(b.box.y1, b.box.y2);
    }
    if (of_x.num < AxisSample::kMaxSize / 4) return false;
    const PerAxis sides = {of_x.mean_side(), of_y.mean_side()};
    grid.measure_extent(0, of_x), grid.measure_extent(1, of_y);
    const PerAxis reach = 2 * rows.broad_phase.side_fraction * sides / grid.extent;
    // With more strips, a strip has fewer near boxes, but more boxes are in two strips.
    const double most = std::clamp(0.4 / reach[1], 1.0, num / 16.0);
    const double strips = std::clamp(std::sqrt(0.1 * num * reach[0] / reach[1]), 1.0, most);
    if (!(num * reach[0] < kMaxAhead * strips)) return false;
    grid.divide((int)(num / strips), (int)strips);
    return true;
  }
};

// Computes the places of all boxes. Returns the number of slots; or -1 if there are too many, or if
// the bounds do not suit a box.
template <Form kForm>
int compute_places(Places& places, const Strips strips, const Rows rows) {
  const CellsAlong along_x(strips.grid, 0), along_y(strips.grid, 1);
  const NmsColumns of = rows.options.columns;
  const int columns = strips.grid.columns, no_cell = strips.cells();
  // The terms beyond twice the fraction of a side cover the rounding.
  const float fraction = 2.0002f * (float)rows.broad_phase.side_fraction, slack = 1e-6f;
  const float valid_thresh = rows.options.valid_thresh, background = rows.options.background_id;
  const int most = strips.num + max_crossing(strips.num);
  int slots = strips.num, found = 0, valid = 0, unsuited[kBatch] = {};
  int *const counts = places.ends, *const valid_rows = places.valid;
  float* const scores = places.scores;
  Crossing* const crossing = places.crossing;
  int64 crowd = 0;
  std::fill_n(counts, no_cell + 1, 0);
  for (int first = 0; first < strips.num; first += kBatch) {
    const int num = std::min(kBatch, strips.num - first);
    float low_x[kBatch], low_y[kBatch], high_x[kBatch], high_y[kBatch], score[kBatch];
    int is_valid[kBatch];
    const float *row = rows.at(first), *const last_row = rows.at(strips.num - 1);
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
    int valid_here = 0;
    for (int k = 0; k < kBatch; ++k) valid_here += is_valid[k];
    if (valid_here == kBatch) {
      for (int k = 0; k < kBatch; ++k) {
        scores[valid + k] = score[k], valid_rows[valid + k] = first + k;
      }
      valid += kBatch;
    } else {
      for (int k = 0; k < num; ++k) {
        scores[valid] = score[k], valid_rows[valid] = first + k;
        valid += is_valid[k];
      }
    }
    int *const cell = places.cell + first, *const last = places.last + first, more[kBatch];
    CVOPS_INDEPENDENT
    for (int k = 0; k < kBatch; ++k) {
      const auto [b, area] = sized_in_lane<kForm>(low_x[k], low_y[k], high_x[k], high_y[k]);
      const float width = b.x2 - b.x1, height = b.y2 - b.y1;
      const float x = b.x1 + b.x2, y = b.y1 + b.y2;
      const float abs_x = x < 0 ? -x : x, abs_y = y < 0 ? -y : y;
      // See kind_of_cell(). Positions that are too far have sums that are not finite.
      const int has_width = b.x1 < b.x2, has_height = b.y1 < b.y2, is_finite = area != kInfinity;
      const int is_exact = has_area_of_corners(area, width, height);
      const int is_near_x = abs_x < 1e37f, is_near_y = abs_y < 1e37f;
      const int is_in = is_valid[k] & has_width & has_height & is_finite;
      unsuited[k] |= is_in & ((is_exact & is_near_x & is_near_y) ^ 1);
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
  if (any(unsuited) || crowd > kMaxCrowd * strips.num) return -1;
  for (int n = 0; n < found; ++n) {
    int* count = counts + places.cell[crossing[n].row];
    for (int s = 0; s < crossing[n].strips; ++s) ++*(count += columns);
  }
  places.num_crossing = found, places.num_valid = valid;
  return slots;
}

}  // namespace cvops::cpu
