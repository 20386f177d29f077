#include "multibox_target.h"

#include "arrays.h"

template <>
struct pybind11::detail::type_caster<cvops::TargetShape>
    : cvops::FromTuple<cvops::TargetShape, int, int, int, int, int> {};

template <>
struct pybind11::detail::type_caster<cvops::TargetOptions>
    : cvops::FromTuple<cvops::TargetOptions, float, float, float, float, float, float, float,
                       float> {};

void bind_multibox_target(py::module_& m) {
  using namespace cvops;
  m.def("multibox_target",
        [](Array<float> loc_target, Array<float> loc_mask, Array<float> cls_target,
           Array<const float> anchor, Array<const float> label, Array<const float> cls_pred,
           TargetShape shape, TargetOptions options) {
          py::gil_scoped_release release;
          cpu::multibox_target({loc_target.data, loc_mask.data, cls_target.data},
                               {anchor.data, label.data, cls_pred.data}, shape, options);
        });
  m.def("half_padded_row", [](Array<const float> label) {
    return cpu::half_padded_row(label.data, label.shape[0], label.shape[1], label.shape[2]);
  });
#ifdef CVOPS_CUDA
  m.def("multibox_target_workspace", &cuda::multibox_target_workspace);
  m.def(
      "multibox_target_cuda",
      [](std::uintptr_t loc_target, std::uintptr_t loc_mask, std::uintptr_t cls_target,
         std::uintptr_t anchor, std::uintptr_t label, std::uintptr_t cls_pred, TargetShape shape,
         TargetOptions options, std::uintptr_t workspace, std::uintptr_t stream) {
        TargetOutputs out = {pointer<float>(loc_target), pointer<float>(loc_mask),
                             pointer<float>(cls_target)};
        TargetInputs in = {pointer<float>(anchor), pointer<float>(label), pointer<float>(cls_pred)};
        cuda::multibox_target(out, in, shape, options, pointer<void>(workspace),
                              pointer<CUstream_st>(stream));
      },
      py::call_guard<py::gil_scoped_release>());
#endif
}
