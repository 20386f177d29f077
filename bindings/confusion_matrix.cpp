#include "confusion_matrix.h"

#include <algorithm>
#include <vector>

#include "confusion_matrix.cuh"
#include "parallel.h"
#include "simd.h"

namespace cvops {

static void cells_of(int* __restrict__ cells, const int* __restrict__ prediction,
                     const int* __restrict__ label, int num, int num_classes, int ignore_label) {
  for (int i = 0; i < num; ++i) {
    cells[i] = cell_of(prediction[i], label[i], num_classes, ignore_label);
  }
}

void cpu::confusion_matrix(int64* matrix, const int* prediction, const int* label, int64 total,
                           int num_classes, int ignore_label) {
  // Neighbouring pixels are mostly of one cell, and a count waits for the one before it: they go to
  // several matrices in turn, if they are small. Each part of the pixels has its own.
  const int64 cells = (int64)num_classes * num_classes, lanes = cells <= 4096 ? 4 : 1;
  const int64 worth_a_part = std::max<int64>(4 * cells * lanes, 1 << 15);
  const int64 parts = std::clamp<int64>(total / worth_a_part, 1, num_threads());
  std::vector<int64> others((parts * lanes - 1) * cells);
  auto counts = [&](int64 n) { return n == 0 ? matrix : &others[(n - 1) * cells]; };

  std::fill_n(matrix, cells, 0);
  parallel_for(parts, (double)total / parts, [&](int64 part) {
    constexpr int kBlock = 1024;
    int cell[kBlock];
    int64* const to[4] = {counts(part * lanes), counts(part * lanes + 1 % lanes),
                          counts(part * lanes + 2 % lanes), counts(part * lanes + 3 % lanes)};
    const int64 end = (part + 1) * total / parts;
    for (int64 begin = part * total / parts; begin < end; begin += kBlock) {
      const int num = (int)std::min<int64>(kBlock, end - begin);
      simd<cells_of>(cell, prediction + begin, label + begin, num, num_classes, ignore_label);
      for (int i = 0; i < num; ++i) {
        if (cell[i] >= 0) ++to[i % 4][cell[i]];
      }
    }
  });
  for (int64 n = 1; n < parts * lanes; ++n) {
    for (int64 k = 0; k < cells; ++k) matrix[k] += counts(n)[k];
  }
}

}  // namespace cvops
