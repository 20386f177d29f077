#include "roi_pooling.h"

#include "arrays.h"

template <>
struct pybind11::detail::type_caster<cvops::RoiPooling>
    : cvops::FromTuple<cvops::RoiPooling, int, int, int, int, int, int, float> {};

template <>
struct pybind11::detail::type_caster<cvops::RoiPoolingGrad>
    : cvops::FromTuple<cvops::RoiPoolingGrad, int64_t, int, int, int, int> {};

void bind_roi_pooling(py::module_& m) {
  using namespace cvops;
  m.def("roi_pooling", [](Array<float> pooled, Array<int> argmax, Array<const float> data,
                          Array<const float> rois, RoiPooling op) {
    py::gil_scoped_release release;
    cpu::roi_pooling(pooled.data, argmax.data, data.data, rois.data, rois.shape[0], op);
  });
  m.def("roi_pooling_backward", [](Array<float> grad, Array<const float> out_grad,
                                   Array<const int> argmax, RoiPoolingGrad size) {
    py::gil_scoped_release release;
    cpu::roi_pooling_backward(grad.data, out_grad.data, argmax.data, size);
  });
#ifdef CVOPS_CUDA
  m.def(
      "roi_pooling_cuda",
      [](std::uintptr_t pooled, std::uintptr_t argmax, std::uintptr_t data, std::uintptr_t rois,
         int64 num_rois, RoiPooling op, std::uintptr_t stream) {
        cuda::roi_pooling(pointer<float>(pooled), pointer<int>(argmax), pointer<float>(data),
                          pointer<float>(rois), num_rois, op, pointer<CUstream_st>(stream));
      },
      py::call_guard<py::gil_scoped_release>());
  m.def(
      "roi_pooling_backward_cuda",
      [](std::uintptr_t grad, std::uintptr_t out_grad, std::uintptr_t argmax, RoiPoolingGrad size,
         std::uintptr_t stream) {
        cuda::roi_pooling_backward(pointer<float>(grad), pointer<float>(out_grad),
                                   pointer<int>(argmax), size, pointer<CUstream_st>(stream));
      },
      py::call_guard<py::gil_scoped_release>());
#endif
}
