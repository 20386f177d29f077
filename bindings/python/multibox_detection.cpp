#include "multibox_detection.h"

#include "nms_rule.h"

template <>
struct pybind11::detail::type_caster<cvops::Variances>
    : cvops::FromTuple<cvops::Variances, float, float, float, float> {};

void bind_multibox_detection(py::module_& m) {
  using namespace cvops;
  m.def("multibox_detection", [](Array<float> out, Array<const float> cls_prob,
                                 Array<const float> loc_pred, Array<const float> anchor, bool clip,
                                 float threshold, Variances variances, NmsRule rule,
                                 bool suppresses, int limit) {
    py::gil_scoped_release release;
    Predictions in = {cls_prob.data,     loc_pred.data,     anchor.data,
                      cls_prob.shape[0], cls_prob.shape[1], cls_prob.shape[2]};
    cpu::multibox_detection(out.data, in, {clip, threshold, variances, rule, suppresses, limit});
  });
#ifdef CVOPS_CUDA
  m.def("multibox_detection_workspace", &cuda::multibox_detection_workspace);
  m.def(
      "multibox_detection_cuda",
      [](std::uintptr_t out, std::uintptr_t workspace, std::uintptr_t cls_prob,
         std::uintptr_t loc_pred, std::uintptr_t anchor, int64 batch, int64 classes, int64 num,
         bool clip, float threshold, Variances variances, NmsRule rule, bool suppresses, int limit,
         std::uintptr_t stream) {
        Predictions in = {pointer<float>(cls_prob),
                          pointer<float>(loc_pred),
                          pointer<float>(anchor),
                          batch,
                          classes,
                          num};
        cuda::multibox_detection(pointer<float>(out), pointer<void>(workspace), in,
                                 {clip, threshold, variances, rule, suppresses, limit},
                                 pointer<CUstream_st>(stream));
      },
      py::call_guard<py::gil_scoped_release>());
#endif
}
