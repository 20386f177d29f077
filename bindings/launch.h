// The one place that launches kernels, and that turns what CUDA reports into C++ exceptions.
// The tests' emulator gives its own cuda_runtime.h, so that the same text runs on a CPU.
#pragma once
#include <cuda_runtime.h>

#include <stdexcept>
#include <string>
#include <string_view>

namespace cvops::cuda {

inline void check(cudaError_t error, std::string_view what) {
  if (error != cudaSuccess) {
    throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(error));
  }
}

inline std::string text(dim3 d) {
  return "(" + std::to_string(d.x) + ", " + std::to_string(d.y) + ", " + std::to_string(d.z) + ")";
}

// Of the current device.
inline int device_attribute(cudaDeviceAttr attribute) {
  int device = 0, value = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  check(cudaDeviceGetAttribute(&value, attribute, device), "cudaDeviceGetAttribute");
  return value;
}

// The bytes of dynamic shared memory that a block of the kernel may have at most, which is what its
// static shared memory leaves.
template <typename... Params>
int most_dynamic_shared(void (*kernel)(Params...)) {
  cudaFuncAttributes own = {};
  check(cudaFuncGetAttributes(&own, kernel), "cudaFuncGetAttributes");
  return device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin) - (int)own.sharedSizeBytes;
}

// Queues kernel<<<grid, block, shared, stream>>>(args...). Nothing to do if a grid's size is 0.
template <typename... Params, typename... Args>
void launch(const char* name, void (*kernel)(Params...), dim3 grid, dim3 block, size_t shared,
            cudaStream_t stream, Args... args) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared;
  config.stream = stream;
  // CUDA allows more only after this call. It always asks for the maximum, so that threads which
  // launch the kernel at once agree.
  if (shared > 48 << 10) {
    const int most = most_dynamic_shared(kernel);
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most), name);
  }
  const cudaError_t error = cudaLaunchKernelEx(&config, kernel, static_cast<Params>(args)...);
  if (error != cudaSuccess) {  // or the text would take longer than the launch
    check(error, std::string(name) + "<<<" + text(grid) + ", " + text(block) + ", " +
                     std::to_string(shared) + ">>>");
  }
}

}  // namespace cvops::cuda
