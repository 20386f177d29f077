// Fibers: many stacks on one OS thread, and the switch from one to another.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <new>

#include "sanitizers.h"

#if !defined(__x86_64__) || defined(EMULATOR_UCONTEXT)
#include <ucontext.h>
#define EMULATOR_UCONTEXT 1
#else
// Saves what the System V ABI lets a function expect to keep, swaps the stacks, and returns on the
// other one. ucontext does the same with a system call on top, 20 times slower. Weak, as each
// object file of an extension brings a copy.
extern "C" void cvops_emulator_switch(void** save_stack_pointer, void* load_stack_pointer);
asm(R"(
  .text
  .weak cvops_emulator_switch
  .hidden cvops_emulator_switch
  .type cvops_emulator_switch, @function
cvops_emulator_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .size cvops_emulator_switch, . - cvops_emulator_switch
)");
#endif

namespace emulator {

// Sanitized code needs several times the stack.
constexpr std::size_t kStackBytes = kSanitized ? 256 << 10 : 64 << 10;

// A place to run: its own stack, or, for the scheduler, the OS thread's.
struct Fiber {
#ifdef EMULATOR_UCONTEXT
  ucontext_t context;
#else
  void* stack_pointer = nullptr;
#endif
  const void* stack = nullptr;  // lowest address
  std::size_t stack_bytes = 0;
  void* fake_stack = nullptr;  // AddressSanitizer's
  void* tsan = nullptr;        // ThreadSanitizer's

  // The next switch to this fiber calls entry(), which must never return.
  EMULATOR_UNTRACED void start(char* own_stack, void (*entry)()) {
    stack = own_stack;
    stack_bytes = kStackBytes;
#ifdef EMULATOR_UCONTEXT
    getcontext(&context);
    context.uc_stack.ss_sp = own_stack;
    context.uc_stack.ss_size = kStackBytes;
    context.uc_link = nullptr;
    makecontext(&context, entry, 0);
#else
    // As cvops_emulator_switch leaves it: six registers, then where to return to. One more word
    // stands for entry's own return address, so that the stack is aligned as after a call.
    void** top = reinterpret_cast<void**>(own_stack + kStackBytes - 64);
    *--top = nullptr;
    *--top = reinterpret_cast<void*>(entry);
    stack_pointer = top - 6;
#endif
  }
};

// Leaves `from`, which must be running; returns when somebody switches back to it.
EMULATOR_UNTRACED inline void switch_fiber(Fiber& from, Fiber& to) {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_start_switch_fiber(&from.fake_stack, to.stack, to.stack_bytes);
#endif
#ifdef __SANITIZE_THREAD__
  __tsan_switch_to_fiber(to.tsan, __tsan_switch_to_fiber_no_sync);
#endif
#ifdef EMULATOR_UCONTEXT
  swapcontext(&from.context, &to.context);
#else
  cvops_emulator_switch(&from.stack_pointer, to.stack_pointer);
#endif
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(from.fake_stack, nullptr, nullptr);
#endif
}

// The first thing a new fiber does. `from` is the one it was started by: an OS thread's stack,
// whose bounds AddressSanitizer tells here.
inline void enter_fiber([[maybe_unused]] Fiber& from) {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(nullptr, &from.stack, &from.stack_bytes);
#endif
}

// Stacks for `count` fibers. Pages come only as they are touched.
class Stacks {
 public:
  explicit Stacks(std::size_t count) : bytes_(count * kStackBytes) {
    void* memory = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    memory_ = static_cast<char*>(memory);
  }
  ~Stacks() { munmap(memory_, bytes_); }
  Stacks(const Stacks&) = delete;
  Stacks& operator=(const Stacks&) = delete;

  char* operator[](std::size_t i) const { return memory_ + i * kStackBytes; }

 private:
  std::size_t bytes_;
  char* memory_;
};

}  // namespace emulator
