// confusion_matrix: number of pixels for each pair of a true and a predicted class.
//
// A block counts in shared memory if the matrix fits, and adds its counts to the matrix at the end.
// Otherwise each count is added to the matrix itself. Adjacent pixels mostly have the same pair, so
// a thread first counts a run of equal pairs in registers. All sums are integers: their order does
// not change the result.
#pragma once
#include "common.cuh"

namespace cvops {

// Cell of a pair in the matrix (num_classes, num_classes); -1 if the pixel is ignored.
CVOPS_HD int cell_of(int prediction, int label, int num_classes, int ignore_label) {
  bool counts = (uint32)label < (uint32)num_classes && (uint32)prediction < (uint32)num_classes &&
                label != ignore_label;
  return counts ? label * num_classes + prediction : -1;
}

constexpr int kCellsInShared = CVOPS_STEP(12288, 100);  // 48 KiB: 110 classes

}  // namespace cvops

CVOPS_KERNEL confusion_matrix_clear(cvops::uint64* matrix, cvops::int64 cells);
CVOPS_KERNEL confusion_matrix(cvops::uint64* matrix, const int* prediction, const int* label,
                              cvops::int64 total, int num_classes, int ignore_label);

#ifdef __CUDACC__
namespace cvops {

// Counters of a block. `shared` is null if the matrix does not fit.
struct Counts {
  uint32* shared;
  uint64* matrix;
};

struct CellRun {
  int cell, length;
};

__device__ __forceinline__ void add(Counts counts, CellRun run) {
  if (run.cell < 0 || run.length == 0) return;
  if (counts.shared) {
    atomicAdd(counts.shared + run.cell, (uint32)run.length);
  } else {
    atomicAdd(counts.matrix + run.cell, (uint64)run.length);
  }
}

__device__ __forceinline__ void extend(CellRun& run, int cell, Counts counts) {
  if (cell != run.cell) {
    add(counts, run);
    run = {cell, 0};
  }
  ++run.length;
}

}  // namespace cvops

extern "C" __global__ void __launch_bounds__(256)
    confusion_matrix_clear(unsigned long long* __restrict__ matrix, long long cells) {
  using namespace cvops;
  wait_for_earlier_launches();
  for (int64 k = blockIdx.x * (int64)blockDim.x + threadIdx.x; k < cells;
       k += (int64)gridDim.x * blockDim.x) {
    matrix[k] = 0;
  }
}

// matrix (num_classes, num_classes), 0 before; prediction (total), label (total). Shared memory:
// one counter per cell if there are at most kCellsInShared cells. A block takes less than 2^32
// pixels.
extern "C" __global__ void __launch_bounds__(256)
    confusion_matrix(unsigned long long* __restrict__ matrix, const int* __restrict__ prediction,
                     const int* __restrict__ label, long long total, int num_classes,
                     int ignore_label) {
  using namespace cvops;
  wait_for_earlier_launches();
  CVOPS_DYNAMIC_SHARED(uint32, shared);
  const int cells = num_classes * num_classes, me = (int)threadIdx.x, threads = (int)blockDim.x;
  const bool in_shared = cells <= kCellsInShared;
  const Counts counts = {in_shared ? shared : nullptr, matrix};
  for (int k = me; in_shared && k < cells; k += threads) shared[k] = 0;
  __syncthreads();

  const int64 thread = blockIdx.x * (int64)threads + me, step = (int64)gridDim.x * threads;
  CellRun run = {-1, 0};
  for (int64 k = thread; k < total / 4; k += step) {
    const int4 p = reinterpret_cast<const int4*>(prediction)[k];
    const int4 l = reinterpret_cast<const int4*>(label)[k];
    extend(run, cell_of(p.x, l.x, num_classes, ignore_label), counts);
    extend(run, cell_of(p.y, l.y, num_classes, ignore_label), counts);
    extend(run, cell_of(p.z, l.z, num_classes, ignore_label), counts);
    extend(run, cell_of(p.w, l.w, num_classes, ignore_label), counts);
  }
  const int64 last = total / 4 * 4 + thread;
  if (last < total) {
    extend(run, cell_of(prediction[last], label[last], num_classes, ignore_label), counts);
  }
  add(counts, run);
  __syncthreads();
  for (int k = me; in_shared && k < cells; k += threads) {
    if (shared[k]) atomicAdd(matrix + k, (uint64)shared[k]);
  }
}
#endif
