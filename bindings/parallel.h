// Work over the CPU's cores, and over the lanes of its vector units.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <thread>
#include <vector>

// A function with this mark is compiled for each vector width, and the widest that the machine has
// is taken when the library is loaded. Rounding does not depend on it: no operation is contracted.
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(CVOPS_EMULATED)
#define CVOPS_SIMD __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define CVOPS_SIMD
#endif

namespace cvops {

// The cores that this process may use, or CVOPS_NUM_THREADS.
inline int num_threads() {
  static const int threads = [] {
    const char* text = std::getenv("CVOPS_NUM_THREADS");
    int wanted = text ? std::atoi(text) : 0;
    return wanted > 0 ? wanted : std::max(1, (int)std::thread::hardware_concurrency());
  }();
  return threads;
}

// Calls body(i) for each i in [0, count), on several threads where that pays. `cost` is a guess at
// the nanoseconds of one call. Threads are made anew in each call, about 20 us each: nothing is
// left behind that a fork (a DataLoader's workers) would break.
template <typename Body>
void parallel_for(int64_t count, double cost, const Body& body) {
  constexpr double worth_a_thread = 50e3;  // ns
  int64_t threads =
      std::min<int64_t>({num_threads(), count, (int64_t)(count * cost / worth_a_thread)});
  std::atomic<int64_t> next{0};
  auto work = [&] {
    for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;) body(i);
  };
  std::vector<std::thread> others;
  for (int64_t t = 1; t < threads; ++t) others.emplace_back(work);
  work();
  for (auto& thread : others) thread.join();
}

}  // namespace cvops
