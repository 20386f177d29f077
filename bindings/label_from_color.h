#pragma once
#include "common.cuh"
#include "gpu.h"

// out (pixels), image (pixels, 3), colormap (num_colors, 3) with 1 to 65535 colors.
namespace cvops {

void label_from_color(const Cpu&, int* out, const unsigned char* image,
                      const unsigned char* colormap, int64 pixels, int num_colors, int unknown);
void label_from_color(Gpu&, int* out, const unsigned char* image, const unsigned char* colormap,
                      int64 pixels, int num_colors, int unknown);

}  // namespace cvops
