// A launch as Python describes it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace emulator {

enum class Kind : std::uint8_t { value, array, read_only_array, address };

// The same struct as _Request of emulator.py. `args` is what cuLaunchKernel takes: an array of
// pointers, one to each argument.
struct Request {
  const char* kernel;
  std::uint32_t grid[3], block[3];
  std::uint64_t shared, seed;
  std::uint32_t os_threads, count;
  void** args;
  const std::uint64_t* sizes;
  const Kind* kinds;
};

}  // namespace emulator

// Every module exports this one function. Not 0 when it wrote a message.
extern "C" __attribute__((visibility("default"))) int cvops_emulator_launch(
    const emulator::Request* request, char* message, std::size_t capacity);
