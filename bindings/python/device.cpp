#include "device.h"

#include "arrays.h"

void bind_device(py::module_& m) {
#ifdef CVOPS_CUDA
  using namespace cvops;
  m.attr("has_cuda") = true;
  m.def("device_count", &cuda::device_count);
  m.def("set_device", &cuda::set_device);
  m.def("synchronize", &cuda::synchronize, py::call_guard<py::gil_scoped_release>());
#else
  m.attr("has_cuda") = false;
#endif
}
