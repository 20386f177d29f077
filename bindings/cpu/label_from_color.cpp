#include "label_from_color.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "label_from_color.cuh"
#include "parallel.h"
#include "simd.h"

namespace cvops {
namespace {

// True if 16 pixels have one color: each byte equals the byte three positions later.
inline bool all_equal(const unsigned char* image) {
  uint64 differ = 0;
  for (int i : {0, 8, 16, 24, 32, 37}) {
    uint64 a, b;
    std::memcpy(&a, image + i, sizeof a);
    std::memcpy(&b, image + i + 3, sizeof b);
    differ |= a ^ b;
  }
  return differ == 0;
}

void find_labels(int* out, const unsigned char* image, int64 pixels, const ColorTable& table,
                 int unknown) {
  constexpr int kGroup = 16;
  int64 i = 0;
  // Loads take four bytes; the last one belongs to the next pixel.
  for (; i + kGroup < pixels; i += kGroup) {
    const unsigned char* const from = image + 3 * i;
    if (all_equal(from)) {
      std::fill_n(out + i, kGroup, index_of(packed_color(from), table, unknown));
      continue;
    }
    for (int k = 0; k < kGroup; ++k) {
      uint32 color;
      std::memcpy(&color, from + 3 * k, sizeof color);
      out[i + k] = index_of(color & 0xffffff, table, unknown);
    }
  }
  for (; i < pixels; ++i) out[i] = index_of(packed_color(image + 3 * i), table, unknown);
}

}  // namespace

void label_from_color(const Cpu&, int* out, const unsigned char* image,
                      const unsigned char* colormap, int64 pixels, int num_colors, int unknown) {
  // A large table for a usual colormap: nearly every search ends at its first slot.
  const bool roomy = num_colors <= 256 && pixels >= 1 << 12;
  const int bits = color_table_bits(roomy ? 16 * num_colors : num_colors);
  std::vector<uint32> memory(2 << bits, kNoColor);
  const ColorTable table = {memory.data(), reinterpret_cast<int*>(memory.data() + (1 << bits)),
                            bits};
  for (int k = num_colors - 1; k >= 0; --k) {  // the lowest index is written last and remains
    const uint32 color = packed_color(colormap + 3 * k);
    uint32 slot = first_slot(color, bits);
    while (table.colors[slot] != kNoColor && table.colors[slot] != color) {
      slot = next_slot(slot, bits);
    }
    table.colors[slot] = color;
    table.indices[slot] = k;
  }

  constexpr int64 kPart = 1 << 14;
  parallel_for(ceil_div(pixels, kPart), 0.8 * std::min(pixels, kPart), [&](int64 part) {
    const int64 begin = part * kPart, num = std::min(pixels - begin, kPart);
    simd<find_labels>(out + begin, image + 3 * begin, num, table, unknown);
  });
}

}  // namespace cvops
