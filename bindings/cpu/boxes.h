#pragma once
#include "box.cuh"

namespace cvops::cpu {

constexpr int kMostBoxes = 256;

// Boxes as a structure of arrays, which the compiler can vectorize.
template <typename T>
struct Boxes {
  T x1[kMostBoxes], y1[kMostBoxes], x2[kMostBoxes], y2[kMostBoxes];

  void set(int i, BoxOf<T> b) { x1[i] = b.x1, y1[i] = b.y1, x2[i] = b.x2, y2[i] = b.y2; }
  BoxOf<T> operator[](int i) const { return {x1[i], y1[i], x2[i], y2[i]}; }
};

}  // namespace cvops::cpu
