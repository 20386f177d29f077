#include "confusion_matrix.h"

#include <algorithm>
#include <cstring>
#include <memory>

#include "confusion_matrix.cuh"
#include "parallel.h"
#include "simd.h"

namespace cvops {
namespace {

struct Pixels {
  const int *prediction, *label;
  int64 num;
};

typedef int Eight __attribute__((vector_size(32)));
typedef int64 FourLongs __attribute__((vector_size(32)));

inline bool all_equal(const int (&cells)[16]) {
  Eight a, b;
  std::memcpy(&a, cells, sizeof a);
  std::memcpy(&b, cells + 8, sizeof b);
  const FourLongs differ = (FourLongs)((a ^ cells[0]) | (b ^ cells[0]));
  return (differ[0] | differ[1] | differ[2] | differ[3]) == 0;
}

// Counts ignored pixels at counts[-1]. Adjacent pixels mostly have the same cell, and each
// increment depends on the previous one. A group of equal cells is therefore counted with one
// addition. Otherwise consecutive pixels go to kMatrices matrices in turn, `pitch` apart.
template <int kMatrices>
void count(uint32* counts, int64 pitch, const Pixels& pixels, int num_classes, int ignore_label) {
  constexpr int kBlock = 1024, kGroup = 16;
  alignas(64) int cells[kBlock / kGroup][kGroup];
  for (int64 begin = 0; begin < pixels.num; begin += kBlock) {
    const int num = (int)std::min<int64>(kBlock, pixels.num - begin);
    const int *prediction = pixels.prediction + begin, *label = pixels.label + begin;
    int* const cell = cells[0];
    for (int i = 0; i < num; ++i) {
      cell[i] = cell_of(prediction[i], label[i], num_classes, ignore_label);
    }
    for (int g = 0; g < num / kGroup; ++g) {
      if (all_equal(cells[g])) {
        counts[cells[g][0]] += kGroup;
        continue;
      }
      for (int k = 0; k < kGroup; k += 2) {
        uint64 pair;  // one load for two pixels: loads and stores limit the speed
        std::memcpy(&pair, cells[g] + k, sizeof pair);
        ++counts[k % kMatrices * pitch + (int)pair];
        ++counts[(k + 1) % kMatrices * pitch + (int)(pair >> 32)];
      }
    }
    for (int i = num / kGroup * kGroup; i < num; ++i) ++counts[cell[i]];
  }
}

}  // namespace

void confusion_matrix(const Cpu&, int64* matrix, const int* prediction, const int* label,
                      int64 total, int num_classes, int ignore_label) {
  const int64 cells = (int64)num_classes * num_classes;
  std::fill_n(matrix, cells, 0);
  // The sum of several matrices per part pays only for many more pixels than cells.
  constexpr int kMatrices = 4;
  const int64 matrices = cells <= 4096 ? kMatrices : 1, pitch = cells + 1;
  const int64 worth_a_part = std::max<int64>(2 * pitch * matrices, 1 << 12);
  if (total < worth_a_part) {
    for (int64 i = 0; i < total; ++i) {
      const int cell = cell_of(prediction[i], label[i], num_classes, ignore_label);
      if (cell >= 0) ++matrix[cell];
    }
    return;
  }
  // Counters have 32 bits.
  const int64 parts = std::clamp<int64>(2 * num_threads(), 1, total / worth_a_part);
  const std::unique_ptr<uint32[]> memory(new uint32[parts * matrices * pitch]);
  for (int64 done = 0; done < total;) {
    const int64 num = std::min<int64>(total - done, (int64)1 << 31);
    parallel_for(parts, 0.5 * num / parts, [&](int64 part) {
      uint32* const counts = memory.get() + part * matrices * pitch;
      std::fill_n(counts, matrices * pitch, 0);
      const int64 begin = done + part * num / parts, end = done + (part + 1) * num / parts;
      const Pixels pixels = {prediction + begin, label + begin, end - begin};
      if (matrices == kMatrices) {
        simd<count<kMatrices>>(counts + 1, pitch, pixels, num_classes, ignore_label);
      } else {
        simd<count<1>>(counts + 1, pitch, pixels, num_classes, ignore_label);
      }
    });
    for (int64 n = 0; n < parts * matrices; ++n) {
      const uint32* const counts = memory.get() + n * pitch + 1;
      for (int64 k = 0; k < cells; ++k) matrix[k] += counts[k];
    }
    done += num;
  }
}

}  // namespace cvops
