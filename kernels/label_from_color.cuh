// label_from_color: the index of each pixel's colour in a colormap, by a hash table of the colours
// that is made anew in each call.
//
// A table of few colours each block makes for itself, in shared memory; one of many is made in
// global memory first, by a block of its own. Its slots fill in any order, but of equal colours the
// lowest index remains, so that the result is the same. A thread takes four pixels at a time: three
// loads of 4 bytes, one store of 16.
#pragma once
#include "common.cuh"

namespace cvops {

constexpr uint32 kNoColor = 0xFFFFFFFF;  // colours have 24 bits

// 2^bits slots, twice as many as there are colours or more, so that a search ends at an empty one.
struct ColorTable {
  uint32* colors;
  int* indices;
  int bits;
};

CVOPS_HD int color_table_bits(int num_colors) {
  int bits = 1;
  while (1 << bits < 2 * num_colors) ++bits;
  return bits;
}

CVOPS_HD uint32 packed_color(uint32 red, uint32 green, uint32 blue) {
  return red | green << 8 | blue << 16;
}

CVOPS_HD uint32 packed_color(const unsigned char* rgb) {
  return packed_color(rgb[0], rgb[1], rgb[2]);
}

// Where the search begins, by Knuth's multiplicative hashing; and where it goes on.
CVOPS_HD uint32 first_slot(uint32 color, int bits) { return color * 2654435769u >> (32 - bits); }
CVOPS_HD uint32 next_slot(uint32 slot, int bits) { return (slot + 1) & ((1u << bits) - 1); }

CVOPS_HD int index_of(uint32 color, ColorTable table, int unknown) {
  for (uint32 slot = first_slot(color, table.bits);; slot = next_slot(slot, table.bits)) {
    if (table.colors[slot] == color) return table.indices[slot];
    if (table.colors[slot] == kNoColor) return unknown;
  }
}

constexpr int kColorsInShared = CVOPS_STEP(1024, 5);

}  // namespace cvops

CVOPS_KERNEL label_from_color_table(cvops::uint32* table, const unsigned char* colormap,
                                    int num_colors, int bits);
CVOPS_KERNEL label_from_color(int* out, const unsigned char* image, const unsigned char* colormap,
                              cvops::uint32* table, cvops::int64 pixels, int num_colors, int bits,
                              int unknown);

#ifdef __CUDACC__
namespace cvops {

// By all threads of a block.
__device__ __forceinline__ void fill(ColorTable table, const unsigned char* __restrict__ colormap,
                                     int num_colors) {
  const int me = (int)threadIdx.x, threads = (int)blockDim.x;
  for (int slot = me; slot < 1 << table.bits; slot += threads) {
    table.colors[slot] = kNoColor;
    table.indices[slot] = num_colors;
  }
  __syncthreads();
  for (int k = me; k < num_colors; k += threads) {
    const uint32 color = packed_color(colormap + 3 * k);
    uint32 slot = first_slot(color, table.bits);
    for (;; slot = next_slot(slot, table.bits)) {
      const uint32 there = atomicCAS(&table.colors[slot], kNoColor, color);
      if (there == kNoColor || there == color) break;
    }
    atomicMin(&table.indices[slot], k);
  }
  __syncthreads();
}

}  // namespace cvops

// table: room for the colours of 2^bits slots, then for their indices. For one block.
extern "C" __global__ void __launch_bounds__(1024)
    label_from_color_table(unsigned int* __restrict__ table,
                           const unsigned char* __restrict__ colormap, int num_colors, int bits) {
  using namespace cvops;
  fill({table, reinterpret_cast<int*>(table + (1 << bits)), bits}, colormap, num_colors);
}

// out (pixels), image (pixels, 3), colormap (num_colors, 3). `table` as above, or for
// kColorsInShared colours and fewer in shared memory, and what is given is not looked at.
extern "C" __global__ void __launch_bounds__(256)
    label_from_color(int* __restrict__ out, const unsigned char* __restrict__ image,
                     const unsigned char* __restrict__ colormap, unsigned int* table,
                     long long pixels, int num_colors, int bits, int unknown) {
  using namespace cvops;
  CVOPS_DYNAMIC_SHARED(uint32, shared);
  const bool in_shared = num_colors <= kColorsInShared;
  uint32* const colors = in_shared ? shared : table;
  const ColorTable colors_of_map = {colors, reinterpret_cast<int*>(colors + (1 << bits)), bits};
  if (in_shared) fill(colors_of_map, colormap, num_colors);

  const int64 thread = blockIdx.x * (int64)blockDim.x + threadIdx.x;
  const int64 threads = (int64)gridDim.x * blockDim.x;
  const uint32* words = reinterpret_cast<const uint32*>(image);
  for (int64 k = thread; k < pixels / 4; k += threads) {
    const uint32 a = words[3 * k], b = words[3 * k + 1], c = words[3 * k + 2];
    const uint32 color[4] = {a & 0xFFFFFF, a >> 24 | (b & 0xFFFF) << 8, b >> 16 | (c & 0xFF) << 16,
                             c >> 8};
    int index[4];
#pragma unroll
    for (int n = 0; n < 4; ++n) {
      // Mostly the pixel before has the same colour.
      index[n] = n > 0 && color[n] == color[n - 1] ? index[n - 1]
                                                   : index_of(color[n], colors_of_map, unknown);
    }
    reinterpret_cast<int4*>(out)[k] = make_int4(index[0], index[1], index[2], index[3]);
  }
  const int64 last = pixels / 4 * 4 + thread;
  if (last < pixels) {
    out[last] = index_of(packed_color(image + 3 * last), colors_of_map, unknown);
  }
}
#endif
