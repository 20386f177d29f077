#include "confusion_matrix.h"

#include "ops.h"

void bind_confusion_matrix(cvops::Ops& ops) {
  using namespace cvops;
  ops.def("confusion_matrix", [](Array<int64> matrix, Array<const int> prediction,
                                 Array<const int> label, int num_classes, int ignore_label) {
    return [=](auto& device) {
      confusion_matrix(device, matrix.data, prediction.data, label.data, label.size, num_classes,
                       ignore_label);
    };
  });
}
