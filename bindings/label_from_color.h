#pragma once
#include "common.cuh"

struct CUstream_st;

// out (pixels), image (pixels, 3), colormap (num_colors, 3), of 1 to 65535 colours.
namespace cvops {

namespace cpu {
void label_from_color(int* out, const unsigned char* image, const unsigned char* colormap,
                      int64 pixels, int num_colors, int unknown);
}

namespace cuda {
// Bytes of scratch memory that a call takes.
int64 label_from_color_workspace(int num_colors);
void label_from_color(int* out, const unsigned char* image, const unsigned char* colormap,
                      void* workspace, int64 pixels, int num_colors, int unknown,
                      CUstream_st* stream);
}  // namespace cuda

}  // namespace cvops
