// The part of the CUDA runtime that bindings/ call.
#pragma once

#include <cstddef>
#include <functional>
#include <initializer_list>
#include <tuple>
#include <type_traits>

#include "grid.h"
#include "shared_memory.h"

using cudaStream_t = struct CUstream_st*;

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorInvalidDevice = 101,
  cudaErrorInvalidResourceHandle = 400,
  cudaErrorIllegalAddress = 700,
  cudaErrorLaunchFailure = 719,
};

enum cudaMemcpyKind {
  cudaMemcpyHostToHost,
  cudaMemcpyHostToDevice,
  cudaMemcpyDeviceToHost,
  cudaMemcpyDeviceToDevice,
  cudaMemcpyDefault,
};

enum cudaStreamCaptureStatus { cudaStreamCaptureStatusNone = 0 };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount = 16,
  cudaDevAttrMaxSharedMemoryPerBlockOptin = 97,
};

// Without what CUDA 13 reserves behind it.
struct cudaPointerAttributes {
  int type, device;
  void *devicePointer, *hostPointer;
};

// As far as bindings/ look at it.
struct cudaFuncAttributes {
  std::size_t sharedSizeBytes;
};

struct cudaLaunchAttribute {};

struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  std::size_t dynamicSmemBytes;
  cudaStream_t stream;
  cudaLaunchAttribute* attrs;
  unsigned numAttrs;
};

extern "C" {

cudaError_t cudaGetLastError();
cudaError_t cudaPeekAtLastError();
const char* cudaGetErrorString(cudaError_t error);  // of a launch, all that the emulator found

cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t stream = nullptr);
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream = nullptr);
cudaError_t cudaMallocAsync(void** memory, std::size_t bytes, cudaStream_t stream);
cudaError_t cudaFreeAsync(void* memory, cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaDeviceSynchronize();

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* pointer);

cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaGetDevice(int* device);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);

// Calls a function in the order of a stream. Here all kernels are launched by it.
cudaError_t cudaLaunchHostFunc(cudaStream_t stream, void (*function)(void*), void* data);
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status);

}  // extern "C"

namespace emulator {

// `pointers` are the arguments that are pointers, which have to point to the device's memory.
cudaError_t launch(const cudaLaunchConfig_t& config, const void* kernel,
                   const std::function<void()>& body, std::initializer_list<const void*> pointers);
cudaError_t allow_dynamic_shared(const void* kernel, int bytes);

template <typename Param>
const void* pointer_or_null(Param value) {
  if constexpr (std::is_pointer_v<Param>) return value;
  return nullptr;
}

}  // namespace emulator

template <typename... Params, typename... Args>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Params...),
                               const Args&... args) {
  const std::tuple<Params...> values(static_cast<Params>(args)...);
  return emulator::launch(*config, reinterpret_cast<const void*>(kernel),
                          [=] { std::apply(kernel, values); },
                          {emulator::pointer_or_null(static_cast<Params>(args))...});
}

template <typename... Params>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, void (*kernel)(Params...)) {
  attributes->sharedSizeBytes = emulator::static_shared(reinterpret_cast<const void*>(kernel));
  return cudaSuccess;
}

template <typename... Params>
cudaError_t cudaFuncSetAttribute(void (*kernel)(Params...), cudaFuncAttribute, int value) {
  return emulator::allow_dynamic_shared(reinterpret_cast<const void*>(kernel), value);
}
