// Checks parallel_for and its pool of threads. The exit status is 0 if all checks hold.
#include <cstdio>
#include <numeric>
#include <stdexcept>
#include <thread>
#include <vector>

#include "parallel.h"

using namespace cvops;

namespace {

int failures = 0;

void expect(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "failed: %s\n", what);
  ++failures;
}

constexpr double kCostly = 1e6;  // enough work for one thread per call

bool calls_each_index_once(int64_t count, double cost) {
  std::vector<int> calls(count);
  parallel_for(count, cost, [&](int64_t i) { ++calls[i]; });
  return std::accumulate(calls.begin(), calls.end(), int64_t{0}) == count &&
         std::count(calls.begin(), calls.end(), 1) == count;
}

void nested() {
  std::vector<int> calls(40 * 30);
  parallel_for(40, kCostly, [&](int64_t i) {
    parallel_for(30, kCostly, [&](int64_t j) { ++calls[i * 30 + j]; });
  });
  expect(std::count(calls.begin(), calls.end(), 1) == 40 * 30,
         "a nested call calls each index once");
}

void throwing() {
  for (int64_t thrower : {0, 7, 999}) {
    try {
      parallel_for(1000, kCostly, [&](int64_t i) {
        if (i == thrower) throw std::runtime_error("from the body");
      });
      expect(false, "parallel_for throws the exception of the body");
    } catch (const std::runtime_error& error) {
      expect(std::string(error.what()) == "from the body", "an exception keeps its text");
    }
    expect(calls_each_index_once(100, kCostly), "parallel_for works after an exception");
  }
}

void several_callers() {
  std::vector<std::thread> callers;
  std::atomic<int> wrong{0};
  for (int c = 0; c < 4; ++c) {
    callers.emplace_back([&] {
      for (int round = 0; round < 200; ++round) wrong += !calls_each_index_once(50, kCostly);
    });
  }
  for (std::thread& caller : callers) caller.join();
  expect(wrong == 0, "concurrent callers");
}

}  // namespace

int main() {
  for (int threads : {1, 2, 3, 8}) {
    set_num_threads(threads);
    expect(num_threads() == threads, "num_threads returns the value of set_num_threads");
    for (int64_t count : {0, 1, 2, 3, 17, 1000, 100000}) {
      for (double cost : {0.0, 1.0, 100.0, kCostly}) {
        expect(calls_each_index_once(count, cost), "each index is called once");
      }
    }
    nested();
    throwing();
    several_callers();
  }
  return failures != 0;
}
