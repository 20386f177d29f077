#include "box_nms.h"

#include "nms_rule.h"

template <>
struct pybind11::detail::type_caster<cvops::NmsColumns>
    : cvops::FromTuple<cvops::NmsColumns, int, int, int, int> {};

void bind_box_nms(py::module_& m) {
  using namespace cvops;
  m.def("box_nms", [](Array<float> out, Array<int> index, Array<const float> data, int64 batch,
                      int64 num, NmsColumns columns, NmsRule rule, float valid_thresh,
                      float background_id, int conversion, int limit) {
    py::gil_scoped_release release;
    cpu::box_nms(out.data, index.data, data.data, batch, num,
                 {columns, rule, valid_thresh, background_id, conversion, limit});
  });
  m.def("box_nms_backward", [](Array<float> grad, Array<const float> out_grad,
                               Array<const int> index, int64 batch, int64 num, int width) {
    py::gil_scoped_release release;
    cpu::box_nms_backward(grad.data, out_grad.data, index.data, batch, num, width);
  });
#ifdef CVOPS_CUDA
  m.def("box_nms_workspace", &cuda::box_nms_workspace);
  m.def(
      "box_nms_cuda",
      [](std::uintptr_t out, std::uintptr_t index, std::uintptr_t workspace, std::uintptr_t data,
         int64 batch, int64 num, NmsColumns columns, NmsRule rule, float valid_thresh,
         float background_id, int conversion, int limit, std::uintptr_t stream) {
        cuda::box_nms(pointer<float>(out), pointer<int>(index), pointer<void>(workspace),
                      pointer<float>(data), batch, num,
                      {columns, rule, valid_thresh, background_id, conversion, limit},
                      pointer<CUstream_st>(stream));
      },
      py::call_guard<py::gil_scoped_release>());
  m.def(
      "box_nms_backward_cuda",
      [](std::uintptr_t grad, std::uintptr_t out_grad, std::uintptr_t index, int64 batch, int64 num,
         int width, std::uintptr_t stream) {
        cuda::box_nms_backward(pointer<float>(grad), pointer<float>(out_grad), pointer<int>(index),
                               batch, num, width, pointer<CUstream_st>(stream));
      },
      py::call_guard<py::gil_scoped_release>());
#endif
}
