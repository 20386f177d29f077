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

// Vector of T for values that stay in registers, with the bytes of kWidth floats.
template <typename T, int kWidth>
struct VectorType {
  typedef T Type __attribute__((vector_size(4 * kWidth)));
  typedef T InMemory __attribute__((vector_size(4 * kWidth), aligned(sizeof(T)), may_alias));
};
template <typename T, int kWidth>
using Vector = typename VectorType<T, kWidth>::Type;

// Loads a vector from any address. GCC would copy one of AVX2 in two parts by memcpy.
template <int kWidth, typename T>
CVOPS_INLINE void load(Vector<T, kWidth>& vector, const T* from) {
  vector = *(const typename VectorType<T, kWidth>::InMemory*)from;
}
template <int kWidth, typename T>
CVOPS_INLINE void store(T* to, const Vector<T, kWidth>& vector) {
  *(typename VectorType<T, kWidth>::InMemory*)to = vector;
}

// Number of floats of the widest vectors of a target without AVX-512. Rounded up to them, a number
// of floats leaves no scalar remainder to a loop that the compiler vectorizes.
#ifdef __x86_64__
constexpr int kUsualWidth = 8;
#else
constexpr int kUsualWidth = 4;
#endif
constexpr int whole_vectors(int num) { return (num + kUsualWidth - 1) / kUsualWidth * kUsualWidth; }

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
//
// by_width(body) is the same for body(width), a function object. The constant `width` is the number
// of floats of a vector of the target: the compiler splits wider ones into scalars.
template <int kWidth>
using Width = std::integral_constant<int, kWidth>;

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

template <int kWidth, typename Body>
CVOPS_INLINE auto with_width(const Body& body) {
  return body(Width<kWidth>());
}

template <typename Body>
inline auto by_width(const Body& body) {
  switch (current_simd) {
    case Simd::avx512:
      return as_avx512<with_width<16, Body>>(body);
    case Simd::avx2:
      return as_avx2<with_width<8, Body>>(body);
    default:
      return body(Width<4>());
  }
}
#else
template <auto kFunction, typename... Args>
inline auto simd(Args&&... args) {
  return kFunction(args...);
}

template <typename Body>
inline auto by_width(const Body& body) {
  return body(Width<4>());
}
#endif

}  // namespace cvops
