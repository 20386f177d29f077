#pragma once
#include "box_nms.h"
#include "rotated_box.cuh"

namespace cvops {

// box_nms of rotated boxes: see there. A row has five numbers of a box from columns.coord on.
void nms_rotated(const Cpu&, float* out, int* index, const float* data, int64 batch, int64 num,
                 NmsOptions options, RotatedFormat format);
void nms_rotated(Gpu&, float* out, int* index, const float* data, int64 batch, int64 num,
                 NmsOptions options, RotatedFormat format);

}  // namespace cvops
