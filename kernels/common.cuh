// Shared by every kernel file. Three compilers read it: NVRTC (through CuPy), nvcc (the extension)
// and a plain C++ compiler (the CPU path, and the tests' emulator, which defines __CUDACC__). No
// kernel file includes a standard header where __CUDACC__ is defined: NVRTC has none.
#pragma once

#ifdef __CUDACC__
#define CVOPS_HD __host__ __device__ __forceinline__
// The shared memory whose size the launch gives. The emulator has its own.
#ifndef CVOPS_DYNAMIC_SHARED
#define CVOPS_DYNAMIC_SHARED(T, name) extern __shared__ T name[]
#endif
#define CVOPS_KERNEL extern "C" __global__ void
#else
#include <cmath>
#define CVOPS_HD inline
// The prototype of a kernel: the types by which bindings/cuda/ launch it.
#define CVOPS_KERNEL extern "C" void
#endif

// A size at which a kernel or a launch goes another way, or one step further. CVOPS_SMALL_STEPS
// gives all of them their second value: the tests reach both sides of each with small inputs then.
#ifdef CVOPS_SMALL_STEPS
#define CVOPS_STEP(size, small) small
#else
#define CVOPS_STEP(size, small) size
#endif

namespace cvops {

using int64 = long long;
using uint64 = unsigned long long;
using uint32 = unsigned int;

// Selects that keep MXNet's choice when an operand is NaN: the comparison is false, and the second
// operand is taken. fminf and fmaxf would take the number instead.
CVOPS_HD float larger(float a, float b) { return a > b ? a : b; }
CVOPS_HD float smaller(float a, float b) { return a < b ? a : b; }

// x without its fraction. What no int holds, and NaN, gives the smallest int, as x86 does it.
CVOPS_HD int truncated(float x) {
  return x >= -2147483648.0f && x < 2147483648.0f ? (int)x : -2147483647 - 1;
}

// The bits of a float. Of floats that are not negative, the greater has the greater bits.
CVOPS_HD uint32 bits_of(float x) {
#ifdef __CUDA_ARCH__
  return __float_as_uint(x);
#else
  uint32 bits;
  __builtin_memcpy(&bits, &x, sizeof bits);
  return bits;
#endif
}

CVOPS_HD float float_of(uint32 bits) {
#ifdef __CUDA_ARCH__
  return __uint_as_float(bits);
#else
  float x;
  __builtin_memcpy(&x, &bits, sizeof x);
  return x;
#endif
}

CVOPS_HD int64 ceil_div(int64 a, int64 b) { return (a + b - 1) / b; }

// The most blocks of a grid along y. A kernel that needs more goes through them in a loop.
constexpr int kMaxGridY = CVOPS_STEP(65535, 7);

}  // namespace cvops
