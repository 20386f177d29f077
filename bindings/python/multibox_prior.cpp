#include "multibox_prior.h"

#include "arrays.h"

void bind_multibox_prior(py::module_& m) {
  using namespace cvops;
  py::class_<PriorGrid>(m, "PriorGrid", py::module_local())
      .def(py::init<int, int, float, float, float, float>());
  m.def("multibox_prior", [](Floats out, PriorGrid grid, Floats size, Floats ratio, bool clip) {
    float* to = out.mutable_data();
    py::gil_scoped_release release;
    cpu::multibox_prior(to, grid, {size.data(), ratio.data(), (int)size.size()}, clip);
  });
#ifdef CVOPS_CUDA
  m.def("multibox_prior_cuda", [](std::uintptr_t out, PriorGrid grid, Floats size, Floats ratio,
                                  bool clip, std::uintptr_t stream) {
    cuda::multibox_prior(pointer<float>(out), grid, {size.data(), ratio.data(), (int)size.size()},
                         clip, pointer<CUstream_st>(stream));
  });
#endif
}
