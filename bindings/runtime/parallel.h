// Work on several CPU cores.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>

#include "threads.h"

namespace cvops {

// Calls body(i) for each i in [0, count), on several threads if that pays. `cost` is an estimate of
// the time of one call in ns. An exception of a body is thrown again here; calls that have not
// begun by then are skipped.
template <typename Body>
void parallel_for(int64_t count, double cost, const Body& body) {
  constexpr double worth_a_thread = 15e3, worth_a_turn = 2e3;  // ns
  if (count == 0) return;                                      // the estimate may be 0 / 0
  const int64_t threads =
      std::min<int64_t>({num_threads(), count, (int64_t)(count * cost / worth_a_thread)});
  if (threads < 2) {
    for (int64_t i = 0; i < count; ++i) body(i);
    return;
  }
  struct Work {
    const Body& body;
    const int64_t count, turn;  // calls in all, and per turn
    std::atomic<int64_t> next{0};
    std::exception_ptr error{};
    std::atomic<bool> failed{false};
  } work = {body, count, std::clamp<int64_t>((int64_t)(worth_a_turn / cost), 1, count / threads)};
  auto some = [](void* context) {
    Work& work = *static_cast<Work*>(context);
    try {
      for (int64_t first; (first = work.next.fetch_add(work.turn)) < work.count;) {
        const int64_t end = std::min(work.count, first + work.turn);
        for (int64_t i = first; i < end; ++i) work.body(i);
      }
    } catch (...) {
      if (!work.failed.exchange(true)) work.error = std::current_exception();
      work.next = work.count;
    }
  };
  run_on_threads((int)threads, some, &work);
  if (work.failed) std::rethrow_exception(work.error);
}

}  // namespace cvops
