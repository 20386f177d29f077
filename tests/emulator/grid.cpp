#include "grid.h"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "block.h"

namespace emulator {

static std::string to_text(dim3 size) { return to_text(uint3{size.x, size.y, size.z}); }

std::string invalid_configuration(const Launch& launch) {
  const dim3 &grid = launch.grid, &block = launch.block;
  const std::uint64_t threads = std::uint64_t{block.x} * block.y * block.z;
  if (grid.x > 0x7fffffff || grid.y > 65535 || grid.z > 65535) {
    return "grid: expected at most 2147483647 x 65535 x 65535 blocks, got " + to_text(grid);
  }
  if (block.x > 1024 || block.y > 1024 || block.z > 64 || threads > 1024) {
    return "block: expected at most 1024 threads, and 64 along z, got " + to_text(block);
  }
  if (std::uint64_t{grid.x} * grid.y * grid.z == 0)
    return "grid: expected at least one block, got " + to_text(grid);
  if (threads == 0) return "block: expected at least one thread, got " + to_text(block);
  if (launch.shared + launch.static_shared > kMaxShared) {
    return "shared memory: expected at most " + std::to_string(kMaxShared) + " bytes, got " +
           std::to_string(launch.static_shared) + " static and " + std::to_string(launch.shared) +
           " dynamic bytes";
  }
  return "";
}

std::string run(const Launch& launch, const std::function<void()>& kernel) {
  if (std::string error = invalid_configuration(launch); !error.empty()) return error;
  const dim3 grid = launch.grid;
  const std::uint64_t count = std::uint64_t{grid.x} * grid.y * grid.z;
  const Permutation order = Schedule(launch.seed, count).order(count);
  std::atomic<std::uint64_t> next{0};
  std::mutex mutex;
  std::string error;

  const auto work = [&] {
    std::string problem;
    try {
      Block block(launch, kernel);
      for (std::uint64_t i; problem.empty() && (i = next++) < order.size();) {
        const std::uint64_t b = order[i];
        if (b >= count) continue;
        const uint3 index = {static_cast<unsigned>(b % grid.x),
                             static_cast<unsigned>(b / grid.x % grid.y),
                             static_cast<unsigned>(b / grid.x / grid.y)};
        if (!block.run(index, b)) problem = block.error();
      }
    } catch (const std::exception& failure) {
      problem = std::string("the emulator failed: ") + failure.what();
    }
    if (problem.empty()) return;
    next = order.size();  // ends the other OS threads
    const std::lock_guard<std::mutex> lock(mutex);
    if (error.empty()) error = problem;
  };

#ifdef EMULATOR_ONE_OS_THREAD
  work();
#else
  const unsigned cores = std::max(1u, std::thread::hardware_concurrency());
  const std::uint64_t workers =
      std::min<std::uint64_t>(launch.os_threads ? launch.os_threads : cores, count);
  std::vector<std::thread> others;
  for (std::uint64_t i = 1; i < workers; ++i) others.emplace_back(work);
  work();
  for (std::thread& other : others) other.join();
#endif
  return error;
}

}  // namespace emulator
