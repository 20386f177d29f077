#include "block.h"

#include <cstdio>
#include <cstring>

namespace emulator {

std::string name_of(uint3 index) {
  return "(" + std::to_string(index.x) + ", " + std::to_string(index.y) + ", " +
         std::to_string(index.z) + ")";
}

static std::string name_of(const Site& site) {
  return std::string(site.file) + ":" + std::to_string(site.line);
}

static std::string name_of_mask(unsigned mask) {
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
  if (launch.junk_statics) thread_locals_ = ThreadLocals::around(&current_block);
#ifdef __SANITIZE_THREAD__
  scheduler_.tsan = __tsan_get_current_fiber();
  for (unsigned i = 0; i < thread_count_; ++i) {
    threads_[i].fiber.tsan = __tsan_create_fiber(0);
    const std::string name = "CUDA thread " + name_of(index_of(i, launch.block));
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
  thread_locals_.fill_with_junk();  // and all of ours with it, which are set again below
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
  alive_ = thread_count_;
  arrivals_ = 0;
  votes_ = {};
}

EMULATOR_UNTRACED bool Block::run(uint3 index, std::uint64_t rank) {
  const DynamicShared shared(launch_.shared);
  dynamic_shared_ = shared.data();
  schedule_ = Schedule(launch_.seed, rank);
  begin(index);
  happens_before(&released_);
  while (alive_ && !failed_) {
    if (!sweep()) pass_barrier();
  }
  happens_after(&arrived_);
  return !failed_;
}

// Runs each thread that can run until its next stop. False when there was none.
EMULATOR_UNTRACED bool Block::sweep() {
  bool any = false;
  const Order warps = schedule_.order(warp_count_);
  for (std::uint64_t i = 0; i < warps.size(); ++i) {
    if (warps[i] >= warp_count_) continue;
    Warp& warp = warps_[warps[i]];
    if (!warp.ready) continue;
    any = true;
    if (schedule_.delays()) continue;
    const Order lanes = schedule_.order(32);
    for (unsigned j = 0; j < 32; ++j) {
      if (!(warp.ready >> lanes[j] & 1)) continue;
      resume(warp.lanes[lanes[j]]);
      if (failed_) return true;
    }
  }
  return any;
}

// Nobody can run: every thread has exited or waits, at one barrier if the kernel is right.
EMULATOR_UNTRACED void Block::pass_barrier() {
  const Thread* first = nullptr;
  for (unsigned w = 0; w < warp_count_; ++w) {
    const Warp& warp = warps_[w];
    for (unsigned lane = 0; lane < 32; ++lane) {
      const Thread& thread = warp.lanes[lane];
      if (warp.meeting >> lane & 1) return report(thread, deadlock(warp, lane));
      if (!(warp.waiting >> lane & 1)) continue;
      if (!first) first = &thread;
      if (thread.site.id != first->site.id) {
        return report(thread, "waits at the barrier " + name_of(thread.site) + " while thread " +
                                  name_of(first->index) + " waits at " + name_of(first->site));
      }
    }
  }
  result_ = {votes_.count, votes_.count == static_cast<int>(arrivals_)};
  votes_ = {};
  arrivals_ = 0;
  for (unsigned w = 0; w < warp_count_; ++w) {
    warps_[w].ready = warps_[w].waiting;
    warps_[w].waiting = 0;
  }
  happens_after(&arrived_);
  happens_before(&released_);
}

EMULATOR_UNTRACED void Block::resume(Thread& thread) {
  current_thread = &thread;
  threadIdx = thread.index;
  switch_fiber(scheduler_, thread.fiber);
}

EMULATOR_UNTRACED void Block::leave() { switch_fiber(current_thread->fiber, scheduler_); }

EMULATOR_UNTRACED void Block::thread_main() {
  Block& block = *current_block;
  Thread& self = *current_thread;
  enter_fiber(block.scheduler_);
  happens_after(&block.released_);
  block.kernel_();
  Warp& warp = block.warp_of(self);
  warp.ready &= ~lane_bit(self);
  warp.gone |= lane_bit(self);
  --block.alive_;
  happens_before(&block.arrived_);
  block.leave();  // for good
}

EMULATOR_UNTRACED Votes Block::barrier(Site site, bool vote) {
  Thread& self = *current_thread;
  Warp& warp = warp_of(self);
  self.site = site;
  warp.ready &= ~lane_bit(self);
  warp.waiting |= lane_bit(self);
  votes_.count += vote;
  ++arrivals_;
  happens_before(&arrived_);
  leave();
  happens_after(&released_);
  return result_;
}

EMULATOR_UNTRACED void Block::report(const Thread& thread, const std::string& message) {
  error_ = "block " + name_of(blockIdx) + ", thread " + name_of(thread.index) + ": " + message;
  failed_ = true;
}

// The stacks of the block's threads are dropped as they are: kernels own nothing.
void Block::fail(const std::string& message) {
  report(*current_thread, message);
  happens_before(&arrived_);
  for (;;) leave();
}

// The last lane to come combines what the others brought, and lets them go.
EMULATOR_UNTRACED std::uint64_t Block::meet(const char* call, unsigned mask, std::uint64_t value,
                                            unsigned source, Combine combine) {
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
    fail(std::string(call) + " called by a lane that its mask " + name_of_mask(mask) +
         " leaves out");
  }
  if (mask & warp.gone) {
    const unsigned lane = __builtin_ctz(mask & warp.gone);
    fail(std::string(call) + " with mask " + name_of_mask(mask) + ", but lane " +
         std::to_string(lane) + " " + whereabouts(warp, lane));
  }
  warp.ready &= ~lane_bit(self);
  warp.meeting |= lane_bit(self);
  happens_before(&self.arrived);
  bool all_here = (warp.meeting & mask) == mask;
  if (all_here) each_lane([&](unsigned lane) { all_here &= lanes[lane].mask == mask; });
  if (!all_here) {
    leave();
  } else {
    each_lane([&](unsigned lane) {
      if (std::strcmp(lanes[lane].call, call) != 0) {
        fail(std::string(call) + " meets " + lanes[lane].call + " of lane " + std::to_string(lane));
      }
      happens_after(&lanes[lane].arrived);
    });
    combine(lanes, mask);
    each_lane([&](unsigned lane) { happens_before(&lanes[lane].released); });
    warp.meeting &= ~mask;
    warp.ready |= mask;
  }
  happens_after(&self.released);
  return self.result;
}

std::string Block::whereabouts(const Warp& warp, unsigned lane) const {
  const Thread& thread = warp.lanes[lane];
  const unsigned bit = 1u << lane;
  if (warp.waiting & bit) return "waits at the barrier " + name_of(thread.site);
  if (warp.meeting & bit)
    return std::string("is in ") + thread.call + " with mask " + name_of_mask(thread.mask);
  if (warp.gone & bit)
    return &thread - &threads_[0] < thread_count_ ? "has exited" : "does not exist";
  return "runs";
}

std::string Block::deadlock(const Warp& warp, unsigned lane) const {
  const Thread& thread = warp.lanes[lane];
  for (unsigned other = 0; other < 32; ++other) {
    if (!(thread.mask >> other & 1)) continue;
    if (warp.meeting >> other & 1 && warp.lanes[other].mask == thread.mask) continue;
    return whereabouts(warp, lane) + " and waits for lane " + std::to_string(other) + ", which " +
           whereabouts(warp, other);
  }
  return "waits in vain";  // not reached: had all come, the last would have let them go
}

}  // namespace emulator
