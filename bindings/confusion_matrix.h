#pragma once
#include "common.cuh"
#include "gpu.h"

// matrix (num_classes, num_classes): one row per label, one column per prediction; prediction
// (total), label (total). num_classes is in [1, 46340].
namespace cvops {

void confusion_matrix(const Cpu&, int64* matrix, const int* prediction, const int* label,
                      int64 total, int num_classes, int ignore_label);
void confusion_matrix(Gpu&, int64* matrix, const int* prediction, const int* label, int64 total,
                      int num_classes, int ignore_label);

}  // namespace cvops
