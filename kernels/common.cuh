// Definitions for every kernel file. Three compilers read it: NVRTC (through CuPy), nvcc (the
// extension) and a plain C++ compiler. The last one builds the CPU path and the emulator of the
// tests, which defines __CUDACC__. NVRTC has no standard headers, so no kernel file includes one
// where __CUDACC__ is defined.
#pragma once

#ifdef __CUDACC__
#define CVOPS_HD __host__ __device__ __forceinline__
// Dynamic shared memory: the launch gives its size. The emulator defines its own version.
#ifndef CVOPS_DYNAMIC_SHARED
#define CVOPS_DYNAMIC_SHARED(T, name) extern __shared__ T name[]
#endif
#define CVOPS_KERNEL extern "C" __global__ void
#else
#include <cmath>
// A function with vectors (see simd.h) must not call a copy that is compiled without them.
#define CVOPS_HD inline __attribute__((always_inline))
// Prototype of a kernel. bindings/cuda/ takes the types of the launch arguments from it.
#define CVOPS_KERNEL extern "C" void
#endif

// Size at which a kernel or a launch takes another path or one more step. CVOPS_SMALL_STEPS selects
// the second value. The tests then reach both sides of each size with small inputs.
#ifdef CVOPS_SMALL_STEPS
#define CVOPS_STEP(size, small) small
#else
#define CVOPS_STEP(size, small) size
#endif

namespace cvops {

using int64 = long long;
using uint64 = unsigned long long;
using uint32 = unsigned int;

// Maximum and minimum with MXNet's rule for NaN: the comparison is false, so the result is the
// second operand. fminf and fmaxf would return the number instead.
template <typename T>
CVOPS_HD T larger(T a, T b) {
  return a > b ? a : b;
}
template <typename T>
CVOPS_HD T smaller(T a, T b) {
  return a < b ? a : b;
}

// x rounded toward zero. NaN and values outside the range of int give the smallest int, as on x86.
template <typename T>
CVOPS_HD int truncated(T x) {
  return x >= -2147483648.0f && x < 2147483648.0f ? (int)x : -2147483647 - 1;
}

// The bits of `from` as a T of the same size.
template <typename T, typename From>
CVOPS_HD T bit_cast(From from) {
  static_assert(sizeof(T) == sizeof(From), "");
  T to;
#ifdef __CUDA_ARCH__
  memcpy(&to, &from, sizeof to);
#else
  __builtin_memcpy(&to, &from, sizeof to);
#endif
  return to;
}

// Bit pattern of a float. The bit patterns of nonnegative floats sort like the floats.
CVOPS_HD uint32 bits_of(float x) { return bit_cast<uint32>(x); }
CVOPS_HD float float_of(uint32 bits) { return bit_cast<float>(bits); }

CVOPS_HD int64 bits_of(double x) { return bit_cast<int64>(x); }
CVOPS_HD double double_of(int64 bits) { return bit_cast<double>(bits); }

CVOPS_HD int64 ceil_div(int64 a, int64 b) { return (a + b - 1) / b; }

// Shared-memory index with one unused element after each 32. Strided accesses by up to 32 elements
// then use different banks.
CVOPS_HD int padded(int i) { return i + i / 32; }

#ifdef __CUDACC__
// Waits until the earlier kernels of the stream have ended and their stores are visible. A
// programmatic dependent launch begins before that. Each thread of each kernel waits first: the end
// of a kernel then implies the end of all kernels before it. Other launches do not wait.
__device__ __forceinline__ void wait_for_earlier_launches() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
#endif

// Maximum number of blocks along the y axis of a grid. A kernel that needs more loops over them.
constexpr int kMaxGridY = CVOPS_STEP(65535, 7);

}  // namespace cvops
