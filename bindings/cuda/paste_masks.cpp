#include "paste_masks.h"

namespace cvops {

void paste_masks(Gpu& gpu, unsigned char* out, const float* masks, const float* boxes,
                 PasteShape shape, float threshold) {
  const int64 total = shape.num * shape.height * shape.width;
  if (total == 0) return;
  if (shape.mask_height == 0 || shape.mask_width == 0) return gpu.set_to_zero(out, total);
  constexpr int64 threads = CVOPS_STEP(256, 32);
  gpu.launch(KERNEL(paste_masks), ceil_div(total, 16 * threads), threads, 0, out, masks, boxes,
             shape, threshold);
}

}  // namespace cvops
