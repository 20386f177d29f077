#include "roi_pooling.h"

#include "arrays.h"

void bind_roi_pooling(py::module_& m) {
  using namespace cvops;
  py::class_<RoiPooling>(m, "RoiPooling", py::module_local())
      .def(py::init<int, int, int, int, int, int, float>());
  py::class_<RoiPoolingGrad>(m, "RoiPoolingGrad", py::module_local())
      .def(py::init<int64, int, int, int, int>());
  m.def("roi_pooling", [](Floats pooled, Ints argmax, Floats data, Floats rois, RoiPooling op) {
    float* to = pooled.mutable_data();
    int* at = argmax.size() ? argmax.mutable_data() : nullptr;
    int64 num_rois = rois.size() / 5;
    py::gil_scoped_release release;
    cpu::roi_pooling(to, at, data.data(), rois.data(), num_rois, op);
  });
  m.def("roi_pooling_backward", [](Floats grad, Floats out_grad, Ints argmax, RoiPoolingGrad size) {
    float* to = grad.mutable_data();
    py::gil_scoped_release release;
    cpu::roi_pooling_backward(to, out_grad.data(), argmax.data(), size);
  });
#ifdef CVOPS_CUDA
  m.def("roi_pooling_cuda",
        [](std::uintptr_t pooled, std::uintptr_t argmax, std::uintptr_t data, std::uintptr_t rois,
           int64 num_rois, RoiPooling op, std::uintptr_t stream) {
          cuda::roi_pooling(pointer<float>(pooled), pointer<int>(argmax), pointer<float>(data),
                            pointer<float>(rois), num_rois, op, pointer<CUstream_st>(stream));
        });
  m.def("roi_pooling_backward_cuda",
        [](std::uintptr_t grad, std::uintptr_t out_grad, std::uintptr_t argmax, RoiPoolingGrad size,
           std::uintptr_t stream) {
          cuda::roi_pooling_backward(pointer<float>(grad), pointer<float>(out_grad),
                                     pointer<int>(argmax), size, pointer<CUstream_st>(stream));
        });
#endif
}
