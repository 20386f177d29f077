#include "box_iou.h"

#include "arrays.h"

void bind_box_iou(py::module_& m) {
  using namespace cvops;
  m.def("box_iou",
        [](Array<float> out, Array<const float> lhs, Array<const float> rhs, bool center) {
          py::gil_scoped_release release;
          cpu::box_iou(out.data, lhs.data, rhs.data, lhs.size / 4, rhs.size / 4, center);
        });
#ifdef CVOPS_CUDA
  m.def(
      "box_iou_cuda",
      [](std::uintptr_t out, std::uintptr_t lhs, std::uintptr_t rhs, int64 num_lhs, int64 num_rhs,
         bool center, std::uintptr_t stream) {
        cuda::box_iou(pointer<float>(out), pointer<float>(lhs), pointer<float>(rhs), num_lhs,
                      num_rhs, center, pointer<CUstream_st>(stream));
      },
      py::call_guard<py::gil_scoped_release>());
#endif
}
