// Boxes in arrays on the stack, and marks of the suppressed ones.
#pragma once
#include <algorithm>

#include "nms_broad_phase.h"
#include "nms_lanes.h"
#include "transpose.h"

namespace cvops::cpu {

// A box that overlaps nothing: also in pixels, where a point is one.
constexpr SizedBox kNone = {{2, 2, -2, -2}, 1};

// BroadPhase::kind_of_cell() without branches, for corners and a threshold that suits RuleBounds:
// true for kGridCell.
CVOPS_INLINE int is_in_grid(const SizedBox& b) {
  const float width = b.box.x2 - b.box.x1, height = b.box.y2 - b.box.y1;
  return (b.box.x1 < b.box.x2) & (b.box.y1 < b.box.y2) & (b.area < kInfinity) &
         has_area_of_corners(b.area, width, height);
}

// The same for kOverflowCell, of a box that is not in the grid.
template <Form kForm>
CVOPS_INLINE int overflows(const SizedBox& b) {
  const float x = b.box.x1 + b.box.x2, y = b.box.y1 + b.box.y2;
  const int has_nan = (kForm == Form::center) & ((x != x) | (y != y));
  return has_nan | ((b.box.x1 < b.box.x2) & (b.box.y1 < b.box.y2) & !(b.area == kInfinity));
}

// Loads kWidth / 4 times four numbers, one after the other.
template <int kWidth>
CVOPS_INLINE void load_quads(Vector<float, kWidth>& vector, const float* const* addresses) {
  if constexpr (kWidth == 4) {
    load<4>(vector, addresses[0]);
  } else {
    Vector<float, kWidth / 2> low, high;
    load_quads<kWidth / 2>(low, addresses);
    load_quads<kWidth / 2>(high, addresses + kWidth / 8);
    join(vector, low, high, std::make_integer_sequence<int, kWidth>());
  }
}

// Boxes in arrays on the stack.
template <int kNum>
struct BoxChunk {
  static constexpr int kSize = kNum;

  alignas(64) float x1[kNum], y1[kNum], x2[kNum], y2[kNum], area[kNum];

  CVOPS_INLINE void put(int k, const SizedBox& b) {
    x1[k] = b.box.x1, y1[k] = b.box.y1, x2[k] = b.box.x2, y2[k] = b.box.y2, area[k] = b.area;
  }
  CVOPS_INLINE SizedBox at(int k) const { return {{x1[k], y1[k], x2[k], y2[k]}, area[k]}; }

  // Loads the four numbers at address(k) of `num` boxes. Some more elements change.
  template <int kWidth, typename Address>
  CVOPS_INLINE void load_numbers(int num, const Address& address) {
    int k = 0;
    for (; k + kWidth <= num; k += kWidth) load_vectors<kWidth>(k, address);
    if (k == num) return;
    load_vectors<kWidth>(
        k, [&](int i) __attribute__((always_inline)) { return address(std::min(i, num - 1)); });
  }

  // Changes numbers of that format to corners, and computes the areas, of `num` boxes.
  CVOPS_INLINE void size_all(bool center, int num = kNum) {
    for (int k = 0; k < num; ++k) {
      put(k, sized<float>({x1[k], y1[k], x2[k], y2[k]}, center));
    }
  }

 private:
  template <int kWidth, typename Address>
  CVOPS_INLINE void load_vectors(int k, const Address& address) {
    Vector<float, kWidth> rows[4];
    for (int r = 0; r < 4; ++r) {
      const float* addresses[kWidth / 4];
      for (int q = 0; q < kWidth / 4; ++q) addresses[q] = address(k + 4 * q + r);
      load_quads<kWidth>(rows[r], addresses);
    }
    transpose_groups<kWidth>(rows);
    store<kWidth>(x1 + k, rows[0]), store<kWidth>(y1 + k, rows[1]);
    store<kWidth>(x2 + k, rows[2]), store<kWidth>(y2 + k, rows[3]);
  }
};

// Boxes and marks: 1 for a suppressed box, else 0.
template <int kMost>
struct MarkedBlock : BoxChunk<kMost + kStep> {
  alignas(64) int marks[kMost + kStep];

  // After `num` boxes: the lanes of the last step overlap nothing.
  CVOPS_INLINE void begin(int num) {
    for (int k = num; k < num + kStep; ++k) this->put(k, kNone);
    for (int k = 0; k < num + kStep; ++k) marks[k] = 0;
  }

  // Marks those of `num` boxes that kept boxes suppress.
  template <Form kForm>
  CVOPS_INLINE void mark_all(const SizedBox* kept, int num_kept, int num, const RuleBounds& bounds,
                             const NmsRule& rule) {
    for (int at = 0; at < num; at += kStep) {
      int surely[kStep] = {}, unsure[kStep] = {};
      for (int i = 0; i < num_kept; ++i) {
        const SizedBox b = kept[i];
        CVOPS_VECTORIZED
        for (int k = 0; k < kStep; ++k) {
          const Verdict verdict = compare<kForm>(b, this->at(at + k), bounds);
          surely[k] |= verdict.surely, unsure[k] |= verdict.unsure;
        }
      }
      for (int k = 0; k < kStep; ++k) marks[at + k] |= surely[k];
      if (!any(unsure)) continue;
      for (int i = 0; i < num_kept; ++i) {
        for (int k = at; k < at + kStep; ++k) {
          marks[k] |= suppresses_by_rule<kForm>(kept[i], this->at(k), rule);
        }
      }
    }
  }

  // Marks the boxes [first, num) that a box suppresses. Marks of earlier ones may change too.
  template <Form kForm>
  CVOPS_INLINE void mark(const SizedBox& b, int first, int num, const RuleBounds& bounds,
                         const NmsRule& rule) {
    int unsure[kStep] = {};
    for (int at = first / kStep * kStep; at < num; at += kStep) {
      CVOPS_VECTORIZED
      for (int k = 0; k < kStep; ++k) {
        const Verdict verdict = compare<kForm>(b, this->at(at + k), bounds);
        marks[at + k] |= verdict.surely;
        unsure[k] |= verdict.unsure;
      }
    }
    if (!any(unsure)) return;
    for (int k = first; k < num; ++k) {
      marks[k] |= suppresses_by_rule<kForm>(b, this->at(k), rule);
    }
  }
};

}  // namespace cvops::cpu
