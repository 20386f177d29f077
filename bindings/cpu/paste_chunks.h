// Pixels of pasted masks, by chunks of columns.
#pragma once
#include <algorithm>
#include <cstring>
#include <vector>

#include "paste_masks.h"
#include "simd.h"

#ifdef CVOPS_AVX2
#include <immintrin.h>
#endif

namespace cvops::cpu {

constexpr int kPasteColumns = 64;  // of a chunk
constexpr int kPasteRows = 32;     // that are interpolated at once

// Pixels of an axis whose centers are in a box, and their samples. The vectors have the elements of
// a chunk or more.
struct PasteSamples {
  Range pixels;
  std::vector<int> low;
  std::vector<float> low_weight, high_weight;

  int size() const { return pixels.end - pixels.begin; }
};

// Columns of a box. `low` is an index in `cells`; the high cell is the next one. The last of
// several chunks overlaps the previous one. A single chunk can have spare columns, which repeat the
// last.
struct PasteColumns : PasteSamples {
  std::vector<int> cells;  // that the columns use, ascending
  int window;              // adjacent columns whose cells fit into a vector; 0: too few
  std::vector<int> lanes;  // by chunks: of the low cell in the vector of the window

  int chunks() const { return (size() + kPasteColumns - 1) / kPasteColumns; }
  int begin(int chunk) const {
    return std::max(0, std::min(chunk * kPasteColumns, size() - kPasteColumns));
  }
  int width() const { return std::min(kPasteColumns, size()); }
};

// Cells that are interpolated between two rows of a mask, for `rows` rows of pixels. A vector can
// be read at each cell.
struct PasteLines {
  const float* first;
  int64 pitch;
  int rows;
};

// Writes the rows of a chunk, which are `pitch` bytes apart.
inline void paste_chunk(unsigned char* __restrict__ out, int64 pitch, PasteLines lines,
                        const PasteColumns& columns, int chunk, float threshold) {
  const int begin = columns.begin(chunk), width = columns.width();
  const int* __restrict__ at = columns.low.data() + begin;
  const float* __restrict__ low_weight = columns.low_weight.data() + begin;
  const float* __restrict__ high_weight = columns.high_weight.data() + begin;
  for (int y = 0; y < lines.rows; ++y) {
    const float* __restrict__ cells = lines.first + y * lines.pitch;
    unsigned char* __restrict__ row = out + y * pitch;
    for (int i = 0; i < width; ++i) {
      const PasteSample sample = {0, low_weight[i], high_weight[i]};
      row[i] = paste_value(cells[at[i]], cells[at[i] + 1], sample, threshold);
    }
  }
}

#ifdef CVOPS_AVX2
// The same for kWindow columns per window. A permutation of the cells of a window, which compilers
// do not find, replaces the loads of a column. It has a mask because GCC 12 warns about an
// uninitialized number in the form without one.
template <int kWindow>
CVOPS_AVX512 inline void paste_chunk_avx512(unsigned char* __restrict__ out, int64 pitch,
                                            PasteLines lines, const PasteColumns& columns,
                                            int chunk, float threshold) {
  constexpr int kLanes = 16, kVectors = kPasteColumns / kLanes;
  const int begin = columns.begin(chunk), width = columns.width();
  const __mmask64 exist = _bzhi_u64(-1, width);
  const __m512i one = _mm512_set1_epi8(1);
  const __m512 least = _mm512_set1_ps(threshold);
  const float* cells[kVectors];
  __m512i low_lanes[kVectors], high_lanes[kVectors];
  __m512 low_weight[kVectors], high_weight[kVectors];
  for (int v = 0; v < kVectors; ++v) {
    const int i = v * kLanes;
    cells[v] = lines.first + columns.low[begin + i / kWindow * kWindow];
    low_lanes[v] = _mm512_loadu_si512(&columns.lanes[chunk * kPasteColumns + i]);
    high_lanes[v] = _mm512_add_epi32(low_lanes[v], _mm512_set1_epi32(1));
    low_weight[v] = _mm512_loadu_ps(&columns.low_weight[begin + i]);
    high_weight[v] = _mm512_loadu_ps(&columns.high_weight[begin + i]);
  }
  for (int y = 0; y < lines.rows; ++y) {
    __m512 window = {};
    __mmask16 is_in[kVectors];
    for (int v = 0; v < kVectors; ++v) {
      if (v * kLanes % kWindow == 0) window = _mm512_loadu_ps(cells[v] + y * lines.pitch);
      const __m512 low = _mm512_maskz_permutexvar_ps(-1, low_lanes[v], window);
      const __m512 high = _mm512_maskz_permutexvar_ps(-1, high_lanes[v], window);
      const __m512 value = low_weight[v] * low + high_weight[v] * high;
      is_in[v] = _mm512_cmp_ps_mask(value, least, _CMP_GE_OQ);
    }
    const __mmask64 all =
        _mm512_kunpackd(_mm512_kunpackw(is_in[3], is_in[2]), _mm512_kunpackw(is_in[1], is_in[0]));
    const __m512i bytes = _mm512_maskz_mov_epi8(all, one);
    if (width == kPasteColumns) {
      _mm512_storeu_si512(out + y * pitch, bytes);
    } else {
      _mm512_mask_storeu_epi8(out + y * pitch, exist, bytes);
    }
  }
}

template <int kWindow>
CVOPS_AVX2 inline void paste_chunk_avx2(unsigned char* __restrict__ out, int64 pitch,
                                        PasteLines lines, const PasteColumns& columns, int chunk,
                                        float threshold) {
  constexpr int kLanes = 8, kVectors = 4, kPart = kVectors * kLanes;
  const __m256i one = _mm256_set1_epi8(1);
  const __m256 least = _mm256_set1_ps(threshold);
  // The packs do not move numbers between the halves of a vector.
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  for (int part = 0; part < kPasteColumns; part += kPart) {
    const int begin = columns.begin(chunk) + part, width = columns.width() - part;
    if (width <= 0) return;
    const float* cells[kVectors];
    __m256i low_lanes[kVectors];
    __m256 low_weight[kVectors], high_weight[kVectors];
    for (int v = 0; v < kVectors; ++v) {
      const int i = v * kLanes;
      cells[v] = lines.first + columns.low[begin + i / kWindow * kWindow];
      std::memcpy(low_lanes + v, &columns.lanes[chunk * kPasteColumns + part + i], 4 * kLanes);
      low_weight[v] = _mm256_loadu_ps(&columns.low_weight[begin + i]);
      high_weight[v] = _mm256_loadu_ps(&columns.high_weight[begin + i]);
    }
    for (int y = 0; y < lines.rows; ++y) {
      __m256 window = {};
      __m256i is_in[kVectors];
      for (int v = 0; v < kVectors; ++v) {
        if (v * kLanes % kWindow == 0) window = _mm256_loadu_ps(cells[v] + y * lines.pitch);
        const __m256i high_lanes = _mm256_add_epi32(low_lanes[v], _mm256_set1_epi32(1));
        const __m256 low = _mm256_permutevar8x32_ps(window, low_lanes[v]);
        const __m256 high = _mm256_permutevar8x32_ps(window, high_lanes);
        const __m256 value = low_weight[v] * low + high_weight[v] * high;
        is_in[v] = _mm256_castps_si256(_mm256_cmp_ps(value, least, _CMP_GE_OQ));
      }
      const __m256i all = _mm256_packs_epi16(_mm256_packs_epi32(is_in[0], is_in[1]),
                                             _mm256_packs_epi32(is_in[2], is_in[3]));
      const __m256i bytes = _mm256_and_si256(_mm256_permutevar8x32_epi32(all, order), one);
      unsigned char* const to = out + y * pitch + part;
      if (width >= kPart) {
        std::memcpy(to, &bytes, kPart);
      } else {
        std::memcpy(to, &bytes, width);
      }
    }
  }
}
#endif

}  // namespace cvops::cpu
