#include "confusion_matrix.h"

#include "arrays.h"

void bind_confusion_matrix(py::module_& m) {
  using namespace cvops;
  m.def("confusion_matrix", [](Array<int64> matrix, Array<const int> prediction,
                               Array<const int> label, int num_classes, int ignore_label) {
    py::gil_scoped_release release;
    cpu::confusion_matrix(matrix.data, prediction.data, label.data, label.size, num_classes,
                          ignore_label);
  });
#ifdef CVOPS_CUDA
  m.def(
      "confusion_matrix_cuda",
      [](std::uintptr_t matrix, std::uintptr_t prediction, std::uintptr_t label, int64 total,
         int num_classes, int ignore_label, std::uintptr_t stream) {
        cuda::confusion_matrix(pointer<int64>(matrix), pointer<int>(prediction),
                               pointer<int>(label), total, num_classes, ignore_label,
                               pointer<CUstream_st>(stream));
      },
      py::call_guard<py::gil_scoped_release>());
#endif
}
