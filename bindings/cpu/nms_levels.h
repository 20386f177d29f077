// The cells of boxes whose sizes differ widely.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>

#include "common.cuh"

namespace cvops::cpu {

// Grids for boxes of different sizes: one for each pair of levels, of the width and of the height.
// A level has the sides from a power of 4 to the next one. Only boxes of near levels suppress each
// other. A cell is half as long as the longest sides of its level.
struct Levels {
  static constexpr int kNum = 160, kMinExponent = -160;

  int buckets = 0, shift = 0;       // 0: not in use
  std::unique_ptr<uint8_t[]> used;  // (kNum, kNum): true if there is a box

  static CVOPS_INLINE int level(double side) {
    uint64 bits;
    std::memcpy(&bits, &side, sizeof bits);
    const int exponent = (int)(bits >> 52 & 0x7ff) - 1023;
    return std::clamp((exponent - kMinExponent) >> 1, 0, kNum - 1);
  }

  // 4^n for the exponent n of the shortest sides of a level.
  static double shortest(int level) {
    const uint64 bits = (uint64)(2 * level + kMinExponent + 1023) << 52;
    double side;
    std::memcpy(&side, &bits, sizeof side);
    return side;
  }

  // Cell of a position. Positions are twice the centers; a cell has four of the shortest sides.
  static int64 cell(double position, int level) {
    constexpr double limit = 1ll << 60;
    const double at = std::floor(position / (4 * shortest(level)));
    return (int64)std::min(std::max(at, -limit), limit);
  }

  // Maximum distance in position from a box of side `side` to those of a level.
  static double reach(double side, int level, double part) {
    const double low = shortest(level), high = 4 * low;
    auto distance = [&](double other) { return side + other - 2 * part * std::max(side, other); };
    return 1.01 * std::max(distance(std::clamp(side, low, high)), distance(high));
  }

  // Several cells may share a bucket: more boxes are compared then.
  int bucket(int of_x, int of_y, int64 column, int64 row) const {
    uint64 key = (uint64)(of_x * kNum + of_y) * 0x9E3779B97F4A7C15u;
    key += (uint64)column * 0xC2B2AE3D27D4EB4Fu + (uint64)row * 0x165667B19E3779F9u;
    key = (key ^ key >> 32) * 0xD6E8FEB86659FD93u;
    return (int)(key >> shift);
  }

  void use(int num) {
    int bits = 1;
    while (2 << bits <= num) ++bits;
    buckets = 1 << bits, shift = 64 - bits;
    used.reset(new uint8_t[kNum * kNum]());
  }
};

}  // namespace cvops::cpu
