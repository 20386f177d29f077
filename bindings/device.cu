#include "device.h"

#include "launch.h"

namespace cvops::cuda {

int device_count() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

int set_device(int device) {
  int before = 0;
  check(cudaGetDevice(&before), "cudaGetDevice");
  if (device != before) check(cudaSetDevice(device), "cudaSetDevice");
  return before;
}

void synchronize() { check(cudaStreamSynchronize(nullptr), "cudaStreamSynchronize"); }

}  // namespace cvops::cuda
