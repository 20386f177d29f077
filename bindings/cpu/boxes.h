#pragma once
#include "box.cuh"

namespace cvops::cpu {

// Boxes as a structure of arrays, which the compiler can vectorize.
struct Boxes {
  static constexpr int kMost = 256;
  float x1[kMost], y1[kMost], x2[kMost], y2[kMost];

  void set(int i, Box b) { x1[i] = b.x1, y1[i] = b.y1, x2[i] = b.x2, y2[i] = b.y2; }
  Box operator[](int i) const { return {x1[i], y1[i], x2[i], y2[i]}; }
};

}  // namespace cvops::cpu
