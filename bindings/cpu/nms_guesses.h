// Kept boxes, and a table that guesses which of them suppresses a box.
#pragma once
#include <algorithm>

#include "nms_marked_block.h"
#include "row_set.h"

namespace cvops::cpu {

// The first kept boxes of a set, the best first.
class KeptBoxes {
 public:
  // Kept boxes, at most, that a box is compared with one after the other.
  static constexpr int kMost = 512;

  // `low` and `extent` of the positions of most boxes along each axis. Positions are twice the
  // centers.
  KeptBoxes(const float (&low)[2], const float (&extent)[2], int64 num, int capacity)
      : side_bits_(num < kMinFine ? kMaxSideBits - 1 : kMaxSideBits),
        boxes_(pooled_scratch<SizedBox>(capacity)) {
    for (int axis : {0, 1}) {
      low_[axis] = low[axis];
      per_unit_[axis] = extent[axis] > 0 ? (float)(1 << side_bits_) / extent[axis] : 0;
    }
    boxes_[0] = kNone;
  }

  // Initializes the table.
  CVOPS_INLINE void clear() {
    for (auto& guesses : guesses_) {
      const int cells = kLevels << 2 * side_bits_;
      for (int cell = 0; cell < cells; ++cell) guesses[cell] = kNoGuess;
    }
  }

  int num() const { return num_; }
  const SizedBox* boxes() const { return boxes_.get(); }

  // Adds a box of the grid.
  CVOPS_INLINE void add(const SizedBox& b) {
    const int own = num_++;
    boxes_[own] = b;
    if (own > kMaxGuess) return;
    const int side = 1 << side_bits_;
    const float width = (b.box.x2 - b.box.x1) * per_unit_[0];
    const float height = (b.box.y2 - b.box.y1) * per_unit_[1];
    const float x = (b.box.x1 + b.box.x2 - low_[0]) * per_unit_[0];
    const float y = (b.box.y1 + b.box.y2 - low_[1]) * per_unit_[1];
    const int last_row = clamped(y + kReach * height), last_column = clamped(x + kReach * width);
    const float per_width = 1 / width, per_height = 1 / height;
    const int of_smaller = level(kSmaller * b.area), of_larger = level(kLarger * b.area);
    // The second level is the unused one if both are the same.
    const int levels[] = {of_smaller, of_larger == of_smaller ? kLevels : of_larger};
    int column = std::min(clamped(x - kReach * width), side - kColumns);
    do {
      Quad across[kQuads];  // squares
      for (int q = 0; q < kQuads; ++q) {
        const Quad at = (float)(column + 4 * q) + Quad{0.5f, 1.5f, 2.5f, 3.5f};
        across[q] = (at - x) * per_width * ((at - x) * per_width);
      }
      for (int row = clamped(y - kReach * height); row <= last_row; ++row) {
        const float down = ((float)row + 0.5f - y) * per_height;
        for (int of_level : levels) {
          for (int q = 0; q < kQuads; ++q) {
            insert(cell_at(of_level, row, column + 4 * q), across[q] + down * down, own);
          }
        }
      }
      column += kColumns;
    } while (column <= last_column && column <= side - kColumns);
  }

  CVOPS_INLINE int cell_of(const SizedBox& b) const {
    const int row = along(1, b.box.y1 + b.box.y2), column = along(0, b.box.x1 + b.box.x2);
    return cell_at(level(b.area), row, column);
  }

  // Sets is_left[k] to 0 for those of the `num` rows address(k), at most kSize, that the guessed
  // boxes suppress: by the first or the second guesses.
  template <Form kForm, int kWidth, int kSize, typename Address>
  CVOPS_INLINE void clear_suppressed(int* is_left, int num, const Rows& rows, int which,
                                     const Address& address) const {
    const int* const guesses = guesses_[which];
    BoxChunk<kSize> own, guessed;
    int cells[kSize];
    own.template load_numbers<kWidth>(num, [&](int k) __attribute__((always_inline)) {
      return address(k) + rows.options.columns.coord;
    });
    own.size_all(kForm == Form::center);
    for (int k = 0; k < kSize; ++k) cells[k] = cell_of(own.at(k));
    const SizedBox* const boxes = boxes_.get();
    guessed.template load_numbers<kWidth>(num, [&](int k) __attribute__((always_inline)) {
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
      const bool suits = kForm == Form::corner || has_area_of_corners(b.area, width, height);
      is_left[k] &= !(compare<kForm>(guessed.at(k), b, rows.bounds).surely & suits);
    }
  }

 private:
  static constexpr int kMaxSideBits = 5;  // 32 cells along each axis
  static constexpr int kLevels = 4;       // of areas; boxes of very different areas share one
  static constexpr int kMaxGuess = 0xffff;
  static constexpr int kNoGuess = 0x7f800000;  // at infinity: box 0, which is replaced
  // The areas of boxes of a group, as parts of the area of a kept one.
  static constexpr float kSmaller = 0.8f, kLarger = 1.25f;
  static constexpr int kMinFine = 2048;   // boxes of a set for the finest grid
  static constexpr float kReach = 0.25f;  // as a part of a side
  // Columns that are changed at once: more than in reach do no harm.
  static constexpr int kQuads = 2, kColumns = 4 * kQuads;

  // The exponent of an area.
  static CVOPS_INLINE int level(float area) {
    uint32 bits;
    __builtin_memcpy(&bits, &area, sizeof bits);
    return (int)(bits >> 23) % kLevels;
  }

  CVOPS_INLINE int clamped(float at) const {
    const float most = (float)((1 << side_bits_) - 1), positive = at > 0 ? at : 0;
    return (int)(positive < most ? positive : most);
  }

  CVOPS_INLINE int cell_at(int of_level, int row, int column) const {
    return (((of_level << side_bits_) + row) << side_bits_) + column;
  }

  CVOPS_INLINE int along(int axis, float position) const {
    return clamped((position - low_[axis]) * per_unit_[axis]);
  }

  // Inserts guesses from a cell on: the bits of a distance and the number of a box. The nearer one
  // is less.
  CVOPS_INLINE void insert(int cell, const Quad& distances, int box) {
    const IntQuad guess = ((IntQuad)distances & 0x7fff0000) | box;
    IntQuad nearest, next;
    load<4>(nearest, guesses_[0] + cell), load<4>(next, guesses_[1] + cell);
    const IntQuad further = nearest > guess ? nearest : guess;
    store<4>(guesses_[0] + cell, nearest < guess ? nearest : guess);
    store<4>(guesses_[1] + cell, next < further ? next : further);
  }

  const int side_bits_;
  float low_[2], per_unit_[2];
  int num_ = 0;
  const PooledScratch<SizedBox> boxes_;
  int guesses_[2][(kLevels + 1) << 2 * kMaxSideBits];  // the nearest and the next kept box
};

}  // namespace cvops::cpu
