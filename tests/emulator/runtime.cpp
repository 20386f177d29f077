#include "runtime.h"

#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <utility>

namespace {

thread_local cudaError_t last_error = cudaSuccess;
thread_local std::string last_launch_error;

cudaError_t remember(cudaError_t error) {
  if (error != cudaSuccess) last_error = error;
  return error;
}

// What cudaFuncSetAttribute allowed.
std::mutex allowed_mutex;
std::map<const void*, std::size_t> allowed_dynamic_shared;

std::size_t dynamic_shared_limit(const void* kernel) {
  const std::lock_guard<std::mutex> lock(allowed_mutex);
  const auto found = allowed_dynamic_shared.find(kernel);
  return found == allowed_dynamic_shared.end() ? 48 << 10 : found->second;
}

unsigned from_environment(const char* name) {
  const char* value = std::getenv(name);
  return value ? static_cast<unsigned>(std::strtoul(value, nullptr, 10)) : 0;
}

}  // namespace

cudaError_t emulator::launch(const cudaLaunchConfig_t& config, const void* kernel,
                             const std::function<void()>& body) {
  Launch launch{config.gridDim, config.blockDim, config.dynamicSmemBytes};
  launch.seed = from_environment("CVOPS_EMULATOR_SEED");
  launch.os_threads = from_environment("CVOPS_EMULATOR_THREADS");
  if (launch.shared > dynamic_shared_limit(kernel)) return remember(cudaErrorInvalidValue);
  last_launch_error = invalid_configuration(launch);
  if (!last_launch_error.empty()) return remember(cudaErrorInvalidConfiguration);
  last_launch_error = run(launch, body);
  return last_launch_error.empty() ? cudaSuccess : remember(cudaErrorLaunchFailure);
}

cudaError_t emulator::allow_dynamic_shared(const void* kernel, int bytes) {
  if (bytes < 0 || static_cast<std::size_t>(bytes) > kMaxDynamicShared) {
    return remember(cudaErrorInvalidValue);
  }
  const std::lock_guard<std::mutex> lock(allowed_mutex);
  allowed_dynamic_shared[kernel] = bytes;
  return cudaSuccess;
}

cudaError_t cudaPeekAtLastError() { return last_error; }
cudaError_t cudaGetLastError() { return std::exchange(last_error, cudaSuccess); }

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorInvalidValue:
      return "invalid argument";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorInvalidDevice:
      return "invalid device ordinal";
    case cudaErrorInvalidConfiguration:
    case cudaErrorLaunchFailure:
      return last_launch_error.c_str();
  }
  return "unrecognized error code";
}

cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t) {
  if (bytes) std::memset(to, value, bytes);
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind,
                            cudaStream_t) {
  if (bytes) std::memcpy(to, from, bytes);
  return cudaSuccess;
}

cudaError_t cudaMallocAsync(void** memory, std::size_t bytes, cudaStream_t) {
  *memory = std::malloc(bytes);
  return *memory || !bytes ? cudaSuccess : remember(cudaErrorMemoryAllocation);
}

cudaError_t cudaFreeAsync(void* memory, cudaStream_t) {
  std::free(memory);
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
  return device == 0 ? cudaSuccess : remember(cudaErrorInvalidDevice);
}

// A block may have what a launch may. Few multiprocessors, so that a grid as wide as the device is
// soon done.
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  *value = attribute == cudaDevAttrMultiProcessorCount
               ? 4
               : static_cast<int>(emulator::kMaxDynamicShared);
  return cudaSuccess;
}
