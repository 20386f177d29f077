// Transposition of matrices of 4-byte elements, in blocks of 4 x 4 that stay in registers.
#pragma once
#include <algorithm>
#include <cstring>
#include <utility>

#include "common.cuh"
#include "simd.h"

namespace cvops::cpu {

typedef float Quad __attribute__((vector_size(16)));
typedef int IntQuad __attribute__((vector_size(16)));

// Shuffles a and b in groups of four lanes. kA to kD: lanes of the group of a, or 4 + a lane of b.
template <int kA, int kB, int kC, int kD, typename V, int... kLanes>
CVOPS_INLINE void shuffle(V& out, const V& a, const V& b, std::integer_sequence<int, kLanes...>) {
  constexpr int kOf[] = {kA, kB, kC, kD}, kNum = sizeof...(kLanes);
#ifdef __clang__
  out = __builtin_shufflevector(
      a, b, (kLanes / 4 * 4 + kOf[kLanes % 4] % 4 + kOf[kLanes % 4] / 4 * kNum)...);
#else
  out = __builtin_shuffle(
      a, b,
      Vector<int, kNum>{(kLanes / 4 * 4 + kOf[kLanes % 4] % 4 + kOf[kLanes % 4] / 4 * kNum)...});
#endif
}

// Joins the lanes of two vectors.
template <typename V, typename Half, int... kLanes>
CVOPS_INLINE void join(V& out, const Half& low, const Half& high,
                       std::integer_sequence<int, kLanes...>) {
  out = __builtin_shufflevector(low, high, kLanes...);
}

// Transposes each group of four lanes of four rows.
template <int kWidth>
CVOPS_INLINE void transpose_groups(Vector<float, kWidth> (&rows)[4]) {
  const std::make_integer_sequence<int, kWidth> lanes;
  Vector<float, kWidth> low01, low23, high01, high23;
  shuffle<0, 4, 1, 5>(low01, rows[0], rows[1], lanes);
  shuffle<0, 4, 1, 5>(low23, rows[2], rows[3], lanes);
  shuffle<2, 6, 3, 7>(high01, rows[0], rows[1], lanes);
  shuffle<2, 6, 3, 7>(high23, rows[2], rows[3], lanes);
  shuffle<0, 1, 4, 5>(rows[0], low01, low23, lanes);
  shuffle<2, 3, 6, 7>(rows[1], low01, low23, lanes);
  shuffle<0, 1, 4, 5>(rows[2], high01, high23, lanes);
  shuffle<2, 3, 6, 7>(rows[3], high01, high23, lanes);
}

// Writes the four columns of four rows.
CVOPS_INLINE void store_columns(float* a, float* b, float* c, float* d, Quad (&rows)[4]) {
  transpose_groups<4>(rows);
  store<4>(a, rows[0]), store<4>(b, rows[1]), store<4>(c, rows[2]), store<4>(d, rows[3]);
}

// to[i, k] = change(from[k, i]) for k < 4 and i < kWidth.
template <int kWidth, typename T, typename Change>
CVOPS_INLINE void transpose_block(T* __restrict__ to, int64 to_pitch, const T* __restrict__ from,
                                  int64 from_pitch, const Change& change) {
  Vector<float, kWidth> rows[4];
  for (int n = 0; n < 4; ++n) {
    load<kWidth>(rows[n], (const float*)(from + n * from_pitch));
    change(rows[n]);
  }
  transpose_groups<kWidth>(rows);
  for (int i = 0; i < kWidth; ++i, to += to_pitch) {
    std::memcpy(to, (const char*)&rows[i % 4] + i / 4 * sizeof(Quad), sizeof(Quad));
  }
}

// to[i, k] = change(from[k, i]) for k < rows and i < columns. Elements have 4 bytes; rows are
// `pitch` apart. change(Vector&) changes the values of a vector.
template <int kWidth = 4, typename T, typename Change>
CVOPS_INLINE void transpose(T* __restrict__ to, int64 to_pitch, const T* __restrict__ from,
                            int64 from_pitch, int rows, int columns, const Change& change) {
  if (rows < 4 || columns < 4) {
    for (int k = 0; k < rows; ++k) {
      for (int i = 0; i < columns; ++i) {
        Quad one = {};
        std::memcpy(&one, from + k * from_pitch + i, sizeof(T));
        change(one);
        std::memcpy(to + i * to_pitch + k, &one, sizeof(T));
      }
    }
    return;
  }
  // If the number is not a multiple of four, the last block overlaps the previous one.
  for (int next_k = 0; next_k < rows; next_k += 4) {
    const int k = std::min(next_k, rows - 4);
    int next_i = 0;
    for (; kWidth > 4 && next_i + kWidth <= columns; next_i += kWidth) {
      transpose_block<kWidth>(to + next_i * to_pitch + k, to_pitch, from + k * from_pitch + next_i,
                              from_pitch, change);
    }
    for (; next_i < columns; next_i += 4) {
      const int i = std::min(next_i, columns - 4);
      transpose_block<4>(to + i * to_pitch + k, to_pitch, from + k * from_pitch + i, from_pitch,
                         change);
    }
  }
}

// to[i, k] = from[k, i].
template <int kWidth = 4, typename T>
CVOPS_INLINE void transpose(T* __restrict__ to, int64 to_pitch, const T* __restrict__ from,
                            int64 from_pitch, int rows, int columns) {
  if constexpr (sizeof(T) == 4) {
    const auto same = [](auto&) __attribute__((always_inline)) {};
    transpose<kWidth>(to, to_pitch, from, from_pitch, rows, columns, same);
  } else {
    for (int k = 0; k < rows; ++k) {
      for (int i = 0; i < columns; ++i) to[i * to_pitch + k] = from[k * from_pitch + i];
    }
  }
}

}  // namespace cvops::cpu
