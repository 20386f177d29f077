// Launches by name. Unlike cuLaunchKernel's, the arguments are checked against the kernel's own
// parameter list.
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
  const std::string argument = "argument " + std::to_string(i) + " ";
  const bool is_array = kind == Kind::array || kind == Kind::read_only_array;
  if constexpr (std::is_pointer_v<Param>) {
    using Element = std::remove_pointer_t<Param>;
    if (!is_array && kind != Kind::address) {
      return argument + "is a value of " + std::to_string(size) + " bytes, the parameter a pointer";
    }
    if (kind == Kind::read_only_array && !std::is_const_v<Element>) {
      return argument + "is a read-only array, the parameter a pointer to what is not const";
    }
    if constexpr (!std::is_void_v<Element>) {
      std::uintptr_t address;
      std::memcpy(&address, request.args[i], sizeof address);
      if (address % alignof(Element)) {
        return argument + "is not aligned to the " + std::to_string(alignof(Element)) +
               " bytes of the parameter's elements";
      }
    }
  } else {
    if (is_array) {
      return argument + "is an array, the parameter a value of " + std::to_string(sizeof(Param)) +
             " bytes";
    }
    if (size != sizeof(Param)) {
      return argument + "has " + std::to_string(size) + " bytes, the parameter " +
             std::to_string(sizeof(Param));
    }
  }
  return "";
}

template <typename Param>
Param unpack(const void* argument) {
  static_assert(std::is_trivially_copyable_v<Param>, "kernels take arguments byte by byte");
  alignas(Param) unsigned char bytes[sizeof(Param)];
  std::memcpy(bytes, argument, sizeof bytes);
  return *reinterpret_cast<Param*>(bytes);
}

template <typename... Params, std::size_t... I>
std::string launch_packed(void (*kernel)(Params...), const Request& request,
                          std::index_sequence<I...>) {
  if (request.count != sizeof...(Params)) {
    return "takes " + std::to_string(sizeof...(Params)) + " arguments, not " +
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
  launch.junk_statics = true;
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

// The row of `function`. max_threads has what stood in the parentheses of __launch_bounds__.
template <auto function>
constexpr Kernel kernel_row(const char* name, unsigned max_threads = ~0u, unsigned = 0) {
  return {name, [](const Request& request) { return Kernel::launch_as(function, request); },
          max_threads};
}

// The body of cvops_emulator_launch for a module with these kernels.
template <std::size_t count>
bool launch(const Kernel (&kernels)[count], const Request& request, char* message,
            std::size_t capacity) {
  std::string error = "no such kernel";
  for (const Kernel& kernel : kernels) {
    if (std::strcmp(kernel.name, request.kernel) != 0) continue;
    const auto& block = request.block;
    const std::uint64_t threads = std::uint64_t{block[0]} * block[1] * block[2];
    error = threads <= kernel.max_threads ? kernel.launch(request)
                                          : "__launch_bounds__ allows blocks of " +
                                                std::to_string(kernel.max_threads) + " threads";
  }
  std::snprintf(message, capacity, "%s", error.c_str());
  return !error.empty();
}

}  // namespace emulator
