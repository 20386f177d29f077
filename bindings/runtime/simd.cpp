#include "simd.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace cvops {

Simd widest_simd() {
#if defined(__x86_64__) && defined(__GNUC__)
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("bmi2")) return Simd::baseline;
  for (bool has : {__builtin_cpu_supports("avx512f"), __builtin_cpu_supports("avx512bw"),
                   __builtin_cpu_supports("avx512dq"), __builtin_cpu_supports("avx512vl")}) {
    if (!has) return Simd::avx2;
  }
  return Simd::avx512;
#else
  return Simd::baseline;
#endif
}

static Simd first_simd() {
  const Simd widest = widest_simd();
  const char* wanted = std::getenv("CVOPS_SIMD");
  for (int i = 0; wanted && i < 3; ++i) {
    if (!std::strcmp(wanted, kSimdNames[i])) return std::min(widest, (Simd)i);
  }
  return widest;
}

Simd current_simd = first_simd();

void set_simd(Simd simd) { current_simd = simd; }

}  // namespace cvops
