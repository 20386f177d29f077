#include "runtime.h"

#include <cstdlib>
#include <functional>
#include <map>
#include <memory>
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
  if (found != allowed_dynamic_shared.end()) return found->second;
  return (48 << 10) - emulator::static_shared(kernel);
}

struct Work {
  emulator::Launch launch;
  std::function<void()> body;
};

void do_work(void* data) {
  const auto* work = static_cast<const Work*>(data);
  last_launch_error = run(work->launch, work->body);
}

unsigned from_environment(const char* name) {
  const char* value = std::getenv(name);
  return value ? static_cast<unsigned>(std::strtoul(value, nullptr, 10)) : 0;
}

}  // namespace

cudaError_t emulator::launch(const cudaLaunchConfig_t& config, const void* kernel,
                             const std::function<void()>& body,
                             std::initializer_list<const void*> pointers) {
  Launch launch{config.gridDim, config.blockDim, config.dynamicSmemBytes};
  launch.seed = from_environment("CVOPS_EMULATOR_SEED");
  launch.os_threads = from_environment("CVOPS_EMULATOR_THREADS");
  if (launch.shared) launch.static_shared = static_shared(kernel);
  if (launch.shared && launch.shared > dynamic_shared_limit(kernel))
    return remember(cudaErrorInvalidValue);
  last_launch_error = invalid_configuration(launch);
  if (!last_launch_error.empty()) return remember(cudaErrorInvalidConfiguration);
  for (const void* pointer : pointers) {
    int device = 0;
    cudaPointerAttributes attributes = {};
    if (!pointer) continue;
    cudaGetDevice(&device);
    cudaPointerGetAttributes(&attributes, pointer);
    if (attributes.device != device) return remember(cudaErrorIllegalAddress);
  }
  auto work = std::make_unique<Work>(Work{launch, body});
  cudaStreamCaptureStatus capture = {};
  cudaError_t error = cudaStreamIsCapturing(config.stream, &capture);
  if (error == cudaSuccess) error = cudaLaunchHostFunc(config.stream, do_work, work.get());
  if (error != cudaSuccess) return remember(error);
  // A graph may be launched at any time.
  if (capture != cudaStreamCaptureStatusNone) work.release();
  return last_launch_error.empty() ? cudaSuccess : remember(cudaErrorLaunchFailure);
}

cudaError_t emulator::allow_dynamic_shared(const void* kernel, int bytes) {
  if (bytes < 0 || static_cast<std::size_t>(bytes) + static_shared(kernel) > kMaxShared) {
    return remember(cudaErrorInvalidValue);
  }
  const std::lock_guard<std::mutex> lock(allowed_mutex);
  allowed_dynamic_shared[kernel] = bytes;
  return cudaSuccess;
}

extern "C" {

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
    case cudaErrorInvalidResourceHandle:
      return "invalid resource handle";
    case cudaErrorIllegalAddress:
      return "an illegal memory access was encountered";
    case cudaErrorInvalidConfiguration:
    case cudaErrorLaunchFailure:
      return last_launch_error.c_str();
  }
  return "unrecognized error code";
}

}  // extern "C"
