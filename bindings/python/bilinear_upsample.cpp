#include "bilinear_upsample.h"

#include "arrays.h"

void bind_bilinear_upsample(py::module_& m) {
  using namespace cvops;
  m.def("bilinear_upsample",
        [](Floats out, Floats data, int64 planes, int height, int width, int scale) {
          float* to = out.mutable_data();
          py::gil_scoped_release release;
          cpu::bilinear_upsample(to, data.data(), planes, height, width, scale);
        });
  m.def("bilinear_upsample_backward",
        [](Floats grad, Floats out_grad, int64 planes, int height, int width, int scale) {
          float* to = grad.mutable_data();
          py::gil_scoped_release release;
          cpu::bilinear_upsample_backward(to, out_grad.data(), planes, height, width, scale);
        });
#ifdef CVOPS_CUDA
  m.def("bilinear_upsample_cuda", [](std::uintptr_t out, std::uintptr_t data, int64 planes,
                                     int height, int width, int scale, std::uintptr_t stream) {
    cuda::bilinear_upsample(pointer<float>(out), pointer<float>(data), planes, height, width, scale,
                            pointer<CUstream_st>(stream));
  });
  m.def("bilinear_upsample_backward_cuda",
        [](std::uintptr_t grad, std::uintptr_t out_grad, int64 planes, int height, int width,
           int scale, std::uintptr_t stream) {
          cuda::bilinear_upsample_backward(pointer<float>(grad), pointer<float>(out_grad), planes,
                                           height, width, scale, pointer<CUstream_st>(stream));
        });
#endif
}
