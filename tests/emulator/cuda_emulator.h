// CUDA on a CPU: with this header, g++ compiles the text of a kernel.
//
// Each CUDA thread is a fiber, and each block runs on one OS thread. Barriers and warp collectives
// switch between stacks. Errors that a GPU does not report end the launch with a message: a barrier
// that not all threads reach, a shuffle with a lane that has exited, a launch beyond a limit.
// AddressSanitizer and ThreadSanitizer work as in any C++ program, for global and shared memory.
//
//   fibers.h           stacks, and the switch between them
//   schedule.h         the order of warps and lanes
//   shared_memory.h    static and dynamic shared memory, initially filled with junk
//   block.h            one block: its threads and the scheduler
//   grid.h             a launch: its blocks on OS threads
//   warp.h, atomics.h, intrinsics.h, vector_types.h    the functions and types of kernels
//   packed.h           launches from Python, with untyped memory as arguments
//
// The emulator does not show times, coalescing, bank conflicts, weak memory order, or races between
// blocks. It does not support <<<>>>, inline PTX, textures, clusters, cooperative groups, half
// types,
// __activemask, and threads that spin until another thread acts.
#pragma once

#define __CUDACC__ 1
#ifndef CVOPS_EMULATED
#define CVOPS_EMULATED 1
#endif

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(bytes) __attribute__((aligned(bytes)))

// A block runs on one OS thread. With a sanitizer the whole launch does: AddressSanitizer has
// redzones around static variables, but not around thread-local ones.
#ifdef EMULATOR_ONE_OS_THREAD
#define __shared__ static
#else
#define __shared__ static thread_local
#endif
#define CVOPS_DYNAMIC_SHARED(T, name) \
  T* const name = static_cast<T*>(::emulator::current_block->dynamic_shared())

#include "atomics.h"
#include "block.h"
#include "grid.h"
#include "intrinsics.h"
#include "vector_types.h"
#include "warp.h"
