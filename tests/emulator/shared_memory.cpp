#include "shared_memory.h"

#include <link.h>

#include <cstdlib>
#include <cstring>
#include <new>

namespace emulator {

constexpr int kJunk = 0xCD;

DynamicShared::DynamicShared(std::size_t bytes) : data_(bytes ? std::malloc(bytes) : nullptr) {
  if (bytes && !data_) throw std::bad_alloc();
  if (bytes) std::memset(data_, kJunk, bytes);
}

DynamicShared::~DynamicShared() { std::free(data_); }

namespace {

struct Search {
  const char* address;
  ThreadLocals found;
};

// Called for each library of the process, until it returns 1.
int visit(dl_phdr_info* library, std::size_t, void* data) {
  auto* search = static_cast<Search*>(data);
  auto* begin = static_cast<char*>(library->dlpi_tls_data);
  for (int i = 0; i < library->dlpi_phnum; ++i) {
    const auto& segment = library->dlpi_phdr[i];
    if (segment.p_type != PT_TLS) continue;
    if (search->address < begin || search->address >= begin + segment.p_memsz) continue;
    search->found = {begin, segment.p_memsz};
    return 1;
  }
  return 0;
}

}  // namespace

ThreadLocals ThreadLocals::around(const void* address) {
  Search search = {static_cast<const char*>(address), {}};
  dl_iterate_phdr(&visit, &search);
  return search.found;
}

void ThreadLocals::fill_with_junk() const {
  if (bytes) std::memset(begin, kJunk, bytes);
}

}  // namespace emulator
