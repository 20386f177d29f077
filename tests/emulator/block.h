// One block: its threads are fibers, and a scheduler runs each of them until it must wait.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "fibers.h"
#include "schedule.h"
#include "shared_memory.h"
#include "vector_types.h"

constexpr int warpSize = 32;

// The variables of a kernel. A block runs on one OS thread, and the scheduler sets threadIdx at
// each switch.
inline thread_local uint3 threadIdx, blockIdx;
inline thread_local dim3 blockDim, gridDim;

namespace emulator {

struct Launch {
  dim3 grid, block;
  std::size_t shared = 0;         // bytes of dynamic shared memory
  std::size_t static_shared = 0;  // bytes of static shared memory, if known
  std::uint64_t seed = 0;         // see Schedule
  unsigned os_threads = 0;        // 0: one for each core
  // True to fill static shared memory with junk. The library must have no other thread_local data.
  bool fill_static_shared = false;
};

// The position of a __syncthreads() in the source text. A return address would be ambiguous,
// because compilers clone calls.
struct CallSite {
  const char* file;
  int line, id;
};

struct Thread {
  Fiber fiber;
  uint3 index;
  unsigned rank;  // in the block; the lane is rank % 32
  CallSite site;  // of the barrier where the thread waits
  // The arguments and the result of a warp collective.
  const char* call;
  unsigned mask, source;
  std::uint64_t value, result;
  char arrived, released;  // two events for ThreadSanitizer, identified by their addresses
};

// Sets of lanes. Each live lane is in exactly one of `ready`, `in_collective` and `at_barrier`.
struct Warp {
  Thread* lanes;
  unsigned ready, in_collective, at_barrier;
  unsigned exited;  // includes the lanes that do not exist
};

// Computes `result` of each lane of a mask from `value` and `source` of the lanes.
using Combine = void (*)(Thread* lanes, unsigned mask);

struct Votes {
  int count = 0, all = 0;
};

class Block {
 public:
  Block(const Launch& launch, const std::function<void()>& kernel);
  ~Block();

  // Runs the block to its end. Returns false if the kernel broke a rule; error() describes it.
  bool run(uint3 index, std::uint64_t rank);
  const std::string& error() const { return error_; }

  // The kernel calls the following functions.
  Votes barrier(CallSite site, bool vote);
  std::uint64_t warp_collective(const char* call, unsigned mask, std::uint64_t value,
                                unsigned source, Combine combine);
  [[noreturn]] void fail(const std::string& message);
  void* dynamic_shared() const { return dynamic_shared_; }

 private:
  static void thread_main();
  void begin(uint3 index);
  bool run_ready_threads();
  void release_barrier();
  void resume(Thread& thread);
  void yield();
  void set_error(const Thread& thread, const std::string& message);
  std::string state_of(const Warp& warp, unsigned lane) const;
  std::string deadlock_message(const Warp& warp, unsigned lane) const;
  Warp& warp_of(const Thread& thread) { return warps_[thread.rank / 32]; }

  const Launch& launch_;
  const std::function<void()>& kernel_;
  const unsigned thread_count_, warp_count_;
  Stacks stacks_;
  std::unique_ptr<Thread[]> threads_;
  std::unique_ptr<Warp[]> warps_;
  Fiber scheduler_;
  ThreadLocals thread_locals_;
  void* dynamic_shared_ = nullptr;
  Schedule schedule_{0, 0};
  unsigned live_threads_ = 0;
  Votes votes_, result_;  // of the current barrier, and of the previous one
  unsigned arrivals_ = 0;
  // Events for ThreadSanitizer: all arrivals at a barrier come before all departures. One event
  // would order a late departure after the next arrivals of other threads, and would hide races of
  // its reads with their writes.
  char arrived_, released_;
  bool failed_ = false;
  std::string error_;
};

inline thread_local Block* current_block = nullptr;
inline thread_local Thread* current_thread = nullptr;

std::string to_text(uint3 index);  // "(x, y, z)"

inline unsigned lane_bit(const Thread& thread) { return 1u << thread.rank % 32; }

}  // namespace emulator
