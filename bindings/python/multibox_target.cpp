#include "multibox_target.h"

#include "arrays.h"

void bind_multibox_target(py::module_& m) {
  using namespace cvops;
  py::class_<TargetShape>(m, "TargetShape", py::module_local())
      .def(py::init<int, int, int, int, int>());
  py::class_<TargetOptions>(m, "TargetOptions", py::module_local())
      .def(py::init<float, float, float, float, float, float, float, float>());
  m.def("multibox_target",
        [](Floats loc_target, Floats loc_mask, Floats cls_target, Floats anchor, Floats label,
           Floats cls_pred, TargetShape shape, TargetOptions options) {
          TargetOutputs out = {loc_target.mutable_data(), loc_mask.mutable_data(),
                               cls_target.mutable_data()};
          TargetInputs in = {anchor.data(), label.data(), cls_pred.data()};
          py::gil_scoped_release release;
          cpu::multibox_target(out, in, shape, options);
        });
#ifdef CVOPS_CUDA
  m.def("multibox_target_workspace", &cuda::multibox_target_workspace);
  m.def("multibox_target_cuda",
        [](std::uintptr_t loc_target, std::uintptr_t loc_mask, std::uintptr_t cls_target,
           std::uintptr_t anchor, std::uintptr_t label, std::uintptr_t cls_pred, TargetShape shape,
           TargetOptions options, std::uintptr_t workspace, std::uintptr_t stream) {
          TargetOutputs out = {pointer<float>(loc_target), pointer<float>(loc_mask),
                               pointer<float>(cls_target)};
          TargetInputs in = {pointer<float>(anchor), pointer<float>(label),
                             pointer<float>(cls_pred)};
          cuda::multibox_target(out, in, shape, options, pointer<void>(workspace),
                                pointer<CUstream_st>(stream));
        });
#endif
}
