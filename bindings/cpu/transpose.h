// Transposition of matrices of 4-byte elements, in blocks of 4 x 4 that stay in registers.
#pragma once
#include <algorithm>
#include <cstring>

#include "common.cuh"
#include "simd.h"

namespace cvops::cpu {

typedef float Quad __attribute__((vector_size(16)));
typedef int IntQuad __attribute__((vector_size(16)));
#ifdef __clang__
#define CVOPS_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define CVOPS_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, IntQuad{__VA_ARGS__})
#endif

template <typename T>
CVOPS_INLINE Quad load(const T* from) {
  Quad quad;
  std::memcpy(&quad, from, sizeof quad);
  return quad;
}

template <typename T>
CVOPS_INLINE void store(T* to, Quad quad) {
  std::memcpy(to, &quad, sizeof quad);
}

CVOPS_INLINE void transpose(Quad (&rows)[4]) {
  const Quad low01 = CVOPS_SHUFFLE(rows[0], rows[1], 0, 4, 1, 5);
  const Quad low23 = CVOPS_SHUFFLE(rows[2], rows[3], 0, 4, 1, 5);
  const Quad high01 = CVOPS_SHUFFLE(rows[0], rows[1], 2, 6, 3, 7);
  const Quad high23 = CVOPS_SHUFFLE(rows[2], rows[3], 2, 6, 3, 7);
  rows[0] = CVOPS_SHUFFLE(low01, low23, 0, 1, 4, 5);
  rows[1] = CVOPS_SHUFFLE(low01, low23, 2, 3, 6, 7);
  rows[2] = CVOPS_SHUFFLE(high01, high23, 0, 1, 4, 5);
  rows[3] = CVOPS_SHUFFLE(high01, high23, 2, 3, 6, 7);
}

// to[i, k] = change(from[k, i]) for k < rows and i < columns. Elements have 4 bytes; rows are
// `pitch` apart.
template <typename T, typename Change>
CVOPS_INLINE void transpose(T* __restrict__ to, int64 to_pitch, const T* __restrict__ from,
                            int64 from_pitch, int rows, int columns, const Change& change) {
  if (rows < 4 || columns < 4) {
    for (int k = 0; k < rows; ++k) {
      for (int i = 0; i < columns; ++i) {
        Quad one = {};
        std::memcpy(&one, from + k * from_pitch + i, sizeof(T));
        one = change(one);
        std::memcpy(to + i * to_pitch + k, &one, sizeof(T));
      }
    }
    return;
  }
  // If the number is not a multiple of four, the last block overlaps the previous one.
  for (int next_k = 0; next_k < rows; next_k += 4) {
    const int k = std::min(next_k, rows - 4);
    for (int next_i = 0; next_i < columns; next_i += 4) {
      const int i = std::min(next_i, columns - 4);
      Quad quad[4];
      for (int n = 0; n < 4; ++n) quad[n] = change(load(from + (k + n) * from_pitch + i));
      transpose(quad);
      for (int n = 0; n < 4; ++n) store(to + (i + n) * to_pitch + k, quad[n]);
    }
  }
}

// to[i, k] = from[k, i].
CVOPS_INLINE void transpose(float* __restrict__ to, int64 to_pitch, const float* __restrict__ from,
                            int64 from_pitch, int rows, int columns) {
  auto same = [](Quad quad) __attribute__((always_inline)) { return quad; };
  transpose(to, to_pitch, from, from_pitch, rows, columns, same);
}
CVOPS_INLINE void transpose(double* __restrict__ to, int64 to_pitch,
                            const double* __restrict__ from, int64 from_pitch, int rows,
                            int columns) {
  for (int k = 0; k < rows; ++k) {
    for (int i = 0; i < columns; ++i) to[i * to_pitch + k] = from[k * from_pitch + i];
  }
}

#undef CVOPS_SHUFFLE

}  // namespace cvops::cpu
