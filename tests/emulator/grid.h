// A launch: its limits, and its blocks spread over OS threads.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <tuple>

#include "block.h"

namespace emulator {

// Bytes of a block, static ones included, for compute capability 9.0.
constexpr std::size_t kMaxShared = 227 << 10;

// What a GPU would refuse to start; empty when it would not.
std::string invalid_configuration(const Launch& launch);

// Calls kernel() in each thread of each block. Returns what went wrong first, or nothing.
std::string run(const Launch& launch, const std::function<void()>& kernel);

template <typename... Params>
std::string run(const Launch& launch, void (*kernel)(Params...),
                const std::tuple<Params...>& args) {
  return run(launch, [&] { std::apply(kernel, args); });
}

}  // namespace emulator
