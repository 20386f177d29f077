#include <algorithm>

#include "confusion_matrix.cuh"
#include "confusion_matrix.h"
#include "launch.h"

void cvops::cuda::confusion_matrix(int64* matrix, const int* prediction, const int* label,
                                   int64 total, int num_classes, int ignore_label,
                                   cudaStream_t stream) {
  constexpr int64 most_blocks = CVOPS_STEP(1024, 3), of_block = CVOPS_STEP(4096, 1024);
  uint64* counts = reinterpret_cast<uint64*>(matrix);
  int64 cells = (int64)num_classes * num_classes;
  launch("confusion_matrix_clear", ::confusion_matrix_clear,
         dim3((unsigned)std::min(ceil_div(cells, 256), most_blocks)), 256, 0, stream, counts,
         cells);
  launch("confusion_matrix", ::confusion_matrix,
         dim3((unsigned)std::min(ceil_div(total, of_block), most_blocks)), 256,
         cells <= kCellsInShared ? cells * sizeof(uint32) : 0, stream, counts, prediction, label,
         total, num_classes, ignore_label);
}
