#include <algorithm>

#include "label_from_color.cuh"
#include "label_from_color.h"
#include "launch.h"

namespace cvops::cuda {

static constexpr int64 kMostBlocks = CVOPS_STEP(2048, 3);

static int64 table_size(int num_colors) {
  return 2 * sizeof(uint32) * (1ll << color_table_bits(num_colors));
}

int64 label_from_color_workspace(int num_colors) {
  return num_colors > kColorsInShared ? table_size(num_colors) : 0;
}

void label_from_color(int* out, const unsigned char* image, const unsigned char* colormap,
                      void* workspace, int64 pixels, int num_colors, int unknown,
                      cudaStream_t stream) {
  if (pixels == 0) return;
  uint32* table = static_cast<uint32*>(workspace);
  bool in_shared = num_colors <= kColorsInShared;
  int bits = color_table_bits(num_colors);
  if (!in_shared) {
    launch("label_from_color_table", ::label_from_color_table, 1, 1024, 0, stream, table, colormap,
           num_colors, bits);
  }
  dim3 grid((unsigned)std::min(ceil_div(pixels, 2048), kMostBlocks));
  launch("label_from_color", ::label_from_color, grid, 256, in_shared ? table_size(num_colors) : 0,
         stream, out, image, colormap, table, pixels, num_colors, bits, unknown);
}

}  // namespace cvops::cuda
