#include "multiclass_nms.h"

#include "nms_rule.h"

template <>
struct pybind11::detail::type_caster<cvops::Candidates>
    : cvops::FromTuple<cvops::Candidates, float, int, int> {};

void bind_multiclass_nms(py::module_& m) {
  using namespace cvops;
  m.def("multiclass_nms",
        [](Array<float> out, Array<int> counts, Array<const float> boxes, Array<const float> scores,
           Candidates candidates, NmsRule rule, int most, int rows) {
          py::gil_scoped_release release;
          cpu::multiclass_nms(
              out.data, counts.data,
              {boxes.data, scores.data, scores.shape[0], scores.shape[1], scores.shape[2]},
              {candidates, rule, most, rows});
        });
#ifdef CVOPS_CUDA
  m.def("multiclass_nms_workspace", &cuda::multiclass_nms_workspace);
  m.def(
      "multiclass_nms_cuda",
      [](std::uintptr_t out, std::uintptr_t counts, std::uintptr_t workspace, std::uintptr_t boxes,
         std::uintptr_t scores, int64 batch, int64 classes, int64 num, Candidates candidates,
         NmsRule rule, int most, int rows, std::uintptr_t stream) {
        cuda::multiclass_nms(pointer<float>(out), pointer<int>(counts), pointer<void>(workspace),
                             {pointer<float>(boxes), pointer<float>(scores), batch, classes, num},
                             {candidates, rule, most, rows}, pointer<CUstream_st>(stream));
      },
      py::call_guard<py::gil_scoped_release>());
#endif
}
