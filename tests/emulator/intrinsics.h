// CUDA's functions of one thread: bits, casts, loads and stores, correctly rounded arithmetic.
//
// Functions that a GPU approximates (rsqrtf, __fdividef, __expf ...) are missing on purpose,
// because their results would differ from those of a CPU. A kernel with one of them does not
// compile.
#pragma once

#include <math.h>
#include <stdlib.h>

#include <cstring>
#include <limits>
#include <type_traits>

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
inline int __clzll(long long x) { return x ? __builtin_clzll(x) : 64; }

inline unsigned __brev(unsigned x) {
  unsigned reversed = 0;
  for (int i = 0; i < 32; ++i) reversed |= (x >> i & 1) << (31 - i);
  return reversed;
}

namespace emulator {

template <typename To, typename From>
To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

// Converts a float to an int as a GPU does: saturates out of range, and gives 0 for NaN. (A cast to
// int is then undefined in C++.)
inline int to_int(float rounded) {
  if (!(rounded == rounded)) return 0;
  if (rounded >= 2147483648.f) return std::numeric_limits<int>::max();
  if (rounded < -2147483648.f) return std::numeric_limits<int>::min();
  return static_cast<int>(rounded);
}

}  // namespace emulator

inline unsigned __float_as_uint(float x) { return emulator::bit_cast<unsigned>(x); }
inline float __uint_as_float(unsigned x) { return emulator::bit_cast<float>(x); }
inline int __float_as_int(float x) { return emulator::bit_cast<int>(x); }
inline float __int_as_float(int x) { return emulator::bit_cast<float>(x); }
inline long long __double_as_longlong(double x) { return emulator::bit_cast<long long>(x); }
inline double __longlong_as_double(long long x) { return emulator::bit_cast<double>(x); }

inline int __float2int_rn(float x) { return emulator::to_int(rintf(x)); }
inline int __float2int_rz(float x) { return emulator::to_int(truncf(x)); }
inline int __float2int_rd(float x) { return emulator::to_int(floorf(x)); }
inline int __float2int_ru(float x) { return emulator::to_int(ceilf(x)); }
inline float __int2float_rn(int x) { return static_cast<float>(x); }
inline float __double2float_rn(double x) { return static_cast<float>(x); }

inline float __fadd_rn(float x, float y) { return x + y; }
inline float __fsub_rn(float x, float y) { return x - y; }
inline float __fmul_rn(float x, float y) { return x * y; }
inline float __fdiv_rn(float x, float y) { return x / y; }
inline float __fsqrt_rn(float x) { return sqrtf(x); }
inline float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }
inline double __dadd_rn(double x, double y) { return x + y; }
inline double __dsub_rn(double x, double y) { return x - y; }
inline double __dmul_rn(double x, double y) { return x * y; }
inline double __ddiv_rn(double x, double y) { return x / y; }
inline double __fma_rn(double x, double y, double z) { return fma(x, y, z); }

// Loads and stores with cache hints, which have no effect here.
#define EMULATOR_LOAD(name)  \
  template <typename T>      \
  T name(const T* address) { \
    return *address;         \
  }
#define EMULATOR_STORE(name)                           \
  template <typename T>                                \
  void name(T* address, std::common_type_t<T> value) { \
    *address = value;                                  \
  }
EMULATOR_LOAD(__ldg)
EMULATOR_LOAD(__ldca)
EMULATOR_LOAD(__ldcg)
EMULATOR_LOAD(__ldcs)
EMULATOR_STORE(__stwb)
EMULATOR_STORE(__stcg)
EMULATOR_STORE(__stcs)
#undef EMULATOR_LOAD
#undef EMULATOR_STORE

// A load that does not use a cached value: another thread may write it by an atomic function.
template <typename T>
T __ldcv(const T* address) {
  T value;
  __atomic_load(address, &value, __ATOMIC_RELAXED);
  return value;
}

namespace emulator {

// The type of CUDA's min and max: that of a + b. For nvcc, an integer and a float are ambiguous.
template <typename A, typename B>
struct Common {
  static_assert(std::is_arithmetic_v<A> && std::is_arithmetic_v<B>);
  static_assert(std::is_floating_point_v<A> == std::is_floating_point_v<B>,
                "min and max of an integer and a float: ambiguous in CUDA");
  using type = decltype(A() + B());
};

}  // namespace emulator

// min and max of a number and a NaN are the number, like fminf and fmaxf.
template <typename A, typename B>
typename emulator::Common<A, B>::type min(A a, B b) {
  using T = typename emulator::Common<A, B>::type;
  const T x = static_cast<T>(a), y = static_cast<T>(b);
  if constexpr (std::is_same_v<T, float>) return fminf(x, y);
  if constexpr (std::is_same_v<T, double>) return fmin(x, y);
  return y < x ? y : x;
}

template <typename A, typename B>
typename emulator::Common<A, B>::type max(A a, B b) {
  using T = typename emulator::Common<A, B>::type;
  const T x = static_cast<T>(a), y = static_cast<T>(b);
  if constexpr (std::is_same_v<T, float>) return fmaxf(x, y);
  if constexpr (std::is_same_v<T, double>) return fmax(x, y);
  return x < y ? y : x;
}
