// label_from_color: index of the color of each pixel in a colormap, by a hash table of the colors.
// Each call builds the table.
//
// For a small colormap, each block builds its own table in shared memory. For a large one, a
// separate block first builds it in global memory. Slots fill in any order, but the lowest index of
// equal colors remains. The result is therefore always the same. A thread takes four pixels at a
// time: three 4-byte loads, one 16-byte store.
#pragma once
#include "common.cuh"

namespace cvops {

constexpr uint32 kNoColor = 0xFFFFFFFF;  // colors have 24 bits

// Hash table of 2^bits slots, at least twice the number of colors. A search always reaches an empty
// slot.
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

// First slot by Knuth's multiplicative hashing, then linear probing.
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

// Builds the table. All threads of a block must call it.
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

// table: the colors of 2^bits slots, then their indices. One block.
extern "C" __global__ void __launch_bounds__(1024, 1)
    label_from_color_table(unsigned int* __restrict__ table,
                           const unsigned char* __restrict__ colormap, int num_colors, int bits) {
  using namespace cvops;
  wait_for_earlier_launches();
  fill({table, reinterpret_cast<int*>(table + (1 << bits)), bits}, colormap, num_colors);
}

// out (pixels), image (pixels, 3), colormap (num_colors, 3). `table`: see label_from_color_table.
// It is not read for at most kColorsInShared colors: the table is then in shared memory.
extern "C" __global__ void __launch_bounds__(256)
    label_from_color(int* __restrict__ out, const unsigned char* __restrict__ image,
                     const unsigned char* __restrict__ colormap, unsigned int* table,
                     long long pixels, int num_colors, int bits, int unknown) {
  using namespace cvops;
  wait_for_earlier_launches();
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
      // Most pixels have the color of the previous pixel.
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
