#include "label_from_color.h"

#include <algorithm>

#include "label_from_color.cuh"

namespace cvops {

void label_from_color(Gpu& gpu, int* out, const unsigned char* image, const unsigned char* colormap,
                      int64 pixels, int num_colors, int unknown) {
  if (pixels == 0) return;
  const bool in_shared = num_colors <= kColorsInShared;
  const int bits = color_table_bits(num_colors);
  const int64 words = 2ll << bits;
  constexpr int64 max_blocks = CVOPS_STEP(2048, 3);
  uint32* table = nullptr;
  if (!in_shared) {
    table = gpu.scratch<uint32>(words);
    gpu.launch(KERNEL(label_from_color_table), 1, 1024, 0, table, colormap, num_colors, bits);
  }
  gpu.launch(KERNEL(label_from_color), std::min(ceil_div(pixels, 2048), max_blocks), 256,
             in_shared ? words * sizeof(uint32) : 0, out, image, colormap, table, pixels,
             num_colors, bits, unknown);
}

}  // namespace cvops
