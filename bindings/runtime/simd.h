// Functions that are compiled for each vector width, of which the machine's is taken at run time.
// Results do not depend on it: every operation is rounded alike, and none are contracted.
#pragma once

// Of a piece of an inner loop, which is slow as a function of its own.
#define CVOPS_INLINE inline __attribute__((always_inline))

// Some loops take two small numbers, or the bytes of a colour, as one large one.
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "");

namespace cvops {

// Vectors, for what is to stay in registers side by side. On x86 they have AVX2's width: of wider
// ones the compiler makes scalars where it cannot have them whole.
#ifdef __x86_64__
constexpr int kWidth = 8;
#else
constexpr int kWidth = 4;
#endif
typedef float FloatVector __attribute__((vector_size(4 * kWidth)));
typedef int IntVector __attribute__((vector_size(4 * kWidth)));

// In rising order. Baseline is what the compiler takes for granted: SSE2 on x86-64, NEON on ARM.
enum class Simd { baseline, avx2, avx512 };

constexpr const char* kSimdNames[] = {"baseline", "avx2", "avx512"};

// The widest that this machine has.
Simd widest_simd();

// What functions run as: the widest, or what CVOPS_SIMD or set_simd said.
extern Simd current_simd;

// `simd` is not beyond the widest.
void set_simd(Simd simd);

// simd<f>(args...) is f(args...), with f and all that it calls compiled for the vectors at hand.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(CVOPS_EMULATED)
template <auto kFunction, typename... Args>
__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,bmi,bmi2,popcnt"), flatten)) auto
as_avx512(Args&&... args) {
  return kFunction(args...);
}

template <auto kFunction, typename... Args>
__attribute__((target("avx2,bmi,bmi2,popcnt"), flatten)) auto as_avx2(Args&&... args) {
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
