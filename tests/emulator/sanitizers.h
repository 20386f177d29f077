// Annotations for AddressSanitizer and ThreadSanitizer; without them this header does nothing.
//
// For ThreadSanitizer each CUDA thread is a fiber, and only annotations order two fibers:
// happens_before(x) in one, then happens_after(x) in the other. The data structures of the emulator
// are EMULATOR_UNTRACED: one OS thread uses them, so they have no races.
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
