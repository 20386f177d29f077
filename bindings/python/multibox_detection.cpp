#include "multibox_detection.h"

#include "arrays.h"

void bind_multibox_detection(py::module_& m) {
  using namespace cvops;
  py::class_<Variances>(m, "Variances", py::module_local())
      .def(py::init([](float x, float y, float w, float h) { return Variances{x, y, w, h}; }));
  m.def("multibox_detection",
        [](Floats out, Floats cls_prob, Floats loc_pred, Floats anchor, bool clip, float threshold,
           Variances variances, NmsRule rule, bool suppresses, int limit) {
          float* to = out.mutable_data();
          Predictions in = {cls_prob.data(),   loc_pred.data(),   anchor.data(),
                            cls_prob.shape(0), cls_prob.shape(1), cls_prob.shape(2)};
          py::gil_scoped_release release;
          cpu::multibox_detection(to, in, {clip, threshold, variances, rule, suppresses, limit});
        });
#ifdef CVOPS_CUDA
  m.def("multibox_detection_workspace", &cuda::multibox_detection_workspace);
  m.def("multibox_detection_cuda",
        [](std::uintptr_t out, std::uintptr_t workspace, std::uintptr_t cls_prob,
           std::uintptr_t loc_pred, std::uintptr_t anchor, int64 batch, int64 classes, int64 num,
           bool clip, float threshold, Variances variances, NmsRule rule, bool suppresses,
           int limit, std::uintptr_t stream) {
          Predictions in = {pointer<float>(cls_prob),
                            pointer<float>(loc_pred),
                            pointer<float>(anchor),
                            batch,
                            classes,
                            num};
          cuda::multibox_detection(pointer<float>(out), pointer<void>(workspace), in,
                                   {clip, threshold, variances, rule, suppresses, limit},
                                   pointer<CUstream_st>(stream));
        });
#endif
}
