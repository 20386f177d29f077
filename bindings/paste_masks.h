#pragma once
#include "gpu.h"
#include "paste_masks.cuh"

namespace cvops {

// out (num, height, width): 0 or 1. masks (num, mask_height, mask_width), boxes (num, 4).
void paste_masks(const Cpu&, unsigned char* out, const float* masks, const float* boxes,
                 PasteShape shape, float threshold);
void paste_masks(Gpu&, unsigned char* out, const float* masks, const float* boxes, PasteShape shape,
                 float threshold);

}  // namespace cvops
