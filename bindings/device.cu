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

void set_to_zero(void* memory, int64 bytes, cudaStream_t stream) {
  check(cudaMemsetAsync(memory, 0, bytes, stream), "cudaMemsetAsync");
}

void copy(void* to, const void* from, int64 bytes, cudaStream_t stream) {
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream), "cudaMemcpyAsync");
}

}  // namespace cvops::cuda
