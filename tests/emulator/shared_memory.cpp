#include "shared_memory.h"

#include <dlfcn.h>
#include <link.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <mutex>
#include <new>
#include <string>

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

// dl_iterate_phdr calls it for each library of the process, until it returns 1.
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

namespace {

// Calls use(name, symbol) for each symbol of a library or program, including local symbols.
template <typename Use>
void for_each_symbol(const std::string& file, const Use& use) {
  const auto* header = reinterpret_cast<const ElfW(Ehdr)*>(file.data());
  const auto* sections = reinterpret_cast<const ElfW(Shdr)*>(file.data() + header->e_shoff);
  for (int i = 0; i < header->e_shnum; ++i) {
    if (sections[i].sh_type != SHT_SYMTAB) continue;
    const char* names = file.data() + sections[sections[i].sh_link].sh_offset;
    const auto* symbols = reinterpret_cast<const ElfW(Sym)*>(file.data() + sections[i].sh_offset);
    for (std::size_t k = 0; k < sections[i].sh_size / sizeof *symbols; ++k) {
      use(std::string(names + symbols[k].st_name), symbols[k]);
    }
  }
}

std::size_t find_static_shared(const void* kernel) {
  Dl_info library;
  if (!dladdr(kernel, &library)) return 0;
  std::ifstream stream(library.dli_fname, std::ios::binary);
  if (!stream) stream.open("/proc/self/exe", std::ios::binary);
  const std::string file{std::istreambuf_iterator<char>(stream), {}};
  const auto at = static_cast<const char*>(kernel) - static_cast<char*>(library.dli_fbase);
  std::string prefix;  // of the mangled names of the kernel's variables
  for_each_symbol(file, [&](const std::string& name, const ElfW(Sym) & symbol) {
    const bool is_kernel =
        ELF64_ST_TYPE(symbol.st_info) == STT_FUNC && symbol.st_value == static_cast<ElfW(Addr)>(at);
    if (is_kernel) prefix = "_ZZ" + std::to_string(name.size()) + name + "E";
  });
  std::size_t bytes = 0;
  for_each_symbol(file, [&](const std::string& name, const ElfW(Sym) & symbol) {
    const int type = ELF64_ST_TYPE(symbol.st_info);
    if (type != STT_TLS && type != STT_OBJECT) return;
    if (!prefix.empty() && name.compare(0, prefix.size(), prefix) == 0) bytes += symbol.st_size;
  });
  return bytes;
}

}  // namespace

std::size_t static_shared(const void* kernel) {
  static std::mutex mutex;
  static std::map<const void*, std::size_t> known;
  const std::lock_guard<std::mutex> lock(mutex);
  const auto [at, is_new] = known.try_emplace(kernel);
  if (is_new) at->second = find_static_shared(kernel);
  return at->second;
}

void ThreadLocals::fill_with_junk() const {
  if (bytes) std::memset(begin, kJunk, bytes);
}

}  // namespace emulator
