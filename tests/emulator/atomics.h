// Atomic functions for the types that CUDA supports, and fences.
//
// The memory order is relaxed, as in CUDA: under ThreadSanitizer, an atomic function does not order
// other accesses.
#pragma once

#include <type_traits>

#include "sanitizers.h"

namespace emulator {

template <typename T, typename... Allowed>
constexpr bool is_one_of = (std::is_same_v<T, Allowed> || ...);

using ull = unsigned long long;

// A parameter of the pointer's type without template deduction: atomicAdd(&unsigned_count, 1).
template <typename T>
struct SameAsPointer {
  using type = T;
};
template <typename T>
using Value = typename SameAsPointer<T>::type;

// Replaces *address by update(*address), and returns the old value.
template <typename T, typename Update>
T atomic_update(T* address, Update update) {
  T old, desired;
  __atomic_load(address, &old, __ATOMIC_RELAXED);
  do {
    desired = update(old);
  } while (!__atomic_compare_exchange(address, &old, &desired, false, __ATOMIC_RELAXED,
                                      __ATOMIC_RELAXED));
  return old;
}

inline char fence_event;

}  // namespace emulator

template <typename T>
T atomicAdd(T* address, emulator::Value<T> value) {
  static_assert(emulator::is_one_of<T, int, unsigned, emulator::ull, float, double>);
  return emulator::atomic_update(address, [=](T old) { return old + value; });
}

template <typename T>
T atomicSub(T* address, emulator::Value<T> value) {
  static_assert(emulator::is_one_of<T, int, unsigned>);
  return emulator::atomic_update(address, [=](T old) { return old - value; });
}

template <typename T>
T atomicMin(T* address, emulator::Value<T> value) {
  static_assert(emulator::is_one_of<T, int, unsigned, long long, emulator::ull>);
  return emulator::atomic_update(address, [=](T old) { return value < old ? value : old; });
}

template <typename T>
T atomicMax(T* address, emulator::Value<T> value) {
  static_assert(emulator::is_one_of<T, int, unsigned, long long, emulator::ull>);
  return emulator::atomic_update(address, [=](T old) { return old < value ? value : old; });
}

template <typename T>
T atomicAnd(T* address, emulator::Value<T> value) {
  static_assert(emulator::is_one_of<T, int, unsigned, emulator::ull>);
  return __atomic_fetch_and(address, value, __ATOMIC_RELAXED);
}

template <typename T>
T atomicOr(T* address, emulator::Value<T> value) {
  static_assert(emulator::is_one_of<T, int, unsigned, emulator::ull>);
  return __atomic_fetch_or(address, value, __ATOMIC_RELAXED);
}

template <typename T>
T atomicXor(T* address, emulator::Value<T> value) {
  static_assert(emulator::is_one_of<T, int, unsigned, emulator::ull>);
  return __atomic_fetch_xor(address, value, __ATOMIC_RELAXED);
}

template <typename T>
T atomicExch(T* address, emulator::Value<T> value) {
  static_assert(emulator::is_one_of<T, int, unsigned, emulator::ull, float>);
  T old;
  __atomic_exchange(address, &value, &old, __ATOMIC_RELAXED);
  return old;
}

template <typename T>
T atomicCAS(T* address, emulator::Value<T> expected, emulator::Value<T> desired) {
  static_assert(emulator::is_one_of<T, int, unsigned, emulator::ull>);
  __atomic_compare_exchange_n(address, &expected, desired, false, __ATOMIC_RELAXED,
                              __ATOMIC_RELAXED);
  return expected;  // the exchange writes the old value into it
}

// ThreadSanitizer does not support fences. Here, each fence comes after all earlier fences.
EMULATOR_UNTRACED inline void __threadfence() {
#ifdef __SANITIZE_THREAD__
  emulator::happens_after(&emulator::fence_event);
  emulator::happens_before(&emulator::fence_event);
#else
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
#endif
}
inline void __threadfence_block() { __threadfence(); }
inline void __threadfence_system() { __threadfence(); }
