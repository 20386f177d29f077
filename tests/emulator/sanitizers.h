// What AddressSanitizer and ThreadSanitizer must be told about the emulator; nothing without them.
//
// To ThreadSanitizer each CUDA thread is a thread of its own (a fiber), and no order holds between
// two of them but the one we state: happens_before(x) in one, then happens_after(x) in the other.
// The emulator's own bookkeeping is EMULATOR_UNTRACED, for it runs on one OS thread and cannot
// race.
#pragma once

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
#define EMULATOR_UNTRACED __attribute__((no_sanitize("thread"), noinline))
#else
#define EMULATOR_UNTRACED
#endif

namespace emulator {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

EMULATOR_UNTRACED inline void happens_before([[maybe_unused]] void* object) {
#ifdef __SANITIZE_THREAD__
  __tsan_release(object);
#endif
}

EMULATOR_UNTRACED inline void happens_after([[maybe_unused]] void* object) {
#ifdef __SANITIZE_THREAD__
  __tsan_acquire(object);
#endif
}

}  // namespace emulator
