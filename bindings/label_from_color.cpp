#include "label_from_color.h"

#include <algorithm>
#include <vector>

#include "label_from_color.cuh"
#include "parallel.h"

void cvops::cpu::label_from_color(int* out, const unsigned char* image,
                                  const unsigned char* colormap, int64 pixels, int num_colors,
                                  int unknown) {
  // So much room for a usual colormap that nearly every search ends where it begins.
  const int bits = color_table_bits(num_colors <= 256 ? 16 * num_colors : num_colors);
  std::vector<uint32> colors(1 << bits, kNoColor);
  std::vector<int> indices(1 << bits);
  const ColorTable table = {colors.data(), indices.data(), bits};
  for (int k = num_colors - 1; k >= 0; --k) {  // the lowest index comes last, and stays
    const uint32 color = packed_color(colormap + 3 * k);
    uint32 slot = first_slot(color, bits);
    while (colors[slot] != kNoColor && colors[slot] != color) slot = next_slot(slot, bits);
    colors[slot] = color;
    indices[slot] = k;
  }

  constexpr int64 kPart = 1 << 14;
  parallel_for(ceil_div(pixels, kPart), 1.5 * kPart, [&](int64 part) {
    const int64 end = std::min(pixels, (part + 1) * kPart);
    for (int64 i = part * kPart; i < end; ++i) {
      out[i] = index_of(packed_color(image + 3 * i), table, unknown);
    }
  });
}
