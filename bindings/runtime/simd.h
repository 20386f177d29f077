// Functions compiled for each vector width; the width is selected at run time. Results do not
// depend on it: every operation is rounded identically, and none are contracted.
#pragma once
#include <type_traits>

// Forces a piece of an inner loop inline. It would be slow as a separate function.
#define CVOPS_INLINE inline __attribute__((always_inline))

// Before a loop: its iterations are independent.
#ifdef __clang__
#define CVOPS_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define CVOPS_INDEPENDENT _Pragma("GCC ivdep")
#endif

// Before a loop of few iterations, or that only fills memory: the compiler vectorizes it and does
// not unroll it. CVOPS_NOT_UNROLLED is for loops that g++ would unroll and then not vectorize.
#ifdef __clang__
#define CVOPS_VECTORIZED _Pragma("clang loop vectorize(enable) interleave(disable) unroll(disable)")
#define CVOPS_NOT_UNROLLED CVOPS_VECTORIZED
#else
#define CVOPS_VECTORIZED
#define CVOPS_NOT_UNROLLED _Pragma("GCC unroll 1")
#endif

// Some loops load two small numbers, or the bytes of a color, as one large number.
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "");

namespace cvops {

// Vector types for values that stay in registers. On x86 they have the width of AVX2: the compiler
// splits wider ones into scalars if the target lacks them.
#ifdef __x86_64__
constexpr int kWidth = 8;
#else
constexpr int kWidth = 4;
#endif
typedef float FloatVector __attribute__((vector_size(4 * kWidth)));
typedef double DoubleVector __attribute__((vector_size(4 * kWidth)));
typedef int IntVector __attribute__((vector_size(4 * kWidth)));

// Rounded up to whole vectors, so that no scalar remainder is left.
constexpr int whole_vectors(int num) { return (num + kWidth - 1) / kWidth * kWidth; }

// The vector of T, float or double, and its number of elements.
template <typename T>
using VectorOf = std::conditional_t<std::is_same_v<T, double>, DoubleVector, FloatVector>;
template <typename T>
constexpr int kWidthOf = (int)(sizeof(VectorOf<T>) / sizeof(T));

// In ascending order. Baseline is the default of the compiler: SSE2 on x86-64, NEON on ARM.
enum class Simd { baseline, avx2, avx512 };

constexpr const char* kSimdNames[] = {"baseline", "avx2", "avx512"};

// Widest vectors of this machine.
Simd widest_simd();

// Vectors in use: the widest, or those that CVOPS_SIMD or set_simd selects.
extern Simd current_simd;

// `simd` must not exceed widest_simd().
void set_simd(Simd simd);

// simd<f>(args...) is f(args...), with f and all its callees compiled for the vectors in use.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(CVOPS_EMULATED)
// Before a function that calls intrinsics.
#define CVOPS_AVX2 __attribute__((target("avx2,bmi,bmi2,popcnt")))
#define CVOPS_AVX512 \
  __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,bmi,bmi2,popcnt")))

template <auto kFunction, typename... Args>
CVOPS_AVX512 __attribute__((flatten)) auto as_avx512(Args&&... args) {
  return kFunction(args...);
}

template <auto kFunction, typename... Args>
CVOPS_AVX2 __attribute__((flatten)) auto as_avx2(Args&&... args) {
  return kFunction(args...);
}

template <auto kFunction, typename... Args>
inline auto simd(Args&&... args) {
  switch (current_simd) {
    case Simd::avx512:
      return as_avx512<kFunction>(args...);
    case Simd::avx2:
      return as_avx2<kFunction>(args...);
    default:
      return kFunction(args...);
  }
}
#else
template <auto kFunction, typename... Args>
inline auto simd(Args&&... args) {
  return kFunction(args...);
}
#endif

}  // namespace cvops
