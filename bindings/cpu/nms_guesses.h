// Kept boxes, and a table that guesses which of them suppresses a box.
#pragma once
#include <algorithm>

#include "nms_grid.h"
#include "nms_lanes.h"
#include "row_set.h"
#include "transpose.h"

namespace cvops::cpu {

// Boxes in arrays on the stack.
struct BoxChunk {
  static constexpr int kSize = 128;

  alignas(64) float x1[kSize], y1[kSize], x2[kSize], y2[kSize], area[kSize];

  CVOPS_INLINE SizedBox at(int k) const { return {{x1[k], y1[k], x2[k], y2[k]}, area[k]}; }

  // Loads the four numbers at address(k) of `num` boxes. Some more elements change.
  template <typename Address>
  CVOPS_INLINE void load_numbers(int num, const Address& address) {
    int k = 0;
    for (; k + 4 <= num; k += 4) {
      load_four(k, address(k), address(k + 1), address(k + 2), address(k + 3));
    }
    if (k == num) return;
    const int last = num - 1;
    load_four(k, address(k), address(std::min(k + 1, last)), address(std::min(k + 2, last)),
              address(last));
  }

  // Changes numbers of that format to corners, and computes the areas.
  CVOPS_INLINE void size_all(bool center) {
    for (int k = 0; k < kSize; ++k) {
      const SizedBox b = sized<float>({x1[k], y1[k], x2[k], y2[k]}, center);
      x1[k] = b.box.x1, y1[k] = b.box.y1, x2[k] = b.box.x2, y2[k] = b.box.y2, area[k] = b.area;
    }
  }

 private:
  CVOPS_INLINE void load_four(int k, const float* a, const float* b, const float* c,
                              const float* d) {
    Quad numbers[4];
    load<4>(numbers[0], a), load<4>(numbers[1], b);
    load<4>(numbers[2], c), load<4>(numbers[3], d);
    store_columns(x1 + k, y1 + k, x2 + k, y2 + k, numbers);
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
    boxes_[0] = {{2, 2, -2, -2}, 1};  // suppresses none
    for (auto& guesses : guesses_) {
      std::fill_n(guesses, kLevels * side_ * side_, guess_at(kInfinity, 0));
    }
  }

  int num() const { return num_; }
  const SizedBox* boxes() const { return boxes_.get(); }

  // Adds a box of the grid.
  CVOPS_INLINE void add(const SizedBox& b) {
    const int own = num_++;
    if (own % kStep == 0 && own < kMost) places_.clear_step(own);
    if (own < kMost) places_.put(own, b);
    boxes_[own] = b;
    if (own > kMaxGuess) return;
    const PerAxis sides = grid_.sides(b.box), far = kReach * sides;
    const PerAxis position = Grid::low(b.box) + Grid::high(b.box);
    const PerAxis first = grid_.cell(position - far), last = grid_.cell(position + far);
    const PerAxis center = (position - grid_.origin) * grid_.cells_per_unit - 0.5;
    const PerAxis per_side = 1.0 / (sides * grid_.cells_per_unit);
    const int of_smaller = level(kSmaller * b.area), of_larger = level(kLarger * b.area);
    for (int row = (int)first[1]; row <= (int)last[1]; ++row) {
      for (int column = (int)first[0]; column <= (int)last[0]; ++column) {
        const PerAxis away = (PerAxis{(double)column, (double)row} - center) * per_side;
        const uint32 guess = guess_at((float)(away[0] * away[0] + away[1] * away[1]), own);
        const int cell = row * side_ + column;
        insert(of_smaller * side_ * side_ + cell, guess);
        if (of_larger != of_smaller) insert(of_larger * side_ * side_ + cell, guess);
      }
    }
  }

  // True if one of the boxes suppresses a box. These are at most kMost.
  template <Form kForm>
  CVOPS_INLINE bool suppress(const SizedBox& b, const RuleBounds& bounds, NmsRule rule) const {
    int surely[kStep] = {}, unsure[kStep] = {};
    for (int at = 0; at < num_; at += kStep) {
      CVOPS_VECTORIZED
      for (int k = 0; k < kStep; ++k) {
        const Verdict verdict = compare<kForm>(places_.at(at + k), b, bounds);
        surely[k] |= verdict.surely, unsure[k] |= verdict.unsure;
      }
    }
    if (any(surely) || !any(unsure)) return any(surely);
    bool found = false;
    for (int i = 0; i < num_; ++i) found |= suppresses_by_rule<kForm>(boxes_[i], b, rule);
    return found;
  }

  CVOPS_INLINE int cell_of(const SizedBox& b) const {
    const int row = level(b.area) * side_ + along(1, b.box.y1 + b.box.y2);
    return row * side_ + along(0, b.box.x1 + b.box.x2);
  }

  // Sets is_left[k] to 0 for those of the `num` rows address(k) that the guessed boxes suppress: by
  // the first or the second guesses.
  template <Form kForm, typename Address>
  CVOPS_INLINE void clear_suppressed(int* is_left, int num, const Rows& rows, int which,
                                     const Address& address) const {
    const uint32* const guesses = guesses_[which];
    constexpr int kSize = BoxChunk::kSize;
    BoxChunk own, guessed;
    int cells[kSize];
    own.load_numbers(num, [&](int k) __attribute__((always_inline)) {
      return address(k) + rows.options.columns.coord;
    });
    own.size_all(kForm == Form::center);
    for (int k = 0; k < kSize; ++k) cells[k] = cell_of(own.at(k));
    const SizedBox* const boxes = boxes_.get();
    guessed.load_numbers(num, [&](int k) __attribute__((always_inline)) {
      return &boxes[(uint16_t)guesses[cells[k]]].box.x1;
    });
    if (kForm == Form::corner) {
      guessed.size_all(false);
    } else {
      for (int k = 0; k < num; ++k) guessed.area[k] = boxes[(uint16_t)guesses[cells[k]]].area;
    }
    for (int k = 0; k < kSize; ++k) {
      const SizedBox b = own.at(k);
      // The bounds are not for boxes of kOverflowCell. In corner format these have areas below
      // 1e-30, and one that a box of the grid suppresses has 1e-33 or more: the bounds hold there.
      const float width = b.box.x2 - b.box.x1, height = b.box.y2 - b.box.y1;
      const bool suits =
          kForm == Form::corner || ((b.area >= 1e-30f) & (b.area >= 0.999f * width * height));
      is_left[k] &= !(compare<kForm>(guessed.at(k), b, rows.bounds).surely & suits);
    }
  }

 private:
  static constexpr int kMaxSide = 32;  // cells along each axis
  static constexpr int kLevels = 4;    // of areas; boxes of very different areas share one
  static constexpr int kMaxGuess = 0xffff;
  // The areas of boxes of a group, as parts of the area of a kept one.
  static constexpr float kSmaller = 0.8f, kLarger = 1.25f;
  static constexpr int kMinFine = 2048;   // boxes of a set for that number
  static constexpr double kReach = 0.25;  // as a part of a side

  // The exponent of an area.
  static CVOPS_INLINE int level(float area) {
    uint32 bits;
    __builtin_memcpy(&bits, &area, sizeof bits);
    return (int)(bits >> 23) % kLevels;
  }

  CVOPS_INLINE int along(int axis, float position) const {
    const float at = (position - low_[axis]) * per_unit_[axis], most = (float)(side_ - 1);
    const float positive = at > 0 ? at : 0;
    return (int)(positive < most ? positive : most);
  }

  // A guess: the bits of a distance and the number of a box. The nearer one is less.
  static CVOPS_INLINE uint32 guess_at(float distance, int box) {
    uint32 bits;
    __builtin_memcpy(&bits, &distance, sizeof bits);
    return (bits & 0xffff0000) | (uint32)box;
  }

  CVOPS_INLINE void insert(int cell, uint32 guess) {
    const uint32 nearest = guesses_[0][cell];
    guesses_[0][cell] = std::min(nearest, guess);
    guesses_[1][cell] = std::min(guesses_[1][cell], std::max(nearest, guess));
  }

  const int capacity_;
  Grid grid_;
  const int side_;
  float low_[2], per_unit_[2];
  int num_ = 0;
  const BoxArrays places_{kMost};
  const PooledScratch<SizedBox> boxes_ = pooled_scratch<SizedBox>(capacity_);
  uint32 guesses_[2][kLevels * kMaxSide * kMaxSide];  // the nearest and the next kept box
};

}  // namespace cvops::cpu
