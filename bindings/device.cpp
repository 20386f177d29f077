// Which GPU the CUDA half of the extension works on.
#ifdef CVOPS_CUDA
#include <cuda_runtime.h>
#include <pybind11/pybind11.h>

#include "launch.h"

// 0 where there is no GPU or no driver.
static int device_count() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

// Makes `device` current for this thread; the one that was.
static int set_device(int device) {
  int before = 0;
  cvops::cuda::check(cudaGetDevice(&before), "cudaGetDevice");
  if (device != before) cvops::cuda::check(cudaSetDevice(device), "cudaSetDevice");
  return before;
}

static void synchronize() {
  cvops::cuda::check(cudaStreamSynchronize(nullptr), "cudaStreamSynchronize");
}

void bind_device(pybind11::module_& m) {
  m.def("device_count", &device_count);
  m.def("set_device", &set_device);
  m.def("synchronize", &synchronize, pybind11::call_guard<pybind11::gil_scoped_release>());
}
#endif
