#include "box_nms.h"

#include "arrays.h"

void bind_box_nms(py::module_& m) {
  using namespace cvops;
  py::class_<NmsColumns>(m, "NmsColumns", py::module_local())
      .def(py::init([](int width, int score, int coord, int id) {
        return NmsColumns{width, score, coord, id};
      }));
  m.def("box_nms",
        [](Floats out, Ints index, Floats data, int64 batch, int64 num, NmsColumns columns,
           NmsRule rule, float valid_thresh, float background_id, int conversion, int limit) {
          float* to = out.mutable_data();
          int* at = index.size() ? index.mutable_data() : nullptr;
          py::gil_scoped_release release;
          cpu::box_nms(to, at, data.data(), batch, num,
                       {columns, rule, valid_thresh, background_id, conversion, limit});
        });
  m.def("box_nms_backward",
        [](Floats grad, Floats out_grad, Ints index, int64 batch, int64 num, int width) {
          float* to = grad.mutable_data();
          py::gil_scoped_release release;
          cpu::box_nms_backward(to, out_grad.data(), index.data(), batch, num, width);
        });
#ifdef CVOPS_CUDA
  m.def("box_nms_workspace", &cuda::box_nms_workspace);
  m.def("box_nms_cuda",
        [](std::uintptr_t out, std::uintptr_t index, std::uintptr_t workspace, std::uintptr_t data,
           int64 batch, int64 num, NmsColumns columns, NmsRule rule, float valid_thresh,
           float background_id, int conversion, int limit, std::uintptr_t stream) {
          cuda::box_nms(pointer<float>(out), pointer<int>(index), pointer<void>(workspace),
                        pointer<float>(data), batch, num,
                        {columns, rule, valid_thresh, background_id, conversion, limit},
                        pointer<CUstream_st>(stream));
        });
  m.def("box_nms_backward_cuda", [](std::uintptr_t grad, std::uintptr_t out_grad,
                                    std::uintptr_t index, int64 batch, int64 num, int width,
                                    std::uintptr_t stream) {
    cuda::box_nms_backward(pointer<float>(grad), pointer<float>(out_grad), pointer<int>(index),
                           batch, num, width, pointer<CUstream_st>(stream));
  });
#endif
}
