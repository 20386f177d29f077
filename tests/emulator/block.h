// One block: its threads as fibers, and the scheduler that runs each until it must wait.
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

// What a kernel reads. A block stays on one OS thread, and the scheduler sets threadIdx at each
// switch.
inline thread_local uint3 threadIdx, blockIdx;
inline thread_local dim3 blockDim, gridDim;

namespace emulator {

struct Launch {
  dim3 grid, block;
  std::size_t shared = 0;         // bytes of dynamic shared memory
  std::size_t static_shared = 0;  // of its static shared memory, as far as it is known
  std::uint64_t seed = 0;         // see Schedule
  unsigned os_threads = 0;        // 0: one for each core
  // Whether static shared memory gets junk, too: where nothing else in the library is thread_local.
  bool junk_statics = false;
};

// A __syncthreads() in the source text. Not its return address: compilers clone calls.
struct Site {
  const char* file;
  int line, id;
};

struct Thread {
  Fiber fiber;
  uint3 index;
  unsigned rank;  // in the block; its lane is rank % 32
  Site site;      // of the barrier where it waits
  // What it brings to a warp collective, and takes home.
  const char* call;
  unsigned mask, source;
  std::uint64_t value, result;
  char arrived, released;  // ThreadSanitizer knows events by addresses; these are two
};

// Sets of lanes. Each live lane is in exactly one of the first three.
struct Warp {
  Thread* lanes;
  unsigned ready, meeting, waiting;  // can run; in a collective; at a barrier
  unsigned gone;                     // has exited, or never was
};

// Sets `result` of each lane of a mask from their `value` and `source`.
using Combine = void (*)(Thread* lanes, unsigned mask);

struct Votes {
  int count = 0, all = 0;
};

class Block {
 public:
  Block(const Launch& launch, const std::function<void()>& kernel);
  ~Block();

  // Runs the block to its end. False when the kernel broke a rule; error() says which.
  bool run(uint3 index, std::uint64_t rank);
  const std::string& error() const { return error_; }

  // The rest is called from within the kernel.
  Votes barrier(Site site, bool vote);
  std::uint64_t meet(const char* call, unsigned mask, std::uint64_t value, unsigned source,
                     Combine combine);
  [[noreturn]] void fail(const std::string& message);
  void* dynamic_shared() const { return dynamic_shared_; }

 private:
  static void thread_main();
  void begin(uint3 index);
  bool sweep();
  void pass_barrier();
  void resume(Thread& thread);
  void leave();
  void report(const Thread& thread, const std::string& message);
  std::string whereabouts(const Warp& warp, unsigned lane) const;
  std::string deadlock(const Warp& warp, unsigned lane) const;
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
  unsigned alive_ = 0;
  Votes votes_, result_;  // of the barrier now filling, and of the last one passed
  unsigned arrivals_ = 0;
  // For ThreadSanitizer: all that arrive at a barrier come before all that leave it. With one
  // event for both, a thread that is late to leave would take others' next arrival for that order,
  // and their writes after its reads would look no race.
  char arrived_, released_;
  bool failed_ = false;
  std::string error_;
};

inline thread_local Block* current_block = nullptr;
inline thread_local Thread* current_thread = nullptr;

std::string name_of(uint3 index);  // "(x, y, z)"

inline unsigned lane_bit(const Thread& thread) { return 1u << thread.rank % 32; }

}  // namespace emulator
