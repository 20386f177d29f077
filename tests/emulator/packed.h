// Launches by name. In contrast to cuLaunchKernel, the arguments are compared with the kernel's
// parameters.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <type_traits>
#include <utility>

#include "grid.h"
#include "request.h"
#include "shared_memory.h"

namespace emulator {

template <typename Param>
std::string check_argument(const Request& request, std::size_t i) {
  const std::uint64_t size = request.sizes[i];
  const Kind kind = request.kinds[i];
  const std::string argument = "argument " + std::to_string(i) + ": expected ";
  const bool is_array = kind == Kind::array || kind == Kind::read_only_array;
  if constexpr (std::is_pointer_v<Param>) {
    using Element = std::remove_pointer_t<Param>;
    if (!is_array && kind != Kind::address) {
      return argument + "a pointer, got a value of " + std::to_string(size) + " bytes";
    }
    if (kind == Kind::read_only_array && !std::is_const_v<Element>) {
      return argument + "a writable array, got a read-only array";
    }
    if constexpr (!std::is_void_v<Element>) {
      std::uintptr_t address;
      std::memcpy(&address, request.args[i], sizeof address);
      if (address % alignof(Element)) {
        return argument + "alignment to " + std::to_string(alignof(Element)) +
               " bytes, got address " + std::to_string(address);
      }
    }
  } else {
    if (is_array) {
      return argument + "a value of " + std::to_string(sizeof(Param)) + " bytes, got an array";
    }
    if (size != sizeof(Param)) {
      return argument + std::to_string(sizeof(Param)) + " bytes, got " + std::to_string(size);
    }
  }
  return "";
}

template <typename Param>
Param unpack(const void* argument) {
  static_assert(std::is_trivially_copyable_v<Param>,
                "the arguments of kernels are copied as bytes");
  alignas(Param) unsigned char bytes[sizeof(Param)];
  std::memcpy(bytes, argument, sizeof bytes);
  return *reinterpret_cast<Param*>(bytes);
}

template <typename... Params, std::size_t... I>
std::string launch_packed(void (*kernel)(Params...), const Request& request,
                          std::index_sequence<I...>) {
  if (request.count != sizeof...(Params)) {
    return "expected " + std::to_string(sizeof...(Params)) + " arguments, got " +
           std::to_string(request.count);
  }
  std::string error;
  (void)((error = check_argument<Params>(request, I), error.empty()) && ...);
  if (!error.empty()) return error;
  const auto &grid = request.grid, &block = request.block;
  Launch launch{{grid[0], grid[1], grid[2]}, {block[0], block[1], block[2]}};
  launch.shared = request.shared;
  if (launch.shared) {
    launch.static_shared = static_shared(reinterpret_cast<const void*>(kernel));
  }
  launch.seed = request.seed;
  launch.os_threads = request.os_threads;
  launch.fill_static_shared = true;
  return run(launch, kernel, std::tuple<Params...>(unpack<Params>(request.args[I])...));
}

// One row of a module's table of kernels.
struct Kernel {
  const char* name;
  std::string (*launch)(const Request&);
  unsigned max_threads;  // of its __launch_bounds__

  template <typename... Params>
  static std::string launch_as(void (*kernel)(Params...), const Request& request) {
    return launch_packed(kernel, request, std::index_sequence_for<Params...>());
  }
};

// The row of `function`. The arguments after the name are those of __launch_bounds__.
template <auto function>
constexpr Kernel kernel_row(const char* name, unsigned max_threads = ~0u, unsigned = 0) {
  return {name, [](const Request& request) { return Kernel::launch_as(function, request); },
          max_threads};
}

// The body of cvops_emulator_launch for a module with these kernels.
template <std::size_t count>
bool launch(const Kernel (&kernels)[count], const Request& request, char* message,
            std::size_t capacity) {
  std::string error = "expected a kernel of the module";
  for (const Kernel& kernel : kernels) {
    if (std::strcmp(kernel.name, request.kernel) != 0) continue;
    const auto& block = request.block;
    const std::uint64_t threads = std::uint64_t{block[0]} * block[1] * block[2];
    error = threads <= kernel.max_threads
                ? kernel.launch(request)
                : "block: expected at most " + std::to_string(kernel.max_threads) +
                      " threads by __launch_bounds__, got " + std::to_string(threads);
  }
  std::snprintf(message, capacity, "%s", error.c_str());
  return !error.empty();
}

}  // namespace emulator
