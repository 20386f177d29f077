#include "result_pool.h"

#include <pthread.h>
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <mutex>
#include <new>
#include <vector>

namespace cvops {
namespace {

constexpr int64 kMiB = 1 << 20, kHugePage = 2 * kMiB, kDefaultSize = 256 * kMiB;
// Bytes of the latest blocks that the system cannot reclaim: the call that permits it takes some
// microseconds.
constexpr int64 kMaxHeld = 16 * kMiB;
// More would not fit into the address space.
constexpr int64 kMaxSize = int64(1) << 46;

// Returns CVOPS_RESULT_POOL in bytes; the default if it is no number of MiB.
int64 size_from_environment() {
  const char* text = std::getenv("CVOPS_RESULT_POOL");
  if (!text || !*text) return kDefaultSize;
  char* end;
  errno = 0;
  const long long number = std::strtoll(text, &end, 10);
  if (*end || errno || number < 0) return kDefaultSize;
  return std::min<int64>(number, kMaxSize / kMiB) * kMiB;
}

// Rounds up to an eighth of a power of two, so that results of similar sizes share blocks.
int64 block_bytes(int64 bytes) {
  int64 step = kMinPooled / 8;
  while (16 * step <= bytes) step *= 2;
  return ceil_div(bytes, step) * step;
}

void unmap(void* memory, int64 bytes) {
  if (bytes > 0) munmap(memory, (size_t)bytes);
}

// Maps pages at a multiple of a huge page. They become huge where whole huge pages fit.
void* map(int64 bytes) {
  const int64 all = bytes + kHugePage;
  void* mapped =
      mmap(nullptr, (size_t)all, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  char* const begin = static_cast<char*>(mapped);
  const int64 before = -reinterpret_cast<int64>(begin) & (kHugePage - 1);
  unmap(begin, before);
  unmap(begin + before + bytes, kHugePage - before);
#ifdef MADV_HUGEPAGE
  madvise(begin + before, (size_t)bytes, MADV_HUGEPAGE);
#endif
  return begin + before;
}

struct KeptBlock : ResultBlock {
  bool held;  // false: the system may reclaim its huge pages
};

class Pool {
 public:
  Pool() : size_(size_from_environment()) { pthread_atfork(before_fork, after_fork, after_fork); }

  ResultBlock take(int64 bytes) {
    std::lock_guard<std::mutex> lock(mutex_);
    // Sums of sizes of blocks stay in range.
    if (bytes > size_) return {};
    ResultBlock block = {nullptr, block_bytes(bytes)};
    // The block that was given last is the likeliest to be in a cache.
    const auto found = std::find_if(blocks_.rbegin(), blocks_.rend(), [&](const KeptBlock& kept) {
      return kept.bytes == block.bytes;
    });
    if (found != blocks_.rend()) {
      block.memory = found->memory;
      remove(*found);
      blocks_.erase(std::next(found).base());
      return block;
    }
    block.memory = map(block.bytes);
    if (!block.memory) {  // kept blocks may occupy what is missing
      release();
      block.memory = map(block.bytes);
    }
    return block;
  }

  void give(ResultBlock block) {
    std::lock_guard<std::mutex> lock(mutex_);
    try {
      blocks_.push_back({block, true});
    } catch (const std::bad_alloc&) {
      return unmap(block.memory, block.bytes);
    }
    kept_ += block.bytes, held_ += block.bytes;
    shrink(size_);
    for (KeptBlock& kept : blocks_) {
      if (held_ <= kMaxHeld) break;
      let_go(kept);
    }
  }

  void resize(int64 size) {
    std::lock_guard<std::mutex> lock(mutex_);
    size_ = std::clamp<int64>(size, 0, kMaxSize);
    shrink(size_);
  }

  void clear() {
    std::lock_guard<std::mutex> lock(mutex_);
    release();
  }

  int64 kept() {
    std::lock_guard<std::mutex> lock(mutex_);
    return kept_;
  }

  int64 size() {
    std::lock_guard<std::mutex> lock(mutex_);
    return size_;
  }

 private:
  // Both processes of a fork would share the pages, and copy those that they write.
  static void before_fork();
  static void after_fork();

  void release() { shrink(0); }

  // Permits the system to reclaim a block, except small pages: there are too many of them.
  void let_go(KeptBlock& block) {
    if (!block.held) return;
#ifdef MADV_FREE
    const int64 huge = block.bytes & -kHugePage;
    if (huge) madvise(block.memory, (size_t)huge, MADV_FREE);
#endif
    block.held = false;
    held_ -= block.bytes;
  }

  // Subtracts a block from the sums.
  void remove(const KeptBlock& block) {
    kept_ -= block.bytes;
    if (block.held) held_ -= block.bytes;
  }

  // Frees the oldest blocks until the others have at most that number of bytes.
  void shrink(int64 most) {
    auto end = blocks_.begin();
    for (; kept_ > most; ++end) {
      unmap(end->memory, end->bytes);
      remove(*end);
    }
    blocks_.erase(blocks_.begin(), end);
  }

  std::mutex mutex_;               // protects the members below
  std::vector<KeptBlock> blocks_;  // in the order in which they were given
  int64 kept_ = 0, held_ = 0, size_;
};

// Never destroyed: a result can outlive static objects.
Pool& pool() {
  static Pool& pool = *new Pool;
  return pool;
}

void Pool::before_fork() {
  pool().mutex_.lock();
  pool().release();
}

void Pool::after_fork() { pool().mutex_.unlock(); }

}  // namespace

ResultBlock take_result(int64 bytes) { return pool().take(bytes); }
void give_result(ResultBlock block) { pool().give(block); }
int64 kept_result_bytes() { return pool().kept(); }
int64 result_pool_size() { return pool().size(); }
void set_result_pool_size(int64 bytes) { pool().resize(bytes); }
void release_results() { pool().clear(); }

}  // namespace cvops
