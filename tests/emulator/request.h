// A launch from Python.
#pragma once

#include <cstddef>
#include <cstdint>

namespace emulator {

enum class Kind : std::uint8_t { value, array, read_only_array, address };

// The same struct as _Request in emulator.py. `args` has a pointer to each argument, like the
// kernelParams of cuLaunchKernel.
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

// The only exported function of a module. Returns 0, or 1 with a message.
extern "C" __attribute__((visibility("default"))) int cvops_emulator_launch(
    const emulator::Request* request, char* message, std::size_t capacity);
