// A launch: its limits, and its blocks on OS threads.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <tuple>

#include "block.h"

namespace emulator {

// The maximum bytes of static and dynamic shared memory of a block, for compute capability 9.0.
constexpr std::size_t kMaxShared = 227 << 10;

// Returns why a GPU refuses the launch, or an empty text.
std::string invalid_configuration(const Launch& launch);

// Calls kernel() in each thread of each block. Returns the first error, or an empty text.
std::string run(const Launch& launch, const std::function<void()>& kernel);

template <typename... Params>
std::string run(const Launch& launch, void (*kernel)(Params...),
                const std::tuple<Params...>& args) {
  return run(launch, [&] { std::apply(kernel, args); });
}

}  // namespace emulator
