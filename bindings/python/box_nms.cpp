#include "box_nms.h"

#include "arrays.h"

void bind_box_nms(py::module_& m) {
  using namespace cvops;
  py::class_<NmsColumns>(m, "NmsColumns", py::module_local())
      .def(py::init([](int width, int score, int coord, int id) {
        return NmsColumns{width, score, coord, id};
      }));
  m.def("box_nms", [](Floats out, Floats data, NmsColumns columns, NmsRule rule, float valid_thresh,
                      float background_id, int conversion, int limit) {
    const int64 num = data.shape(data.ndim() - 2), batch = data.size() / (num * columns.width);
    float* to = out.mutable_data();
    py::gil_scoped_release release;
    cpu::box_nms(to, data.data(), batch, num,
                 {columns, rule, valid_thresh, background_id, conversion, limit});
  });
#ifdef CVOPS_CUDA
  m.def("box_nms_workspace", &cuda::box_nms_workspace);
  m.def("box_nms_cuda",
        [](std::uintptr_t out, std::uintptr_t workspace, std::uintptr_t data, int64 batch,
           int64 num, NmsColumns columns, NmsRule rule, float valid_thresh, float background_id,
           int conversion, int limit, std::uintptr_t stream) {
          cuda::box_nms(pointer<float>(out), pointer<void>(workspace), pointer<float>(data), batch,
                        num, {columns, rule, valid_thresh, background_id, conversion, limit},
                        pointer<CUstream_st>(stream));
        });
#endif
}
