#include "confusion_matrix.h"

#include <algorithm>

#include "confusion_matrix.cuh"

namespace cvops {

void confusion_matrix(Gpu& gpu, int64* matrix, const int* prediction, const int* label, int64 total,
                      int num_classes, int ignore_label) {
  constexpr int64 max_blocks = CVOPS_STEP(1024, 3), of_block = CVOPS_STEP(4096, 1024);
  uint64* counts = reinterpret_cast<uint64*>(matrix);
  const int64 cells = (int64)num_classes * num_classes;
  gpu.launch(KERNEL(confusion_matrix_clear), std::min(ceil_div(cells, 256), max_blocks), 256, 0,
             counts, cells);
  gpu.launch(KERNEL(confusion_matrix), std::min(ceil_div(total, of_block), max_blocks), 256,
             cells <= kCellsInShared ? cells * sizeof(uint32) : 0, counts, prediction, label, total,
             num_classes, ignore_label);
}

}  // namespace cvops
