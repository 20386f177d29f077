// Fibers: several stacks on one OS thread, and the switch between them.
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
// Saves the callee-saved registers of the System V ABI, swaps the stacks, and returns on the other
// stack. ucontext is slower, because it makes a system call. The symbol is weak because several
// object files have a copy.
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

// Sanitized code needs larger stacks.
constexpr std::size_t kStackBytes = kSanitized ? 256 << 10 : 64 << 10;

// An execution context with its own stack, or the scheduler with the stack of the OS thread.
struct Fiber {
#ifdef EMULATOR_UCONTEXT
  ucontext_t context;
#else
  void* stack_pointer = nullptr;
#endif
  const void* stack = nullptr;  // lowest address
  std::size_t stack_bytes = 0;
  void* fake_stack = nullptr;  // of AddressSanitizer
  void* tsan = nullptr;        // the fiber of ThreadSanitizer

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
    // The stack has the layout of cvops_emulator_switch: six registers, then the return address.
    // The word above is the return address of entry, which aligns the stack as after a call.
    void** top = reinterpret_cast<void**>(own_stack + kStackBytes - 64);
    *--top = nullptr;
    *--top = reinterpret_cast<void*>(entry);
    stack_pointer = top - 6;
#endif
  }
};

// Switches from the running fiber `from` to another; returns at the switch back to `from`.
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

// Must be the first call of a new fiber. `from` is the fiber that started it, on the stack of an OS
// thread; AddressSanitizer writes the bounds of that stack into it.
inline void enter_fiber([[maybe_unused]] Fiber& from) {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(nullptr, &from.stack, &from.stack_bytes);
#endif
}

// Stacks for `count` fibers. The system provides a page at its first access.
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
