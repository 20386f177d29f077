#pragma once
#include "common.cuh"

struct CUstream_st;

// matrix (num_classes, num_classes): a row for each label, a column for each prediction;
// prediction (total), label (total). num_classes is in [1, 46340].
namespace cvops {

namespace cpu {
void confusion_matrix(int64* matrix, const int* prediction, const int* label, int64 total,
                      int num_classes, int ignore_label);
}

namespace cuda {
void confusion_matrix(int64* matrix, const int* prediction, const int* label, int64 total,
                      int num_classes, int ignore_label, CUstream_st* stream);
}

}  // namespace cvops
