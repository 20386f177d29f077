#include "bilinear_upsample.h"

#include "arrays.h"

void bind_bilinear_upsample(py::module_& m) {
  using namespace cvops;
  m.def("bilinear_upsample", [](Array<float> out, Array<const float> data, int64 planes, int height,
                                int width, int scale) {
    py::gil_scoped_release release;
    cpu::bilinear_upsample(out.data, data.data, planes, height, width, scale);
  });
  m.def("bilinear_upsample_backward", [](Array<float> grad, Array<const float> out_grad,
                                         int64 planes, int height, int width, int scale) {
    py::gil_scoped_release release;
    cpu::bilinear_upsample_backward(grad.data, out_grad.data, planes, height, width, scale);
  });
#ifdef CVOPS_CUDA
  m.def(
      "bilinear_upsample_cuda",
      [](std::uintptr_t out, std::uintptr_t data, int64 planes, int height, int width, int scale,
         std::uintptr_t stream) {
        cuda::bilinear_upsample(pointer<float>(out), pointer<float>(data), planes, height, width,
                                scale, pointer<CUstream_st>(stream));
      },
      py::call_guard<py::gil_scoped_release>());
  m.def(
      "bilinear_upsample_backward_cuda",
      [](std::uintptr_t grad, std::uintptr_t out_grad, int64 planes, int height, int width,
         int scale, std::uintptr_t stream) {
        cuda::bilinear_upsample_backward(pointer<float>(grad), pointer<float>(out_grad), planes,
                                         height, width, scale, pointer<CUstream_st>(stream));
      },
      py::call_guard<py::gil_scoped_release>());
#endif
}
