#include "threads.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <system_error>
#include <thread>

#ifdef __unix__
#include <pthread.h>
#endif
#ifdef __linux__
#include <sched.h>
#endif

namespace cvops {
namespace {

// Sleep and wake-up take tens of microseconds. Threads therefore spin for this long first.
constexpr std::chrono::microseconds kSpinTime(50);

// Spins until the condition is true or the time is over; returns the condition.
template <typename Condition>
bool spin(const Condition& holds, bool yield) {
  const auto end = std::chrono::steady_clock::now() + kSpinTime;
  while (!holds()) {
    for (int i = 0; i < 16; ++i) {
#ifdef __x86_64__
      __builtin_ia32_pause();
#endif
    }
    if (yield) std::this_thread::yield();
    if (std::chrono::steady_clock::now() > end) return false;
  }
  return true;
}

class Pool {
 public:
  void run(int threads, void (*work)(void*), void* context) {
    if (busy_.exchange(true, std::memory_order_acquire)) return work(context);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      make(threads - 1);
      work_ = work, context_ = context;
      wanted_ = std::min(threads - 1, made_);
    }
    for (int t = 1; t < threads; ++t) wake_.notify_one();
    work(context);
    {
      // Threads that have not started by now are not needed.
      std::lock_guard<std::mutex> lock(mutex_);
      wanted_ = 0;
    }
    const auto all_done = [&] { return working_ == 0; };
    if (!spin(all_done, true)) {  // a working thread can be on this core
      std::unique_lock<std::mutex> lock(mutex_);
      done_.wait(lock, all_done);
    }
    busy_.store(false, std::memory_order_release);
  }

 private:
  void make(int threads) {
    try {
      for (; made_ < threads; ++made_) std::thread(&Pool::serve, this).detach();
    } catch (const std::system_error&) {
      // The system has no more threads: the existing ones do the work.
    }
  }

  void serve() {
    const auto is_wanted = [&] { return wanted_ > 0; };
    for (;;) {
      // A thread that wakes on its caller's core yields it once. If it yielded repeatedly, the
      // scheduler would have no reason to move it to another core.
      std::this_thread::yield();
      spin(is_wanted, false);
      std::unique_lock<std::mutex> lock(mutex_);
      wake_.wait(lock, is_wanted);
      --wanted_, ++working_;
      lock.unlock();
      work_(context_);
      lock.lock();
      if (--working_ == 0) done_.notify_one();
    }
  }

  std::atomic<bool> busy_{false};
  std::mutex mutex_;  // protects changes of the members below
  std::condition_variable wake_, done_;
  void (*work_)(void*) = nullptr;
  void* context_ = nullptr;
  int made_ = 0;
  std::atomic<int> wanted_{0}, working_{0};
};

int positive_number(const char* text) { return text ? std::max(0, std::atoi(text)) : 0; }

// Cores in the affinity mask of the process, limited by the container's CPU quota.
int cores() {
  int count = std::max(1, (int)std::thread::hardware_concurrency());
#ifdef __linux__
  cpu_set_t own;
  if (sched_getaffinity(0, sizeof own, &own) == 0) count = CPU_COUNT(&own);
  if (std::FILE* file = std::fopen("/sys/fs/cgroup/cpu.max", "r")) {
    double quota, period;
    if (std::fscanf(file, "%lf %lf", &quota, &period) == 2 && period > 0) {
      count = std::min(count, std::max(1, (int)(quota / period + 0.5)));
    }
    std::fclose(file);
  }
#endif
  return count;
}

int default_threads() {
  for (const char* name : {"CVOPS_NUM_THREADS", "OMP_NUM_THREADS"}) {
    if (int threads = positive_number(std::getenv(name))) return threads;
  }
  return cores();
}

std::atomic<int> known_threads{0};  // 0: not yet initialized
std::atomic<Pool*> the_pool{nullptr};

// A fork copies the pool without its threads, possibly in an inconsistent state.
void after_fork() {
  the_pool = new Pool;
  known_threads = 1;
}

// Never destroyed, because its threads can outlive static objects.
Pool& pool() {
  static const bool made = [] {
    the_pool = new Pool;
#ifdef __unix__
    pthread_atfork(nullptr, nullptr, after_fork);
#endif
    return true;
  }();
  (void)made;
  return *the_pool;
}

}  // namespace

int num_threads() {
  int threads = known_threads.load(std::memory_order_relaxed);
  if (threads == 0) {
    pool();  // registers after_fork
    threads = default_threads();
    known_threads.store(threads, std::memory_order_relaxed);
  }
  return threads;
}

void set_num_threads(int threads) {
  pool();
  known_threads = threads;
}

void run_on_threads(int threads, void (*work)(void*), void* context) {
  if (threads < 2) return work(context);
  pool().run(threads, work, context);
}

}  // namespace cvops
