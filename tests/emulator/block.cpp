#include "block.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace emulator {

std::string to_text(uint3 index) {
  return "(" + std::to_string(index.x) + ", " + std::to_string(index.y) + ", " +
         std::to_string(index.z) + ")";
}

static std::string to_text(const CallSite& site) {
  return std::string(site.file) + ":" + std::to_string(site.line);
}

static std::string mask_to_text(unsigned mask) {
  char text[11];
  std::snprintf(text, sizeof text, "0x%08x", mask);
  return text;
}

static uint3 index_of(unsigned rank, dim3 size) {
  return {rank % size.x, rank / size.x % size.y, rank / size.x / size.y};
}

Block::Block(const Launch& launch, const std::function<void()>& kernel)
    : launch_(launch),
      kernel_(kernel),
      thread_count_(launch.block.x * launch.block.y * launch.block.z),
      warp_count_((thread_count_ + 31) / 32),
      stacks_(thread_count_),
      threads_(new Thread[32 * warp_count_]),
      warps_(new Warp[warp_count_]) {
  if (launch.fill_static_shared) thread_locals_ = ThreadLocals::around(&current_block);
#ifdef __SANITIZE_THREAD__
  scheduler_.tsan = __tsan_get_current_fiber();
  for (unsigned i = 0; i < thread_count_; ++i) {
    threads_[i].fiber.tsan = __tsan_create_fiber(0);
    const std::string name = "CUDA thread " + to_text(index_of(i, launch.block));
    __tsan_set_fiber_name(threads_[i].fiber.tsan, name.c_str());
  }
#endif
}

Block::~Block() {
#ifdef __SANITIZE_THREAD__
  for (unsigned i = 0; i < thread_count_; ++i) __tsan_destroy_fiber(threads_[i].fiber.tsan);
#endif
}

EMULATOR_UNTRACED void Block::begin(uint3 index) {
  thread_locals_.fill_with_junk();  // includes the variables of the emulator, which are set below
  current_block = this;
  blockIdx = index;
  blockDim = launch_.block;
  gridDim = launch_.grid;
  for (unsigned i = 0; i < thread_count_; ++i) {
    Thread& thread = threads_[i];
    thread.rank = i;
    thread.index = index_of(i, blockDim);
    thread.fiber.start(stacks_[i], &Block::thread_main);
  }
  for (unsigned i = 0; i < warp_count_; ++i) {
    const unsigned lanes = thread_count_ - 32 * i;
    const unsigned live = lanes >= 32 ? ~0u : (1u << lanes) - 1;
    warps_[i] = {&threads_[32 * i], live, 0, 0, ~live};
  }
  live_threads_ = thread_count_;
  arrivals_ = 0;
  votes_ = {};
}

EMULATOR_UNTRACED bool Block::run(uint3 index, std::uint64_t rank) {
  const DynamicShared shared(launch_.shared);
  dynamic_shared_ = shared.data();
  schedule_ = Schedule(launch_.seed, rank);
  begin(index);
  happens_before(&released_);
  while (live_threads_ && !failed_) {
    if (!run_ready_threads()) release_barrier();
  }
  happens_after(&arrived_);
  return !failed_;
}

// Runs each ready thread until it waits or exits. Returns false if no thread is ready.
EMULATOR_UNTRACED bool Block::run_ready_threads() {
  bool any = false;
  const Permutation warps = schedule_.order(warp_count_);
  for (std::uint64_t i = 0; i < warps.size(); ++i) {
    if (warps[i] >= warp_count_) continue;
    Warp& warp = warps_[warps[i]];
    if (!warp.ready) continue;
    any = true;
    if (schedule_.skips_warp()) continue;
    const Permutation lanes = schedule_.order(32);
    for (unsigned j = 0; j < 32; ++j) {
      if (!(warp.ready >> lanes[j] & 1)) continue;
      resume(warp.lanes[lanes[j]]);
      if (failed_) return true;
    }
  }
  return any;
}

// Releases the barrier where all live threads wait. No thread is ready here. If they wait at
// several places, the kernel has a bug.
EMULATOR_UNTRACED void Block::release_barrier() {
  const Thread* first = nullptr;
  for (unsigned w = 0; w < warp_count_; ++w) {
    const Warp& warp = warps_[w];
    for (unsigned lane = 0; lane < 32; ++lane) {
      const Thread& thread = warp.lanes[lane];
      if (warp.in_collective >> lane & 1) return set_error(thread, deadlock_message(warp, lane));
      if (!(warp.at_barrier >> lane & 1)) continue;
      if (!first) first = &thread;
      if (thread.site.id != first->site.id) {
        return set_error(thread, "waits at the barrier " + to_text(thread.site) + " while thread " +
                                     to_text(first->index) + " waits at " + to_text(first->site));
      }
    }
  }
  result_ = {votes_.count, votes_.count == static_cast<int>(arrivals_)};
  votes_ = {};
  arrivals_ = 0;
  for (unsigned w = 0; w < warp_count_; ++w) {
    warps_[w].ready = warps_[w].at_barrier;
    warps_[w].at_barrier = 0;
  }
  happens_after(&arrived_);
  happens_before(&released_);
}

EMULATOR_UNTRACED void Block::resume(Thread& thread) {
  current_thread = &thread;
  threadIdx = thread.index;
  switch_fiber(scheduler_, thread.fiber);
}

EMULATOR_UNTRACED void Block::yield() { switch_fiber(current_thread->fiber, scheduler_); }

EMULATOR_UNTRACED void Block::thread_main() {
  Block& block = *current_block;
  Thread& self = *current_thread;
  enter_fiber(block.scheduler_);
  happens_after(&block.released_);
  block.kernel_();
  Warp& warp = block.warp_of(self);
  warp.ready &= ~lane_bit(self);
  warp.exited |= lane_bit(self);
  --block.live_threads_;
  happens_before(&block.arrived_);
  block.yield();  // never returns
}

EMULATOR_UNTRACED Votes Block::barrier(CallSite site, bool vote) {
  Thread& self = *current_thread;
  Warp& warp = warp_of(self);
  self.site = site;
  warp.ready &= ~lane_bit(self);
  warp.at_barrier |= lane_bit(self);
  votes_.count += vote;
  ++arrivals_;
  happens_before(&arrived_);
  yield();
  happens_after(&released_);
  return result_;
}

EMULATOR_UNTRACED void Block::set_error(const Thread& thread, const std::string& message) {
  error_ = "block " + to_text(blockIdx) + ", thread " + to_text(thread.index) + ": " + message;
  failed_ = true;
}

// Ends the block. No destructors run on the stacks of its threads, because kernels own no
// resources.
void Block::fail(const std::string& message) {
  set_error(*current_thread, message);
  happens_before(&arrived_);
  for (;;) yield();
}

// The last lane of the mask combines the values, and makes the other lanes ready.
EMULATOR_UNTRACED std::uint64_t Block::warp_collective(const char* call, unsigned mask,
                                                       std::uint64_t value, unsigned source,
                                                       Combine combine) {
  Thread& self = *current_thread;
  Warp& warp = warp_of(self);
  Thread* const lanes = warp.lanes;
  const auto each_lane = [mask](auto&& action) {
    for (unsigned rest = mask; rest; rest &= rest - 1) action(__builtin_ctz(rest));
  };
  self.call = call;
  self.mask = mask;
  self.source = source;
  self.value = value;
  if (!(mask & lane_bit(self))) {
    fail(std::string(call) + " called by a lane that is not in its mask " + mask_to_text(mask));
  }
  if (mask & warp.exited) {
    const unsigned lane = __builtin_ctz(mask & warp.exited);
    fail(std::string(call) + " with mask " + mask_to_text(mask) + ", but lane " +
         std::to_string(lane) + " " + state_of(warp, lane));
  }
  warp.ready &= ~lane_bit(self);
  warp.in_collective |= lane_bit(self);
  happens_before(&self.arrived);
  bool is_last = (warp.in_collective & mask) == mask;
  if (is_last) each_lane([&](unsigned lane) { is_last &= lanes[lane].mask == mask; });
  if (!is_last) {
    yield();
  } else {
    each_lane([&](unsigned lane) {
      if (std::strcmp(lanes[lane].call, call) != 0) {
        fail(std::string(call) + " called, but lane " + std::to_string(lane) + " calls " +
             lanes[lane].call);
      }
      happens_after(&lanes[lane].arrived);
    });
    combine(lanes, mask);
    each_lane([&](unsigned lane) { happens_before(&lanes[lane].released); });
    warp.in_collective &= ~mask;
    warp.ready |= mask;
  }
  happens_after(&self.released);
  return self.result;
}

std::string Block::state_of(const Warp& warp, unsigned lane) const {
  const Thread& thread = warp.lanes[lane];
  const unsigned bit = 1u << lane;
  if (warp.at_barrier & bit) return "waits at the barrier " + to_text(thread.site);
  if (warp.in_collective & bit)
    return std::string("is in ") + thread.call + " with mask " + mask_to_text(thread.mask);
  if (warp.exited & bit)
    return &thread - &threads_[0] < thread_count_ ? "has exited" : "does not exist";
  return "runs";
}

std::string Block::deadlock_message(const Warp& warp, unsigned lane) const {
  const Thread& thread = warp.lanes[lane];
  for (unsigned other = 0; other < 32; ++other) {
    if (!(thread.mask >> other & 1)) continue;
    if (warp.in_collective >> other & 1 && warp.lanes[other].mask == thread.mask) continue;
    return state_of(warp, lane) + " and waits for lane " + std::to_string(other) + ", which " +
           state_of(warp, other);
  }
  std::abort();  // the last lane of a collective does not wait
}

}  // namespace emulator
