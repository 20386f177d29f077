// Runs one launch of a sanitized module: runner LAUNCH RESULTS.
//
// sanitized.py writes the file LAUNCH. Each array gets its own allocation with its exact size, so
// that AddressSanitizer detects the first byte outside of it. The file RESULTS gets the bytes of
// the writable arrays, in order. Addresses point into an arena (arena.py), which both processes
// map. For an error of the emulator, the exit status is 3 and the message is on stderr.
#include <fcntl.h>
#include <sys/mman.h>
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "request.h"

namespace {

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};
using Memory = std::unique_ptr<void, Free>;

// Reads bytes into memory with the alignment of malloc, 16 bytes.
Memory read_bytes(std::istream& in, std::size_t bytes) {
  Memory memory(std::malloc(bytes));
  in.read(static_cast<char*>(memory.get()), static_cast<std::streamsize>(bytes));
  return memory;
}

template <typename T>
T read(std::istream& in) {
  T value{};
  in.read(reinterpret_cast<char*>(&value), sizeof value);
  return value;
}

// Maps the arena at its address, and poisons all of it.
void map_arena(const std::string& path, std::uint64_t base, std::uint64_t used) {
  const int file = open(path.c_str(), O_RDWR);
  void* const address = reinterpret_cast<void*>(base);
  const int flags = MAP_SHARED | MAP_FIXED;
  if (file < 0 || mmap(address, used, PROT_READ | PROT_WRITE, flags, file, 0) != address) {
    std::cerr << "cannot map " << path << "\n";
    std::exit(2);
  }
#ifdef __SANITIZE_ADDRESS__
  __asan_poison_memory_region(address, used);
#endif
}

void unpoison([[maybe_unused]] std::uint64_t start, [[maybe_unused]] std::uint64_t size) {
#ifdef __SANITIZE_ADDRESS__
  __asan_unpoison_memory_region(reinterpret_cast<void*>(start), size);
#endif
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: runner LAUNCH RESULTS\n";
    return 2;
  }
  std::ifstream in(argv[1], std::ios::binary);
  std::string name(read<std::uint32_t>(in), '\0');
  in.read(name.data(), static_cast<std::streamsize>(name.size()));

  emulator::Request request{};
  request.kernel = name.c_str();
  for (auto& size : request.grid) size = read<std::uint32_t>(in);
  for (auto& size : request.block) size = read<std::uint32_t>(in);
  request.shared = read<std::uint64_t>(in);
  request.seed = read<std::uint64_t>(in);
  request.count = read<std::uint32_t>(in);

  std::vector<Memory> memory;
  std::vector<void*> addresses(request.count), args;
  std::vector<std::uint64_t> sizes;
  std::vector<emulator::Kind> kinds;
  for (std::size_t i = 0; i < request.count; ++i) {
    kinds.push_back(read<emulator::Kind>(in));
    sizes.push_back(read<std::uint64_t>(in));
    memory.push_back(read_bytes(in, sizes[i]));
    addresses[i] = memory[i].get();
    const bool is_array =
        kinds[i] == emulator::Kind::array || kinds[i] == emulator::Kind::read_only_array;
    args.push_back(is_array ? &addresses[i] : addresses[i]);
  }
  std::string arena(read<std::uint32_t>(in), '\0');
  in.read(arena.data(), static_cast<std::streamsize>(arena.size()));
  const auto base = read<std::uint64_t>(in), used = read<std::uint64_t>(in);
  if (!arena.empty()) map_arena(arena, base, used);
  for (auto count = read<std::uint64_t>(in); count > 0; --count) {
    const auto start = read<std::uint64_t>(in), size = read<std::uint64_t>(in);
    unpoison(start, size);
  }
  if (!in) {
    std::cerr << "cannot read " << argv[1] << "\n";
    return 2;
  }
  request.args = args.data();
  request.sizes = sizes.data();
  request.kinds = kinds.data();

  char message[1024];
  if (cvops_emulator_launch(&request, message, sizeof message)) {
    std::cerr << message << "\n";
    return 3;
  }
  std::ofstream out(argv[2], std::ios::binary);
  for (std::size_t i = 0; i < request.count; ++i) {
    if (kinds[i] != emulator::Kind::array) continue;
    out.write(static_cast<char*>(addresses[i]), static_cast<std::streamsize>(sizes[i]));
  }
  return out.flush() ? 0 : 2;
}
