// Kept boxes, and a table that guesses which of them suppresses a box.
#pragma once
#include <algorithm>

#include "nms/rows.cuh"
#include "nms_broad_phase.h"
#include "nms_grid.h"
#include "nms_lanes.h"
#include "transpose.h"

namespace cvops::cpu {

// Rows of a set. Loops take a copy, which no store can change.
struct Rows {
  const float* first;
  const NmsOptions options;
  const BroadPhase broad_phase{options.rule, false};
  const RuleBounds bounds{options.rule};

  CVOPS_INLINE const float* at(int i) const { return first + (int64)i * options.columns.width; }
  CVOPS_INLINE bool is_valid(int i) const {
    return nms_is_valid(at(i), options.columns, options.valid_thresh, options.background_id);
  }
  CVOPS_INLINE SizedBox box(int i) const {
    return nms_box(at(i), options.columns, options.rule.center);
  }
  CVOPS_INLINE float score(int i) const { return at(i)[options.columns.score]; }
  CVOPS_INLINE int kind_of_cell(const SizedBox& b) const {
    return broad_phase.kind_of_cell(b, options.rule);
  }
};

// Boxes in arrays on the stack.
struct BoxChunk {
  static constexpr int kSize = 128;

  alignas(64) float x1[kSize], y1[kSize], x2[kSize], y2[kSize], area[kSize];

  CVOPS_INLINE SizedBox at(int k) const { return {{x1[k], y1[k], x2[k], y2[k]}, area[k]}; }

  // Loads the four numbers at address(k) of `num` boxes, and of some more.
  template <typename Address>
  CVOPS_INLINE void load_numbers(int num, const Address& address) {
    for (int k = 0; k < num; k += 4) {
      Quad numbers[4];
      for (int n = 0; n < 4; ++n) numbers[n] = load(address(std::min(k + n, num - 1)));
      transpose(numbers);
      store(x1 + k, numbers[0]), store(y1 + k, numbers[1]);
      store(x2 + k, numbers[2]), store(y2 + k, numbers[3]);
    }
  }
};

// The first kept boxes of a set, the best first.
class KeptBoxes {
 public:
  // Kept boxes, at most, that a box is compared with one after the other.
  static constexpr int kMost = 512;

  // The places of the boxes are those of a grid.
  KeptBoxes(const Grid& grid, int64 num, int capacity)
      : capacity_(capacity), grid_(grid), side_(num < kMinFine ? kMaxSide / 2 : kMaxSide) {
    grid_.divide(side_, side_);
    for (int axis : {0, 1}) {
      low_[axis] = (float)grid_.origin[axis], per_unit_[axis] = (float)grid_.cells_per_unit[axis];
    }
    std::fill_n(guess_, side_ * side_, 0);
    std::fill_n(distance_, side_ * side_, kInfinity);
  }

  int num() const { return num_; }
  const SizedBox* boxes() const { return boxes_.get(); }

  // Adds a box of the grid.
  CVOPS_INLINE void add(const SizedBox& b) {
    boxes_[num_] = b;
    if (num_ < kMost) places_.put(num_, b);
    const PerAxis sides = grid_.sides(b.box), far = kReach * sides;
    const PerAxis position = Grid::low(b.box) + Grid::high(b.box);
    const PerAxis first = grid_.cell(position - far), last = grid_.cell(position + far);
    const PerAxis center = (position - grid_.origin) * grid_.cells_per_unit - 0.5;
    const PerAxis per_side = 1.0 / (sides * grid_.cells_per_unit);
    for (int row = (int)first[1]; row <= (int)last[1]; ++row) {
      for (int column = (int)first[0]; column <= (int)last[0]; ++column) {
        const PerAxis away = (PerAxis{(double)column, (double)row} - center) * per_side;
        const float distance = (float)(away[0] * away[0] + away[1] * away[1]);
        const int cell = row * side_ + column;
        const bool is_nearer = distance < distance_[cell];
        guess_[cell] = is_nearer ? num_ : guess_[cell];
        distance_[cell] = is_nearer ? distance : distance_[cell];
      }
    }
    ++num_;
  }

  // True if one of the boxes suppresses a box. These are at most kMost.
  template <Form kForm>
  CVOPS_INLINE bool suppress(const SizedBox& b, const RuleBounds& bounds, NmsRule rule) const {
    if (num_ == 0) return false;
    if (compare<kForm>(boxes_[guess_[cell_of(b.box)]], b, bounds).surely) return true;
    for (int at = 0; at < num_; at += kStep) {
      int found[kStep];
      CVOPS_VECTORIZED
      for (int k = 0; k < kStep; ++k) found[k] = may_suppress<kForm>(b, places_.at(at + k), bounds);
      if (!any(found)) continue;
      CVOPS_VECTORIZED
      for (int k = 0; k < kStep; ++k) {
        found[k] &= at + k < num_ && suppresses_by_rule<kForm>(places_.at(at + k), b, rule);
      }
      if (any(found)) return true;
    }
    return false;
  }

  CVOPS_INLINE int cell_of(const Box& b) const {
    return along(1, b.y1 + b.y2) * side_ + along(0, b.x1 + b.x2);
  }

  // Loads the guesses for `num` boxes of those cells.
  CVOPS_INLINE void load_guesses(BoxChunk& to, const int* cells, int num) const {
    const SizedBox* const boxes = boxes_.get();
    to.load_numbers(
        num, [&](int k) __attribute__((always_inline)) { return &boxes[guess_[cells[k]]].box.x1; });
    for (int k = 0; k < num; ++k) to.area[k] = boxes[guess_[cells[k]]].area;
  }

 private:
  static constexpr int kMaxSide = 64;     // cells along each axis
  static constexpr int kMinFine = 2048;   // boxes of a set for that number
  static constexpr double kReach = 0.25;  // as a part of a side

  CVOPS_INLINE int along(int axis, float position) const {
    const float at = (position - low_[axis]) * per_unit_[axis], most = (float)(side_ - 1);
    const float positive = at > 0 ? at : 0;
    return (int)(positive < most ? positive : most);
  }

  const int capacity_;
  Grid grid_;
  const int side_;
  float low_[2], per_unit_[2];
  int num_ = 0;
  const BoxArrays places_{kMost};
  const PooledScratch<SizedBox> boxes_ = pooled_scratch<SizedBox>(capacity_);
  int guess_[kMaxSide * kMaxSide];
  float distance_[kMaxSide * kMaxSide];
};

}  // namespace cvops::cpu
