// Selection of some of many numbers.
#pragma once
#include "common.cuh"
#include "simd.h"
#ifdef CVOPS_AVX512
#include <immintrin.h>
#endif

namespace cvops::cpu {

#ifdef CVOPS_AVX512
CVOPS_AVX512 inline int append_avx512(int* to, const int* from, const int* is_selected, int num) {
  int count = 0;
  for (int k = 0; k < num; k += 16) {
    const __mmask16 exist = k + 16 <= num ? 0xffff : (1 << (num - k)) - 1;
    const __mmask16 selected = _mm512_mask_test_epi32_mask(
        exist, _mm512_loadu_si512(is_selected + k), _mm512_set1_epi32(1));
    const __m512i numbers = _mm512_maskz_loadu_epi32(exist, from + k);
    const int more = __builtin_popcount(selected);
    const __mmask16 whole = (1 << more) - 1;
    _mm512_mask_storeu_epi32(to + count, whole, _mm512_maskz_compress_epi32(selected, numbers));
    count += more;
  }
  return count;
}
#endif

// Copies those of `num` numbers whose flag is 1, not 0, and returns how many these are. The
// destination may be the source. Flags exist for whole vectors.
template <int kWidth>
CVOPS_INLINE int append(int* to, const int* from, const int* is_selected, int num) {
#ifdef CVOPS_AVX512
  if constexpr (kWidth == 16) return append_avx512(to, from, is_selected, num);
#endif
  int count = 0;
  for (int k = 0; k < num; ++k) {
    to[count] = from[k];
    count += is_selected[k];
  }
  return count;
}

}  // namespace cvops::cpu
