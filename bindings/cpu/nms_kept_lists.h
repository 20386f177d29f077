// The kept boxes near each place.
#pragma once
#include <algorithm>
#include <optional>
#include <utility>

#include "nms_broad_phase.h"
#include "nms_grid.h"
#include "nms_lanes.h"

namespace cvops::cpu {

// The grid of some kept boxes, without cells.
inline Grid grid_of(const SizedBox* kept, int num, double pixel) {
  Grid grid{pixel};
  AxisSample of_x(pixel), of_y(pixel);
  for (int i = 0, stride = (int)ceil_div(num, AxisSample::kMaxSize); i < num; i += stride) {
    of_x.add(kept[i].box.x1, kept[i].box.x2), of_y.add(kept[i].box.y1, kept[i].box.y2);
  }
  grid.measure(0, of_x), grid.measure(1, of_y);
  return grid;
}

// For each cell of a grid: all kept boxes that may suppress a box there.
class KeptLists {
 public:
  KeptLists(const SizedBox* kept, int num, NmsRule rule)
      : rule_(rule), kept_(kept), num_(num), grid_(grid_of(kept, num, rule.pixels)) {}

  // Returns false if the lists would be long.
  bool build() {
    const PerAxis window = 4 * broad_phase_.side_fraction * grid_.median_side;
    const PerAxis cells_along = kCellsOfWindow * grid_.extent / window;
    auto number = [](double cells) { return (int)std::clamp(cells, 1.0, 64.0); };
    grid_.divide(number(cells_along[0]), number(cells_along[1]));
    grid_.max_side = PerAxis{} + kInfinity;  // the other boxes may have any size
    const int cells = grid_.columns * grid_.rows;
    begins_ = pooled_scratch<int>(cells + 1);
    std::fill_n(begins_.get(), cells + 1, 0);
    int64 entries = 0;
    for (int i = 0; i < num_ && entries <= kMaxEntries * (num_ + kFree); ++i) {
      for_each_cell(i, [&](int cell) { ++begins_[cell + 1], ++entries; });
    }
    if (entries > kMaxEntries * (num_ + kFree)) return false;
    // Each number of entries becomes the first one of its cell, and then the first one of the next.
    for (int c = 1, before = 0; c <= cells; ++c) before += std::exchange(begins_[c], before);
    boxes_.emplace(entries);
    boxes_->clear_step(entries);
    for (int i = 0; i < num_; ++i) {
      for_each_cell(i, [&](int cell) { boxes_->put(begins_[cell + 1]++, kept_[i]); });
    }
    return true;
  }

  // Adds the steps to `work`. The last step compares boxes of the next cells too.
  template <Form kForm>
  CVOPS_INLINE bool suppress(const SizedBox& b, const RuleBounds& bounds, int64& work) const {
    const int cell = grid_.cell_of(b.box);
    for (int at = begins_[cell], end = begins_[cell + 1]; at < end; at += kStep, ++work) {
      int found[kStep];
      CVOPS_VECTORIZED
      for (int k = 0; k < kStep; ++k) found[k] = may_suppress<kForm>(b, boxes_->at(at + k), bounds);
      if (!any(found)) continue;
      CVOPS_VECTORIZED
      for (int k = 0; k < kStep; ++k) {
        found[k] = suppresses_by_rule<kForm>(boxes_->at(at + k), b, rule_);
      }
      if (any(found)) return true;
    }
    return false;
  }

 private:
  // Maximum number of list entries per kept box.
  static constexpr int64 kMaxEntries = 64, kFree = 256;
  static constexpr double kCellsOfWindow = 2.5;  // of a median box, along each axis

  template <typename Body>
  void for_each_cell(int i, const Body& body) const {
    const Window window = grid_.in_reach(kept_[i].box, broad_phase_.side_fraction);
    for (int row = window.row; row < window.end_row; ++row) {
      for (int column = window.column; column < window.end_column; ++column) {
        body(row * grid_.columns + column);
      }
    }
  }

  const NmsRule rule_;
  const BroadPhase broad_phase_{rule_, false};
  const SizedBox* const kept_;
  const int num_;
  Grid grid_;
  PooledScratch<int> begins_;  // of the list of each cell
  std::optional<BoxArrays> boxes_;
};

}  // namespace cvops::cpu
