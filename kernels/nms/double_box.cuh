// Boxes and scores of doubles for suppression: bounds as floats, and the keys of two sorts.
#pragma once
#include "nms/rows.cuh"
#include "sort_key.cuh"

namespace cvops {

using DoubleBox = SizedBoxOf<double>;

// The float next to x in the direction of -infinity. x is not NaN, and not -infinity.
CVOPS_HD float next_below(float x) {
  const uint32 bits = bits_of(x);
  return x == 0 ? float_of(0x80000001u) : float_of(x > 0 ? bits - 1 : bits + 1);
}

// The largest float that is x or less; -infinity for NaN.
CVOPS_HD float rounded_below(double x) {
  const float nearest = (float)x;
  if (x != x) return float_of(0xff800000u);
  return (double)nearest > x ? next_below(nearest) : nearest;
}

// A box of doubles for the cheap tests. The area is NaN if a coordinate is, or if products of such
// areas may be denormal or infinite: every test then passes.
CVOPS_HD SizedBox nms_bounds(const DoubleBox& b) {
  const BoxOf<double> c = b.box;
  const bool is_ordered = c.x1 == c.x1 && c.y1 == c.y1 && c.x2 == c.x2 && c.y2 == c.y2;
  const bool is_ordinary = is_ordered && (b.area == 0 || (b.area >= 1e-30 && b.area <= 1e37));
  return {{rounded_below(c.x1), rounded_below(c.y1), -rounded_below(-c.x2), -rounded_below(-c.y2)},
          is_ordinary ? (float)b.area : float_of(0x7fc00000)};
}

// Scores of a row of candidates: candidate i has values[i * step].
struct DoubleScores {
  const double* values;
  int64 row;  // distance of two rows
  int step;

  CVOPS_HD double at(int64 row_number, int64 i) const {
    return values[row_number * row + i * step];
  }
};

// Keys of the two sorts.
CVOPS_HD uint64 low_key(double score, uint32 index) {
  return (uint64)(uint32)descending(score) << 32 | index;
}
CVOPS_HD uint64 high_key(double score, uint32 place) {
  return descending(score) >> 32 << 32 | place;
}

}  // namespace cvops
