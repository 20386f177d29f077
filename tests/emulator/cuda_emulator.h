// CUDA on a CPU: include this, and the text of a kernel compiles with g++ and runs.
//
// Each CUDA thread is a fiber, so barriers and warp collectives are switches between stacks, and
// each block runs on one OS thread. What a GPU would let pass in silence ends the launch with a
// message: a barrier that not all threads reach, a shuffle with a lane that has exited, a launch
// beyond limits. AddressSanitizer and ThreadSanitizer work as on any C++, on global and on shared
// memory.
//
//   fibers.h           stacks, and the switch between them
//   schedule.h         in which order warps and lanes run
//   shared_memory.h    static and dynamic shared memory, junk at first
//   block.h            one block: its threads, and the scheduler
//   grid.h             a launch: its blocks, over OS threads
//   warp.h, atomics.h, intrinsics.h, vector_types.h    the functions and types of kernels
//   packed.h           launches from Python, where arguments come as untyped memory
//
// It cannot show time, coalescing or bank conflicts, nor weak memory, nor a race between blocks.
// Not supported: <<<>>>, inline PTX, textures, clusters, cooperative groups, half types,
// __activemask, a thread that spins until another does something.
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

// A block stays on one OS thread. AddressSanitizer puts redzones around plain statics only, so
// there the whole launch does.
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
